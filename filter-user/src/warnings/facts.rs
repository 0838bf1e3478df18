//! The facts of a node, and the warnings that follow from them.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;

use super::Warning;
use crate::{
    cluster::{is_local, is_overlay, is_tunnel, numbered},
    codes::Code,
    config::join,
    kernel::{
        nat::rewriters,
        net::{
            interface::{Interface, XdpAttachMode},
            link_type::LinkType,
            rtnetlink::{self, is_link_local},
            sock_diag::{Connection, established, listening},
        },
    },
};

/// The facts of the node and of its filter.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The protected ports.
    ports: BTreeSet<u16>,
    /// The guarded destinations; empty for any.
    destinations: Vec<IpNet>,
    /// The programs that rewrite destinations; not read if the filter guards every destination.
    rewriters: Vec<String>,
    interfaces: Vec<Interface>,
    addresses: Vec<(u32, IpAddr)>,
    listeners: Vec<SocketAddr>,
    connections: Vec<Connection>,
    ephemeral: Option<RangeInclusive<u16>>,
    reserved: Vec<RangeInclusive<u16>>,
}

impl Facts {
    /// Reads the facts from the kernel, for a filter that protects `ports` at `destinations` (empty
    /// for any). A fact that the kernel does not give causes no warning.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub fn gather(ports: &BTreeSet<u16>, destinations: &[IpNet]) -> Result<Self> {
        // This path is of the calling thread's network namespace.
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
            interfaces: rtnetlink::interfaces()?,
            addresses: rtnetlink::addresses()?,
            listeners: listening(ports).unwrap_or_default(),
            connections: established(ports).unwrap_or_default(),
            ephemeral: parse_ranges(&sysctl("ip_local_port_range"))
                .first()
                .cloned(),
            reserved: parse_ranges(&sysctl("ip_local_reserved_ports")),
        })
    }

    /// The warnings for a filter on the interfaces in `guarded`.
    pub fn warnings(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        let mut warnings = self.unguarded_listeners(guarded);
        warnings.extend(self.tunnels(guarded));
        warnings.extend(self.outside_destinations(guarded));
        warnings.extend(self.rewritten_destinations());
        warnings.extend(self.generic(guarded));
        warnings.extend(self.hidden_clients());
        warnings.extend(self.ephemeral_ports());
        warnings.extend(self.overlays(guarded));
        warnings
    }

    fn generic(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        let generic = self.interfaces.iter().filter(|interface| {
            guarded.contains(&interface.ifindex)
                && interface
                    .xdp
                    .is_some_and(|xdp| xdp.place == XdpAttachMode::Generic)
        });
        generic
            .map(|interface| {
                let name = &interface.name;
                Warning::new(
                    Code::GenericXdp,
                    format!(
                        "`{name}` uses generic XDP: drops cost more CPU time than in the driver"
                    ),
                    "`apifence explain W11` lists ways to get native XDP",
                )
                .on(name)
            })
            .collect()
    }

    /// Tunnels that are up, have no filter, and belong to no known cluster network.
    fn tunnels(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        let open = self.open_tunnels(guarded);
        open.filter(|interface| !is_overlay(interface))
            .map(|interface| {
                let name = &interface.name;
                let hint = match interface.link_type {
                    LinkType::Filtered(_) => guard_hint(name),
                    LinkType::Refused(..) => {
                        "this device cannot have a filter: restrict its peers".to_owned()
                    }
                };
                Warning::new(
                    Code::Tunnel,
                    format!(
                        "tunnel `{name}` ({}) has no filter: API traffic inside it is not filtered",
                        kind(interface)
                    ),
                    hint,
                )
                .on(name)
            })
            .collect()
    }

    /// One warning for all overlays of the cluster's network.
    fn overlays(&self, guarded: &BTreeSet<u32>) -> Option<Warning> {
        let overlays: Vec<&Interface> = self
            .open_tunnels(guarded)
            .filter(|interface| is_overlay(interface))
            .collect();
        let names = overlays
            .iter()
            .map(|found| format!("`{}` ({})", found.name, kind(found)));
        let verb = match overlays.len() {
            0 => return None,
            1 => "carries",
            _ => "carry",
        };
        let warning = Warning::new(
            Code::ClusterOverlay,
            format!(
                "{} {verb} the cluster's pod traffic; API traffic in it is not filtered",
                join(names)
            ),
            "allow only cluster nodes to reach the overlay's port: `apifence explain W15`",
        )
        .about(overlays.iter().map(|found| &found.name));
        Some(match &overlays[..] {
            [one] => warning.on(&one.name),
            _ => warning,
        })
    }

    fn open_tunnels(&self, guarded: &BTreeSet<u32>) -> impl Iterator<Item = &Interface> {
        let is_open = |interface: &&Interface| {
            interface.up
                && !guarded.contains(&interface.ifindex)
                && interface.kind.as_ref().is_some_and(is_tunnel)
                && !self.is_guest(interface)
        };
        self.interfaces.iter().filter(is_open)
    }

    /// Interfaces without a filter that reach a listener on a protected port.
    fn unguarded_listeners(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        let mut found: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
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
                if reached && !tunnel && !self.is_covered(interface, guarded) {
                    found
                        .entry(&interface.name)
                        .or_default()
                        .insert(listener.port());
                }
            }
        }
        let warnings = found.into_iter().map(|(name, ports)| {
            let verb = match ports.len() {
                1 => "is",
                _ => "are",
            };
            Warning::new(
                Code::UnguardedListener,
                format!(
                    "TCP {} {verb} reachable through `{name}`, which has no filter",
                    join(ports)
                ),
                guard_hint(name),
            )
            .on(name)
        });
        warnings.collect()
    }

    /// Listeners that are reachable at an address of this node outside the destinations.
    fn outside_destinations(&self, guarded: &BTreeSet<u32>) -> Vec<Warning> {
        /// Further addresses are only counted.
        const MAX_NAMED: usize = 5;
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
                // A link-local address is reachable over its own interface only.
                let met = !is_link_local(*address) || guarded.contains(ifindex);
                if reaches(listener, *address) && met && !named {
                    found.entry(listener.port()).or_default().insert(*address);
                }
            }
        }
        let warnings = found.into_iter().map(|(port, addresses)| {
            let more = match addresses.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let objects: Vec<SocketAddr> = addresses
                .iter()
                .map(|address| SocketAddr::new(*address, port))
                .collect();
            Warning::new(
                Code::OutsideDestinations,
                format!(
                    "TCP {port} is open to every source on {}{more}, outside `destinations`",
                    join(addresses.into_iter().take(MAX_NAMED))
                ),
                "add these addresses to `destinations`, or remove that setting to guard every address",
            )
            .about(objects)
        });
        warnings.collect()
    }

    fn rewritten_destinations(&self) -> Option<Warning> {
        (!self.rewriters.is_empty()).then(|| {
            Warning::new(
                Code::RewrittenDestination,
                format!(
                    "this node rewrites destinations after the filter ({})",
                    join(&self.rewriters)
                ),
                "`destinations` needs every address that leads to a protected port, such as a ClusterIP",
            )
            .about(&self.rewriters)
        })
    }

    /// Whether all traffic over `interface` is local, or passed a filter there or on a lower
    /// device.
    pub(crate) fn is_covered(&self, interface: &Interface, guarded: &BTreeSet<u32>) -> bool {
        if guarded.contains(&interface.ifindex) || is_local(interface) {
            return true;
        }
        match &interface.kind {
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan) => {
                // In another network namespace the lower device's ifindex means another device
                // here.
                let lower = interface.lower.and_then(|ifindex| self.interface(ifindex));
                lower.is_some_and(|lower| {
                    lower.ifindex != interface.ifindex && self.is_covered(lower, guarded)
                })
            }
            // An XDP program on a VRF sees no packets; its ports have the filters.
            Some(kind @ (InfoKind::Bridge | InfoKind::Bond | InfoKind::Team | InfoKind::Vrf)) => {
                let mut ports = self
                    .interfaces
                    .iter()
                    .filter(|port| port.master == Some(interface.ifindex))
                    .peekable();
                // A bridge without ports, like that of an idle container engine, receives nothing.
                (*kind == InfoKind::Bridge || ports.peek().is_some())
                    && ports.all(|port| {
                        guarded.contains(&port.ifindex) || is_local(port) || self.is_guest(port)
                    })
            }
            _ => false,
        }
    }

    /// Whether `interface` is the host's end of a virtual machine's card on a bridge of libvirt.
    fn is_guest(&self, interface: &Interface) -> bool {
        let master = interface.master.and_then(|ifindex| self.interface(ifindex));
        interface.kind == Some(InfoKind::Tun)
            && numbered(&interface.name, "vnet")
            && master.is_some_and(|master| numbered(&master.name, "virbr"))
    }

    fn hidden_clients(&self) -> Option<Warning> {
        /// Fewer connections prove nothing.
        const CONNECTIONS: usize = 10;
        let own = |ip: IpAddr| ip.is_loopback() || self.addresses.iter().any(|(_, own)| *own == ip);
        let remotes = self
            .connections
            .iter()
            .map(|connection| connection.remote.ip());
        let remotes: Vec<IpAddr> = remotes.filter(|ip| !own(*ip)).collect();
        let sources: BTreeSet<IpAddr> = remotes.iter().copied().collect();
        (remotes.len() >= CONNECTIONS && sources.len() <= 2).then(|| {
            Warning::new(
                Code::HiddenClients,
                format!(
                    "all {} connections come from {}, perhaps a load balancer",
                    remotes.len(),
                    join(&sources)
                ),
                "behind a load balancer the filter cannot tell clients apart: restrict clients at the balancer",
            )
            .about(sources)
        })
    }

    fn ephemeral_ports(&self) -> Option<Warning> {
        let range = self.ephemeral.as_ref()?;
        let reserved = |port: &u16| self.reserved.iter().any(|range| range.contains(port));
        let taken: Vec<u16> = self
            .ports
            .iter()
            .copied()
            .filter(|port| range.contains(port) && !reserved(port))
            .collect();
        if taken.is_empty() {
            return None;
        }
        let ports = join(&taken);
        Some(
            Warning::new(
                Code::EphemeralPort,
                format!(
                    "this node may use TCP {ports} as a source port; replies to it would be dropped"
                ),
                format!(
                    "reserve the port: `sysctl -w net.ipv4.ip_local_reserved_ports={}` (add the ports that are reserved already)",
                    ports.replace(' ', "")
                ),
            )
            .about(taken),
        )
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.ifindex == ifindex)
    }
}

/// The hint for an unguarded interface.
fn guard_hint(name: &str) -> String {
    format!("guard it: `apifence attach --interface {name}`, or add it to `interfaces`")
}

/// The kind of a device, in a word.
fn kind(interface: &Interface) -> String {
    let kind = interface.kind.as_ref();
    kind.map(ToString::to_string).unwrap_or_default()
}

/// Whether a packet to `address` of this node reaches `listener`.
fn reaches(listener: &SocketAddr, address: IpAddr) -> bool {
    match listener.ip() {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        ip => ip == address,
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
