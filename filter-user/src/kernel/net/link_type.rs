//! The start of a device's packets as an XDP program sees them, by link type (`ARPHRD_*` in
//! `include/uapi/linux/if_arp.h`) and kind.
//!
//! Measured with a program that shows the first bytes, with TCP over IPv4 and IPv6 through each
//! device. The kernels were Linux 6.12.117 and 6.1.176 unless a comment says otherwise. A device
//! that was not measured, or has no certain start, is refused: a filter that reads the wrong bytes
//! is worse than none, since it looks like one.

use filter_common::LinkHeader;
use netlink_packet_route::link::InfoKind;

/// How the filter sees a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// It can judge them.
    Filtered(LinkHeader),
    /// It cannot: the reason, and the alternative.
    Refused(&'static str, &'static str),
}

use LinkType::{Filtered, Refused};

const ETHERNET: LinkType = Filtered(LinkHeader::Ethernet);
const IP: LinkType = Filtered(LinkHeader::None);

const GUARD_LOWER: &str = "guard the interface below it";
const GUARD_PORTS: &str = "guard its ports";
const USE_ETHERNET: &str =
    "use a tunnel with Ethernet frames, like `gretap`; or do not listen on its addresses";
const KEEP_OFF: &str = "do not listen on its addresses with a protected port";
const NOTHING: &str = "it needs no filter";

impl LinkType {
    /// The link type of a device with the number `arphrd` and this kind; `None` is a driver's own
    /// device.
    pub fn new(arphrd: u16, kind: Option<&InfoKind>) -> Self {
        match arphrd {
            // ARPHRD_LOOPBACK
            772 => Refused("loopback is never filtered", NOTHING),
            // ARPHRD_ETHER
            1 => ethernet(kind),
            // ARPHRD_NONE: no link header.
            0xfffe => no_header(kind),
            // ARPHRD_TUNNEL
            768 => match kind {
                Some(InfoKind::IpIp) => IP,
                _ => inherited(),
            },
            // ARPHRD_TUNNEL6
            769 => match kind {
                Some(InfoKind::Ip6Tnl) => IP,
                _ => inherited(),
            },
            // ARPHRD_SIT
            776 => match kind {
                Some(InfoKind::SitTun) => IP,
                _ => unknown(),
            },
            // ARPHRD_IPGRE, ARPHRD_IP6GRE
            778 | 823 => gre(),
            // ARPHRD_PPP
            512 => Refused("PPP is not tested", KEEP_OFF),
            // ARPHRD_RAWIP
            519 => Refused("raw IP of this driver is not tested", KEEP_OFF),
            // ARPHRD_INFINIBAND
            32 => Refused("IP over InfiniBand has another link header", KEEP_OFF),
            // ARPHRD_CAN
            280 => Refused("CAN does not carry IP", NOTHING),
            // ARPHRD_NETLINK, ARPHRD_VSOCKMON
            824 | 826 => Refused("it has only copies of messages", NOTHING),
            // ARPHRD_IEEE80211 and with Prism or radiotap headers, ARPHRD_IEEE802154_MONITOR
            801..=803 | 805 => Refused("it has only copies of radio frames", NOTHING),
            // ARPHRD_PIMREG
            779 => Refused("it carries only multicast, never TCP", NOTHING),
            // ARPHRD_6LOWPAN, ARPHRD_IEEE802154
            825 | 804 => Refused("its IPv6 headers are compressed", KEEP_OFF),
            // ARPHRD_NETROM, EETHER, AX25, PRONET, CHAOS, IEEE802, ARCNET, APPLETLK
            0 | 2..=8
            // DLCI, ATM, METRICOM, IEEE1394, EUI64
            | 15 | 19 | 23 | 24 | 27
            // SLIP, CSLIP, SLIP6, CSLIP6, RSRVD, ADAPT, ROSE, X25, HWX25, MCTP
            | 256..=260 | 264 | 270..=272 | 290
            // CISCO (HDLC), LAPB, DDCMP, RAWHDLC
            | 513 | 516..=518
            // FRAD, SKIP, LOCALTLK, FDDI, BIF, IPDDP
            | 770 | 771 | 773..=775 | 777
            // HIPPI, ASH, ECONET, IRDA, FCPP, FCAL, FCPL, FCFABRIC, IEEE802_TR
            | 780..=787 | 800
            // PHONET, PHONET_PIPE, CAIF
            | 820..=822 => Refused("its link header is not Ethernet", KEEP_OFF),
            // ARPHRD_VOID, and numbers that this table lacks.
            _ => unknown(),
        }
    }
}

/// A device that claims Ethernet frames.
fn ethernet(kind: Option<&InfoKind>) -> LinkType {
    let Some(kind) = kind else {
        // A network card.
        return ETHERNET;
    };
    match kind {
        InfoKind::Veth
        | InfoKind::Vlan
        | InfoKind::Bridge
        | InfoKind::Bond
        | InfoKind::MacVlan
        | InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::ErSpan
        // In modes `l2` and `l3` (6.12).
        | InfoKind::Netkit
        | InfoKind::MacSec
        // A tap. The link dump does not show its flags, but a tun has another link type.
        | InfoKind::Tun => ETHERNET,
        // Read in the sources only (`net/core/dev.c` and the drivers). They pass on frames of their
        // ports with the Ethernet header and another device (`RX_HANDLER_ANOTHER`), or call
        // `eth_type_trans`.
        InfoKind::Team | InfoKind::Ip6ErSpan | InfoKind::Dsa => ETHERNET,
        // Nothing arrives from outside; a frame that another device redirects to it is Ethernet.
        InfoKind::Dummy => ETHERNET,
        // Open vSwitch's own ports; read in the sources only (`internal_dev_recv` calls
        // `eth_type_trans`).
        InfoKind::Other(name) if name == "openvswitch" => ETHERNET,
        // The stack hands packets to it after the hook: connections were set up, and the program
        // saw no packet.
        InfoKind::Vrf => Refused("XDP does not see packets of a VRF", GUARD_PORTS),
        // The link type of mode `l3s`, which can be set at any time.
        InfoKind::IpVlan => Refused("XDP does not see packets of an ipvlan in mode `l3s`", GUARD_LOWER),
        InfoKind::IpVtap | InfoKind::MacVtap => {
            Refused("its packets go to a program, not to this node", NOTHING)
        }
        InfoKind::Ifb => Refused("it returns packets to their sender", GUARD_LOWER),
        _ => Refused("this kind of device is not tested", KEEP_OFF),
    }
}

/// A device that claims to have no link header.
fn no_header(kind: Option<&InfoKind>) -> LinkType {
    match kind {
        // Also on 6.18, with and without packet information (`IFF_NO_PI`).
        Some(InfoKind::Tun | InfoKind::Wireguard) => IP,
        Some(InfoKind::Xfrm) => inherited(),
        // Each packet names its own protocol in a header that the program does not see. A VLAN tag,
        // which Linux strips, would hide the IP header.
        Some(InfoKind::GreTun | InfoKind::GreTun6 | InfoKind::Geneve | InfoKind::Vxlan) => Refused(
            "its packets have different protocols, which XDP does not see",
            USE_ETHERNET,
        ),
        _ => Refused("this kind of device is not tested", KEEP_OFF),
    }
}

/// IPsec devices. The inner packet keeps the header of the outer one: an Ethernet header if it
/// arrived on a network card.
const fn inherited() -> LinkType {
    Refused(
        "its packets start with the link header of another interface",
        KEEP_OFF,
    )
}

/// Packets start with the outer IP header without a remote address, as on `gre0`, otherwise with
/// the inner one. The sender names the protocol, as above.
const fn gre() -> LinkType {
    Refused(
        "packets of GRE do not always start with their IP header",
        USE_ETHERNET,
    )
}

const fn unknown() -> LinkType {
    Refused("its link type is unknown", KEEP_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of `include/uapi/linux/if_arp.h`, Linux 6.18.
    const ARPHRD: [u16; 61] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 19, 23, 24, 27, 32, 256, 257, 258, 259, 260, 264, 270, 271,
        272, 280, 290, 512, 513, 516, 517, 518, 519, 768, 769, 770, 771, 772, 773, 774, 775, 776,
        777, 778, 779, 780, 781, 782, 783, 784, 785, 786, 787, 800, 801, 802, 803, 804, 805, 820,
        821, 822,
    ];
    const ARPHRD_MORE: [u16; 5] = [823, 824, 825, 826, 0xfffe];

    #[test]
    fn every_link_type_has_a_line_of_its_own() {
        for arphrd in 0..=u16::MAX {
            let known = ARPHRD.contains(&arphrd) || ARPHRD_MORE.contains(&arphrd);
            let link_type = LinkType::new(arphrd, Some(&InfoKind::SitTun));
            assert!(known || link_type == unknown(), "{arphrd}: {link_type:?}");
            // Those that depend on the kind refuse an unknown kind.
            let other = InfoKind::Other("new".to_owned());
            let link_type = LinkType::new(arphrd, Some(&other));
            assert!(matches!(link_type, Refused(..)), "{arphrd}: {link_type:?}");
        }
    }

    #[test]
    fn each_device_has_the_link_header_of_its_packets() {
        for (arphrd, kind, want) in [
            (1, None, ETHERNET),
            (1, Some(InfoKind::Veth), ETHERNET),
            (1, Some(InfoKind::Tun), ETHERNET),
            (0xfffe, Some(InfoKind::Tun), IP),
            (0xfffe, Some(InfoKind::Wireguard), IP),
            (768, Some(InfoKind::IpIp), IP),
            (769, Some(InfoKind::Ip6Tnl), IP),
            (776, Some(InfoKind::SitTun), IP),
        ] {
            assert_eq!(
                LinkType::new(arphrd, kind.as_ref()),
                want,
                "{arphrd} {kind:?}"
            );
        }
        for (arphrd, kind) in [
            (772, None),
            (1, Some(InfoKind::Vrf)),
            (1, Some(InfoKind::IpVlan)),
            (768, Some(InfoKind::Vti)),
            (769, Some(InfoKind::Vti6)),
            (0xfffe, Some(InfoKind::Xfrm)),
            (0xfffe, Some(InfoKind::Geneve)),
            (0xfffe, None),
            (778, Some(InfoKind::GreTun)),
            (823, Some(InfoKind::GreTun6)),
            (512, None),
            (519, None),
            (32, None),
            (280, None),
            (824, Some(InfoKind::Nlmon)),
        ] {
            let link_type = LinkType::new(arphrd, kind.as_ref());
            assert!(matches!(link_type, Refused(..)), "{arphrd} {kind:?}");
        }
    }
}
