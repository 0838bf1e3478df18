//! What an operator wants to know of an interface before a filter is attached: driver, MTU, queues,
//! and whether the driver runs XDP programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use netlink_packet_core::Nla as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{
    netlink,
    nfnetlink::{attributes, text},
    rtnetlink::dump,
};

/// The hardware and the driver of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// The name of its driver; `None` for a device without hardware.
    pub driver: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its receive queues.
    pub queues: u32,
    /// What its driver can do with XDP; `None` before Linux 6.3, which does not say.
    pub xdp: Option<XdpFeatures>,
}

/// XDP features of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It runs XDP programs, and passes or drops what they say (`NETDEV_XDP_ACT_BASIC`).
    pub native: bool,
    /// It gives a program frames of several buffers (`NETDEV_XDP_ACT_RX_SG`). Without that a driver
    /// refuses a program while the MTU is too high for one buffer.
    pub multi_buffer: bool,
}

/// Attributes of a link, of `linux/if_link.h`: name and bus of the device below (Linux 5.14).
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;

/// The cards of this network namespace, by ifindex.
///
/// # Errors
/// If rtnetlink does not answer.
pub fn cards() -> Result<BTreeMap<u32, Card>> {
    // A kernel without the family, or a process without the right, leaves it unknown.
    let features = xdp_features().unwrap_or_default();
    let mut cards = BTreeMap::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    dump(&request, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            let ifindex = link.header.index;
            let mut card = card(link);
            card.xdp = features.get(&ifindex).copied();
            cards.insert(ifindex, card);
        }
    })
    .context("list interfaces")?;
    Ok(cards)
}

fn card(link: LinkMessage) -> Card {
    let mut card = Card::default();
    let (mut device, mut bus) = (None, None);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => card.mtu = mtu,
            LinkAttribute::NumRxQueues(queues) => card.queues = queues,
            other => {
                let mut value = vec![0; other.value_len()];
                match other.kind() {
                    IFLA_PARENT_DEV_NAME => {
                        other.emit_value(&mut value);
                        device = Some(text(&value));
                    }
                    IFLA_PARENT_DEV_BUS_NAME => {
                        other.emit_value(&mut value);
                        bus = Some(text(&value));
                    }
                    _ => {}
                }
            }
        }
    }
    card.driver = device.zip(bus).and_then(|(device, bus)| {
        // This path does not depend on the network namespace that sysfs was mounted in.
        let link = Path::new("/sys/bus").join(bus).join("devices").join(device);
        let driver = fs::read_link(link.join("driver")).ok()?;
        Some(driver.file_name()?.to_string_lossy().into_owned())
    });
    card
}

/// The controller of generic netlink, its request for a family, and what it answers
/// (`linux/genetlink.h`).
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Length of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// The family `netdev` (`linux/netdev.h`; Linux 6.3, commit
/// d3d854fd6a1d97157f790604e07f6386e8df8fe4).
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1 << 0;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

/// The XDP features of all devices, by ifindex.
fn xdp_features() -> Result<BTreeMap<u32, XdpFeatures>> {
    let mut family = None;
    generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, |found| {
        if found.get(&CTRL_ATTR_FAMILY_NAME).map(|name| text(name)) == Some("netdev".to_owned()) {
            let id = found.get(&CTRL_ATTR_FAMILY_ID);
            family = id.and_then(|id| Some(u16::from_ne_bytes(id.first_chunk().copied()?)));
        }
    })?;
    let family = family.context("no family `netdev`")?;
    let mut features = BTreeMap::new();
    generic(family, NETDEV_CMD_DEV_GET, |found| {
        let ifindex = found.get(&NETDEV_A_DEV_IFINDEX);
        let ifindex = ifindex.and_then(|bytes| bytes.first_chunk().copied());
        let bits = found.get(&NETDEV_A_DEV_XDP_FEATURES);
        let bits = bits.and_then(|bytes| bytes.first_chunk().copied());
        if let (Some(ifindex), Some(bits)) = (ifindex, bits) {
            let bits = u64::from_ne_bytes(bits);
            let one = XdpFeatures {
                native: bits & NETDEV_XDP_ACT_BASIC != 0,
                multi_buffer: bits & NETDEV_XDP_ACT_RX_SG != 0,
            };
            features.insert(u32::from_ne_bytes(ifindex), one);
        }
    })?;
    Ok(features)
}

/// Dumps the objects that `command` of `family` lists, each as its attributes by kind.
fn generic(family: u16, command: u8, mut each: impl FnMut(BTreeMap<u16, &[u8]>)) -> Result<()> {
    let request = [command, 1, 0, 0];
    netlink::dump(NETLINK_GENERIC, family, &request, |_, body| {
        each(attributes(body.get(GENERIC_HEADER..).unwrap_or_default()).collect());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_card() {
        let cards = cards().expect("rtnetlink");
        let loopback = &cards[&1];
        assert!(loopback.mtu >= 1500 && loopback.queues > 0, "{loopback:?}");
        assert_eq!(loopback.driver, None);
    }
}
