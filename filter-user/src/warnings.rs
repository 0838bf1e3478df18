//! What an operator should know about this node, though nothing is broken: how traffic may come past the filter, or the filter may
//! hit what it should not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use anyhow::Result;
use netlink_packet_route::link::InfoKind;

use crate::{
    clients::{Connection, established, listening},
    config::join,
    net::{Interface, Net, XdpPlace, is_link_local},
};

/// What is known of the node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    interfaces: Vec<Interface>,
    addresses: Vec<(u32, IpAddr)>,
    listeners: Vec<SocketAddr>,
    connections: Vec<Connection>,
    ephemeral: Option<RangeInclusive<u16>>,
    reserved: Vec<RangeInclusive<u16>>,
}

impl Facts {
    /// Asks the kernel. What it does not tell is not warned of.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub async fn gather(net: &Net, ports: &BTreeSet<u16>) -> Result<Self> {
        // Of the network namespace that the calling thread is in.
        let sysctl = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
            text.unwrap_or_default()
        };
        Ok(Self {
            interfaces: net.interfaces().await?,
            addresses: net.addresses().await?,
            listeners: listening(ports).unwrap_or_default(),
            connections: established(ports).unwrap_or_default(),
            ephemeral: parse_ranges(&sysctl("ip_local_port_range"))
                .first()
                .cloned(),
            reserved: parse_ranges(&sysctl("ip_local_reserved_ports")),
        })
    }

    /// The warnings, a sentence each, for a filter that protects `ports` and is on the interfaces that `guarded` names.
    pub fn warnings(&self, ports: &BTreeSet<u16>, guarded: &BTreeSet<u32>) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.generic(guarded));
        warnings.extend(self.tunnels(guarded));
        warnings.extend(self.unguarded_listeners(guarded));
        warnings.extend(self.hidden_clients());
        warnings.extend(self.ephemeral_ports(ports));
        warnings
    }

    fn generic(&self, guarded: &BTreeSet<u32>) -> Vec<String> {
        let generic = self.interfaces.iter().filter(|interface| {
            guarded.contains(&interface.ifindex)
                && interface
                    .xdp
                    .is_some_and(|xdp| xdp.place == XdpPlace::Generic)
        });
        generic
            .map(|interface| {
                format!(
                    "`{}` runs generic XDP, which is slower than the driver's",
                    interface.name
                )
            })
            .collect()
    }

    fn tunnels(&self, guarded: &BTreeSet<u32>) -> Option<String> {
        let open = self.interfaces.iter().filter(|interface| {
            interface.up
                && !guarded.contains(&interface.ifindex)
                && interface.kind.as_ref().is_some_and(is_tunnel)
        });
        let names: Vec<String> = open
            .map(|interface| {
                let kind = interface.kind.as_ref().map(ToString::to_string);
                format!("`{}` ({})", interface.name, kind.unwrap_or_default())
            })
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "tunnel devices without a filter: {}; what they carry is seen on the card as the tunnel's packets alone, so API traffic in them passes; name them with `--interface` to guard them",
                names.join(", ")
            )
        })
    }

    /// Interfaces over which a listener on a protected port is reached, and that have no filter.
    fn unguarded_listeners(&self, guarded: &BTreeSet<u32>) -> Vec<String> {
        let mut found: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
        for listener in &self.listeners {
            for (ifindex, address) in &self.addresses {
                let Some(interface) = self.interface(*ifindex).filter(|interface| interface.up)
                else {
                    continue;
                };
                let reached = listener.ip() == *address
                    || listener.ip().is_unspecified() && !is_link_local(*address);
                // Tunnels have a warning of their own.
                let tunnel = interface.kind.as_ref().is_some_and(is_tunnel);
                if reached && !tunnel && !self.covered(interface, guarded) {
                    found
                        .entry(listener.port())
                        .or_default()
                        .insert(&interface.name);
                }
            }
        }
        let warnings = found.into_iter().map(|(port, names)| {
            let names = join(names.into_iter().map(|name| format!("`{name}`")));
            format!(
                "port {port} listens on addresses of {names}, without a filter there: whoever reaches them passes; name them with `--interface` to guard them"
            )
        });
        warnings.collect()
    }

    /// Whether whatever comes in over `interface` has passed a filter: its own, or that of what lies under it.
    fn covered(&self, interface: &Interface, guarded: &BTreeSet<u32>) -> bool {
        if guarded.contains(&interface.ifindex) {
            return true;
        }
        match &interface.kind {
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan) => {
                // A device may be on top of one in another network namespace, whose number means another one here.
                let lower = interface.lower.and_then(|ifindex| self.interface(ifindex));
                lower.is_some_and(|lower| {
                    lower.ifindex != interface.ifindex && self.covered(lower, guarded)
                })
            }
            Some(InfoKind::Bridge | InfoKind::Bond | InfoKind::Team) => {
                let mut ports = self
                    .interfaces
                    .iter()
                    .filter(|port| port.master == Some(interface.ifindex))
                    .peekable();
                ports.peek().is_some() && ports.all(|port| guarded.contains(&port.ifindex))
            }
            _ => false,
        }
    }

    fn hidden_clients(&self) -> Option<String> {
        /// Fewer say nothing.
        const CONNECTIONS: usize = 10;
        let own = |ip: IpAddr| ip.is_loopback() || self.addresses.iter().any(|(_, own)| *own == ip);
        let remotes = self
            .connections
            .iter()
            .map(|connection| connection.remote.ip());
        let remotes: Vec<IpAddr> = remotes.filter(|ip| !own(*ip)).collect();
        let sources: BTreeSet<IpAddr> = remotes.iter().copied().collect();
        (remotes.len() >= CONNECTIONS && sources.len() <= 2).then(|| {
            format!(
                "all {} connections come from {}: is that a load balancer? the filter sees its address, and not its clients'; authorize them there",
                remotes.len(),
                join(sources)
            )
        })
    }

    fn ephemeral_ports(&self, ports: &BTreeSet<u16>) -> Option<String> {
        let range = self.ephemeral.as_ref()?;
        let reserved = |port: &u16| self.reserved.iter().any(|range| range.contains(port));
        let mut taken = ports
            .iter()
            .filter(|port| range.contains(port) && !reserved(port))
            .peekable();
        taken.peek()?;
        let taken = join(taken);
        Some(format!(
            "the node's own connections may start from port {taken} (`net.ipv4.ip_local_port_range`), and the answers would be dropped; `sysctl -w net.ipv4.ip_local_reserved_ports={}` keeps them off",
            taken.replace(' ', "")
        ))
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.ifindex == ifindex)
    }
}

/// Whether devices of this kind take packets out of other packets.
fn is_tunnel(kind: &InfoKind) -> bool {
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

/// Port ranges as sysctl shows them: `32768 60999`, or `443,6443-6500`.
fn parse_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    if let Some((from, to)) = text.trim().split_once(char::is_whitespace) {
        return port(from)
            .zip(port(to))
            .map(|(from, to)| from..=to)
            .into_iter()
            .collect();
    }
    let ranges = text
        .split(',')
        .filter_map(|item| match item.split_once('-') {
            Some((from, to)) => Some(port(from)?..=port(to)?),
            None => port(item).map(|port| port..=port),
        });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use filter_common::LinkHeader;

    use super::*;
    use crate::link_type::LinkType;

    fn interface(name: &str, ifindex: u32) -> Interface {
        Interface {
            name: name.to_owned(),
            ifindex,
            xdp: None,
            up: true,
            link_type: LinkType::Filtered(LinkHeader::Ethernet),
            kind: None,
            lower: None,
            master: None,
        }
    }

    fn ports() -> BTreeSet<u16> {
        [443, 6443].into()
    }

    #[test]
    fn ports_come_as_sysctl_shows_them() {
        assert_eq!(parse_ranges("32768\t60999\n"), [32768..=60999]);
        assert_eq!(parse_ranges("443,6443-6500\n"), [443..=443, 6443..=6500]);
        assert_eq!(parse_ranges("\n"), []);
    }

    #[test]
    fn a_protected_port_is_no_ephemeral_port() {
        let facts = |reserved: &str| Facts {
            ephemeral: Some(1024..=65535),
            reserved: parse_ranges(reserved),
            ..Facts::default()
        };
        let warning = facts("").ephemeral_ports(&ports()).expect("6443 is one");
        assert!(warning.contains("from port 6443 "), "{warning}");
        assert_eq!(facts("6443").ephemeral_ports(&ports()), None);
    }

    #[test]
    fn what_lies_on_a_guarded_interface_is_guarded() {
        let on = |name, ifindex, kind, lower| Interface {
            kind: Some(kind),
            lower,
            ..interface(name, ifindex)
        };
        let port = |name, ifindex, master| Interface {
            master: Some(master),
            ..interface(name, ifindex)
        };
        let facts = Facts {
            interfaces: vec![
                interface("eth0", 2),
                interface("eth1", 3),
                on("eth0.7", 4, InfoKind::Vlan, Some(2)),
                on("eth1.7", 5, InfoKind::Vlan, Some(3)),
                on("br0", 6, InfoKind::Bridge, None),
                port("eth2", 7, 6),
                on("cni0", 8, InfoKind::Bridge, None),
                port("veth1", 9, 8),
                on("wg0", 10, InfoKind::Wireguard, None),
            ],
            // Ports of a bridge have none.
            addresses: (2..=10)
                .filter(|ifindex| ![7, 9].contains(ifindex))
                .map(|ifindex| (ifindex, IpAddr::from([10, 0, ifindex as u8, 1])))
                .collect(),
            listeners: vec![
                "[::]:6443".parse().expect("an address"),
                "10.0.3.1:443".parse().expect("an address"),
            ],
            ..Facts::default()
        };
        let guarded = [2, 7].into();
        assert_eq!(
            facts.unguarded_listeners(&guarded),
            [
                "port 443 listens on addresses of `eth1`, without a filter there: whoever reaches them passes; name them with `--interface` to guard them",
                "port 6443 listens on addresses of `cni0`, `eth1`, `eth1.7`, without a filter there: whoever reaches them passes; name them with `--interface` to guard them",
            ]
        );
        let tunnels = facts.tunnels(&guarded).expect("there is one");
        assert!(tunnels.contains("`wg0` (wireguard)"), "{tunnels}");
        assert_eq!(facts.tunnels(&[10].into()), None);
    }

    #[test]
    fn few_sources_of_many_connections_are_remarked() {
        let connections = |sources: u8| {
            let connection = |number: u8| Connection {
                remote: SocketAddr::from((
                    [198, 51, 100, number % sources],
                    40_000 + u16::from(number),
                )),
                local: SocketAddr::from(([192, 0, 2, 1], 6443)),
            };
            Facts {
                connections: (0..12).map(connection).collect(),
                ..Facts::default()
            }
        };
        assert!(connections(2).hidden_clients().is_some());
        assert_eq!(connections(3).hidden_clients(), None);
    }
}
