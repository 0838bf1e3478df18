//! Kinds of devices: for traffic of this node alone, for pod traffic of the cluster, or neither.
//!
//! A device of a known network is recognized by its name and kind together. Only root can name
//! devices, but a name alone proves nothing. A bridge with a network card is reachable from outside
//! whatever its name, and so is a VXLAN device with an unknown name.

use netlink_packet_route::link::InfoKind;

use crate::kernel::net::interface::Interface;

/// Whether traffic over `interface` comes from this node, its pods or its containers. Network
/// plugins and container engines give the host's ends of their pairs known names. The network card
/// of a node that is a container is a pair with another name.
pub fn is_local(interface: &Interface) -> bool {
    const LOOPBACK: u32 = 1;
    const PAIRS: [&str; 7] = ["veth", "cali", "lxc", "cilium_", "eni", "azv", "gke"];
    let named = || PAIRS.iter().any(|name| interface.name.starts_with(name));
    match &interface.kind {
        None => interface.ifindex == LOOPBACK,
        Some(InfoKind::Dummy) => true,
        Some(InfoKind::Veth) => named(),
        Some(InfoKind::Other(kind)) if kind == "netkit" => named(),
        _ => false,
    }
}

/// Whether `interface` is a device that a known network plugin makes for pod traffic between nodes.
///
/// The names are those of flannel (`flannel.VNI`, `flannel-v6.VNI`, `flannel-wg`), Calico
/// (`vxlan.calico`, `wireguard.cali`, `tunl0`), Cilium (`cilium_vxlan`, `cilium_geneve`,
/// `cilium_ipip4`, `cilium_wg0`), OVN-Kubernetes and Antrea on Open vSwitch (`genev_sys_6081`,
/// `vxlan_sys_4789`, `ovn-k8s-mp0`, `antrea-gw0`), and Weave (`vxlan-6784`).
pub fn is_overlay(interface: &Interface) -> bool {
    let name = interface.name.as_str();
    let among = |names: &[&str]| names.contains(&name);
    match &interface.kind {
        Some(InfoKind::Vxlan) => {
            numbered(name, "flannel.")
                || numbered(name, "flannel-v6.")
                || among(&["vxlan.calico", "vxlan-v6.calico", "cilium_vxlan"])
                || among(&["vxlan_sys_4789", "vxlan-6784"])
        }
        Some(InfoKind::Geneve) => among(&["cilium_geneve", "genev_sys_6081"]),
        Some(InfoKind::Wireguard) => {
            among(&["flannel-wg", "flannel-wg-v6", "cilium_wg0", "antrea-wg0"])
                || among(&["wireguard.cali", "wg-v6.cali"])
        }
        Some(InfoKind::IpIp) => among(&["tunl0", "cilium_ipip4"]),
        Some(InfoKind::Ip6Tnl) => among(&["cilium_ipip6"]),
        Some(InfoKind::Other(kind)) if kind == "openvswitch" => {
            numbered(name, "ovn-k8s-mp") || numbered(name, "antrea-gw")
        }
        _ => false,
    }
}

/// Whether `name` is `start` followed by a number.
pub fn numbered(name: &str, start: &str) -> bool {
    name.strip_prefix(start)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether devices of this kind decapsulate packets.
pub fn is_tunnel(kind: &InfoKind) -> bool {
    match kind {
        InfoKind::Tun
        | InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Xfrm
        | InfoKind::Gtp
        | InfoKind::BareUdp
        | InfoKind::Amt
        | InfoKind::BatAdv
        | InfoKind::Wireguard => true,
        InfoKind::Other(name) => matches!(name.as_str(), "ovpn" | "openvswitch"),
        _ => false,
    }
}
