//! The interfaces, and the hook that each would get.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;

use crate::{
    cluster::{is_local, is_overlay, is_tunnel},
    context::Context,
    kernel::{
        bpf::loaded,
        links::{foreign::ForeignProgram, protected::protected_interfaces},
        net::{
            card::{Card, cards},
            interface::{Interface, XdpAttachMode},
            link_type::LinkType,
            rtnetlink::{self, is_link_local},
        },
    },
    warnings::Facts,
};

/// The highest MTU whose frames fit into one buffer of every driver: a page less headroom and the
/// kernel's own data behind it, on the tightest of them.
const ONE_BUFFER: u32 = 3_000;

/// An interface that packets from other machines arrive on.
#[derive(Clone, Debug)]
pub(crate) struct NetworkInterface {
    pub(crate) name: String,
    /// The driver, or the kind of a virtual device.
    pub(crate) driver: String,
    pub(crate) mtu: u32,
    pub(crate) queues: u32,
    /// Where the program runs or would run.
    pub(crate) hook: Hook,
    /// Whether a filter is on it.
    pub(crate) is_guarded: bool,
    /// Whether it holds a default route.
    pub(crate) is_default: bool,
    /// Whether it is a tunnel, whose other end is not this network.
    pub(crate) is_tunnel: bool,
    /// Its networks, and those of VLANs on it.
    pub(crate) networks: Vec<IpNet>,
}

/// Where the program runs, or would run, on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// In the driver.
    Native,
    /// In the network stack: slower. The reason.
    Generic(String),
    /// In the driver if it takes it. The reason for the doubt.
    Unclear(String),
    /// Nowhere: the program of another owner, and the way out.
    Foreign(String, String),
    /// Nowhere: the reason, and the way out.
    Refused(String, String),
}

impl Hook {
    /// In words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Native => "native XDP".to_owned(),
            Self::Generic(why) => format!("generic XDP: {why}"),
            Self::Unclear(why) => format!("native XDP, or generic: {why}"),
            Self::Foreign(what, _) => format!("no hook: it has {what}"),
            Self::Refused(why, _) => format!("no hook: {why}"),
        }
    }
}

/// The interfaces through which other machines reach `ports`, in the kernel's order. A device on
/// top of another one counts as the lower one, which sees its packets.
pub(super) fn interfaces(
    context: &Context,
    ports: &BTreeSet<u16>,
) -> Result<Vec<NetworkInterface>> {
    let all = rtnetlink::interfaces()?;
    let facts = Facts::gather(ports, &[])?;
    let cards = cards()?;
    let routes = rtnetlink::default_route_interfaces()?;
    let guards = protected_interfaces(&context.pins, &all).unwrap_or_default();
    let mut networks: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for (ifindex, own) in rtnetlink::addresses_in_networks()? {
        let Some(interface) = all.iter().find(|one| one.ifindex == ifindex) else {
            continue;
        };
        let is_local = facts.is_covered(interface, &BTreeSet::new()) || is_overlay(interface);
        if interface.up && !is_local && !is_link_local(own.addr()) {
            let lowest = lowest(interface, &all);
            networks.entry(lowest.ifindex).or_default().push(own);
        }
    }
    let found = all.iter().filter_map(|interface| {
        let networks = networks.remove(&interface.ifindex)?;
        let guard = guards.iter().find(|one| one.ifindex == interface.ifindex);
        let card = cards.get(&interface.ifindex).cloned().unwrap_or_default();
        let kind = interface.kind.as_ref().map(ToString::to_string);
        Some(NetworkInterface {
            name: interface.name.clone(),
            hook: match guard.filter(|guard| guard.guarded) {
                Some(guard) => match (guard.xdp_mode, &guard.native_refused) {
                    (Some(XdpAttachMode::Generic), why) => {
                        Hook::Generic(why.clone().unwrap_or_else(|| "it was requested".to_owned()))
                    }
                    _ => Hook::Native,
                },
                None => hook(interface, &card),
            },
            is_guarded: guard.is_some_and(|guard| guard.guarded),
            driver: card
                .driver
                .or(kind)
                .unwrap_or_else(|| "an unknown driver".to_owned()),
            mtu: card.mtu,
            queues: card.queues,
            is_default: is_default(interface.ifindex, &routes, &all),
            is_tunnel: interface.kind.as_ref().is_some_and(is_tunnel),
            networks,
        })
    });
    Ok(found.collect())
}

/// The devices of the cluster's network and of pods, which need no filter: their names, by kind.
pub(super) fn pod_devices() -> Result<BTreeMap<String, Vec<String>>> {
    const LOOPBACK: u32 = 1;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for interface in rtnetlink::interfaces()? {
        let is_one = is_overlay(&interface) || is_local(&interface) || is_pod_bridge(&interface);
        if interface.ifindex != LOOPBACK && is_one {
            let kind = interface
                .kind
                .map_or_else(String::new, |kind| kind.to_string());
            found.entry(kind).or_default().push(interface.name);
        }
    }
    Ok(found)
}

/// Whether it is the bridge of a container engine or of a network plugin.
fn is_pod_bridge(interface: &Interface) -> bool {
    const NAMES: [&str; 5] = ["cni", "docker", "cbr", "podman", "kube-bridge"];
    let is_named = || NAMES.iter().any(|name| interface.name.starts_with(name));
    interface.kind == Some(InfoKind::Bridge) && is_named()
}

/// The interface below `interface` that its packets come through, if a filter there judges them.
fn lowest<'a>(interface: &'a Interface, all: &'a [Interface]) -> &'a Interface {
    let is_on_top = matches!(
        interface.kind,
        Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan)
    );
    let lower = all
        .iter()
        .find(|lower| Some(lower.ifindex) == interface.lower && lower.ifindex != interface.ifindex);
    match lower {
        Some(lower) if is_on_top && matches!(lower.link_type, LinkType::Filtered(_)) => {
            lowest(lower, all)
        }
        _ => interface,
    }
}

/// Whether the interface, or a device on top of it, holds a default route.
fn is_default(ifindex: u32, routes: &BTreeSet<u32>, all: &[Interface]) -> bool {
    let mut holders = all.iter().filter(|one| routes.contains(&one.ifindex));
    holders.any(|holder| lowest(holder, all).ifindex == ifindex)
}

/// The hook that an interface without a filter would get.
fn hook(interface: &Interface, card: &Card) -> Hook {
    if let LinkType::Refused(why, way_out) = interface.link_type {
        return Hook::Refused(why.to_owned(), way_out.to_owned());
    }
    // A filter of apifence with pins elsewhere is told by the warnings.
    let foreign = interface.xdp.filter(|xdp| {
        let program = loaded(xdp.program_id).ok().flatten();
        program.is_none_or(|program| program.link_header().is_none())
    });
    if let Some(xdp) = foreign {
        let foreign = ForeignProgram::on(&interface.name, interface.ifindex, xdp);
        return Hook::Foreign(foreign.what, foreign.hint);
    }
    match card.xdp {
        None => Hook::Unclear("this kernel reports it only when the filter is attached".to_owned()),
        Some(features) if !features.native => {
            Hook::Generic("its driver has no native XDP".to_owned())
        }
        Some(features) if card.mtu > ONE_BUFFER && !features.multi_buffer => {
            Hook::Unclear(format!(
                "its driver does not support multi-buffer frames, and its MTU is {}",
                card.mtu
            ))
        }
        Some(_) => Hook::Native,
    }
}

impl NetworkInterface {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let Self {
            name,
            driver,
            mtu,
            queues,
            hook,
            ..
        } = self;
        let queues = match queues {
            1 => "1 queue".to_owned(),
            many => format!("{many} queues"),
        };
        let route = if self.is_default {
            ", default route"
        } else {
            ""
        };
        format!(
            "{name}: {driver}, MTU {mtu}, {queues}{route}; {}",
            hook.words()
        )
    }

    /// Whether a filter can be attached.
    pub(crate) const fn can_be_guarded(&self) -> bool {
        matches!(
            self.hook,
            Hook::Native | Hook::Generic(_) | Hook::Unclear(_)
        )
    }

    /// Whether `address` is in one of its networks.
    pub(crate) fn network_of(&self, address: IpAddr) -> Option<IpNet> {
        let found = self.networks.iter().find(|own| own.contains(&address));
        found.map(IpNet::trunc)
    }
}
