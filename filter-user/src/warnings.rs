//! What an operator should know about this node, though nothing is broken: how traffic may come past the filter, or the filter may
//! hit what it should not.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;

use crate::{
    clients::{Connection, established, listening},
    config::join,
    link_type::LinkType,
    nat::rewriters,
    net::{Interface, Net, XdpPlace, is_link_local},
};

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// What kind it is, in a word that stays the same.
    pub code: &'static str,
    /// A sentence.
    pub text: String,
}

impl Warning {
    /// One of the kind `code`.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warning: {} [{}]", self.text, self.code)
    }
}

/// What is known of the node, and of the filter on it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The protected ports.
    ports: BTreeSet<u16>,
    /// The guarded destinations; empty for any.
    destinations: Vec<IpNet>,
    /// What rewrites destinations here; not asked where any is guarded.
    rewriters: Vec<String>,
    interfaces: Vec<Interface>,
    addresses: Vec<(u32, IpAddr)>,
    listeners: Vec<SocketAddr>,
    connections: Vec<Connection>,
    ephemeral: Option<RangeInclusive<u16>>,
    reserved: Vec<RangeInclusive<u16>>,
}

impl Facts {
    /// Asks the kernel, for a filter that protects `ports` at `destinations`, which are empty for any. What it does not tell is not
    /// warned of.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub async fn gather(net: &Net, ports: &BTreeSet<u16>, destinations: &[IpNet]) -> Result<Self> {
        // Of the network namespace that the calling thread is in.
        let sysctl = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
            text.unwrap_or_default()
        };
        Ok(Self {
            ports: ports.clone(),
            destinations: destinations.to_vec(),
            rewriters: if destinations.is_empty() {
                Vec::new()
            } else {
                rewriters()
            },
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

    /// The warnings, for a filter that is on the interfaces that `guarded` names.
    pub fn warnings(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |code, texts: Vec<String>| {
            warnings.extend(texts.into_iter().map(|text| Warning::new(code, text)));
        };
        warn("generic-xdp", self.generic(guarded));
        warn("tunnel", self.tunnels(guarded).into_iter().collect());
        warn("unguarded-listener", self.unguarded_listeners(guarded));
        warn("outside-destinations", self.outside_destinations(guarded));
        let rewritten = self.rewritten_destinations();
        warn("rewritten-destination", rewritten.into_iter().collect());
        warn(
            "hidden-clients",
            self.hidden_clients().into_iter().collect(),
        );
        warn(
            "ephemeral-port",
            self.ephemeral_ports().into_iter().collect(),
        );
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
                    "`{}` runs generic XDP, which is slower than the driver's: it sees packets after the kernel made socket buffers of them",
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
                let (name, kind) = (&interface.name, kind.unwrap_or_default());
                match interface.link_type {
                    LinkType::Filtered(_) => format!("`{name}` ({kind})"),
                    LinkType::Refused(..) => format!("`{name}` ({kind}, which cannot be filtered)"),
                }
            })
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "tunnels without a filter: {}: API traffic inside them passes; `--interface` guards them",
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
                let reached = reaches(listener, *address)
                    && (!listener.ip().is_unspecified() || !is_link_local(*address));
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
                "port {port} listens on addresses of {names}, without a filter there: everyone passes who reaches them; `--interface` guards them"
            )
        });
        warnings.collect()
    }

    /// Listeners that are reached at an address of this node which is not among the destinations.
    fn outside_destinations(&self, guarded: &BTreeSet<u32>) -> Vec<String> {
        /// More are counted.
        const NAMED: usize = 5;
        if self.destinations.is_empty() {
            return Vec::new();
        }
        let mut found: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
        for listener in &self.listeners {
            for (ifindex, address) in &self.addresses {
                let named = self
                    .destinations
                    .iter()
                    .any(|range| range.contains(address));
                // A link-local address is reached over its own interface, any other over each.
                let met = !is_link_local(*address) || guarded.contains(ifindex);
                if reaches(listener, *address) && met && !named {
                    found.entry(listener.port()).or_default().insert(*address);
                }
            }
        }
        let warnings = found.into_iter().map(|(port, addresses)| {
            let more = match addresses.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "port {port} listens on {}{more}, outside the destinations: everyone passes there; `--destination` guards them",
                join(addresses.into_iter().take(NAMED))
            )
        });
        warnings.collect()
    }

    fn rewritten_destinations(&self) -> Option<String> {
        (!self.rewriters.is_empty()).then(|| {
            format!(
                "destinations are rewritten here ({}): an address that leads to a protected port, as a ClusterIP does, is guarded only if it is among the destinations",
                join(&self.rewriters)
            )
        })
    }

    /// Whether whatever comes in over `interface` has passed a filter, its own or that of what lies under it, or is of this node alone.
    fn covered(&self, interface: &Interface, guarded: &BTreeSet<u32>) -> bool {
        if guarded.contains(&interface.ifindex) || is_local(interface) {
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
            // An XDP program on a VRF sees nothing; its ports have the filters.
            Some(kind @ (InfoKind::Bridge | InfoKind::Bond | InfoKind::Team | InfoKind::Vrf)) => {
                let mut ports = self
                    .interfaces
                    .iter()
                    .filter(|port| port.master == Some(interface.ifindex))
                    .peekable();
                // Nothing comes in over a bridge without ports, as that of a container engine at rest.
                (*kind == InfoKind::Bridge || ports.peek().is_some())
                    && ports.all(|port| guarded.contains(&port.ifindex) || is_local(port))
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

    fn ephemeral_ports(&self) -> Option<String> {
        let range = self.ephemeral.as_ref()?;
        let reserved = |port: &u16| self.reserved.iter().any(|range| range.contains(port));
        let mut taken = self
            .ports
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

/// Whether a packet to `address` of this node meets `listener`.
fn reaches(listener: &SocketAddr, address: IpAddr) -> bool {
    match listener.ip() {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        ip => ip == address,
    }
}

/// Whether what comes in over `interface` is from this node: from itself, or from one of its pods or containers, as far as the names
/// tell that network plugins and container engines give to the host's ends of their pairs. The card of a node that is a container
/// itself is such a pair, too, and has another name.
fn is_local(interface: &Interface) -> bool {
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
