//! The policies of the table, for both judges: as plain sets, and as words for the command line.

use std::{net::IpAddr, sync::LazyLock};

use filter_common::{Encapsulation, Mode, Policy, layout::PolicyHeader};
use ipnet::IpNet;

/// A policy by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rules {
    /// The usual policy: some ranges of both families, every destination guarded.
    #[default]
    Enforce,
    /// The same ranges, in monitor mode.
    Monitor,
    /// The list emptied on purpose.
    Off,
    /// The same ranges, only the node's first addresses guarded.
    Destinations,
    /// Other ports than the usual two.
    Ports,
    /// Every source of both families.
    Anyone,
    /// Every IPv4 source, no IPv6 source.
    AnyoneV4,
    /// Every IPv6 source, no IPv4 source.
    AnyoneV6,
    /// No source.
    Nobody,
    /// The usual ranges, on a node that decapsulates without a device, in every possible way.
    Decapsulating,
    /// The usual ranges, and ports with lists of their own.
    Guards,
    /// A slot that user space never wrote: all of it is zero.
    Unfilled,
}

/// The ranges of [`Rules::Enforce`].
pub(super) const RANGES: [&str; 9] = [
    "198.51.100.0/24",
    "100.64.0.0/10",
    "192.0.2.77/32",
    "192.0.2.128/31",
    "2001:db8:aa::/48",
    "2001:db8:d000::/36",
    "2001:db8:cc::1/128",
    "2001:db8:cc::8/127",
    "64:ff9b::/96",
];

/// The guards of [`Rules::Guards`]: ports, and the ranges of their lists. Some ranges are in both
/// lists, some inside ranges of the other, some in none of the usual ranges.
pub(super) const GUARDS: [(&[u16], &[&str]); 2] = [
    (
        &[2379, 2380],
        &[
            "198.51.100.0/25",
            "192.0.2.77/32",
            "10.1.0.0/16",
            "2001:db8:aa::/64",
            "2001:db8:ee::/48",
        ],
    ),
    (
        // In both, it goes by the guard.
        &[6443, 65_535],
        &[
            "198.51.0.0/16",
            "10.1.2.0/24",
            "2001:db8:aa::/49",
            "2001:db8:ee::1/128",
        ],
    ),
];

/// The destinations that [`Rules::Destinations`] guards.
const GUARDED: [&str; 2] = ["192.0.2.10/32", "2001:db8::10/128"];

impl Rules {
    /// All policies.
    pub const ALL: [Self; 12] = [
        Self::Enforce,
        Self::Monitor,
        Self::Off,
        Self::Destinations,
        Self::Ports,
        Self::Anyone,
        Self::AnyoneV4,
        Self::AnyoneV6,
        Self::Nobody,
        Self::Decapsulating,
        Self::Guards,
        Self::Unfilled,
    ];

    /// The authorized ranges as the user writes them; empty if the list switches enforcement off.
    pub fn ranges(self) -> Vec<&'static str> {
        match self {
            Self::Enforce
            | Self::Monitor
            | Self::Destinations
            | Self::Ports
            | Self::Decapsulating
            | Self::Guards => RANGES.to_vec(),
            Self::Off => Vec::new(),
            Self::Anyone => vec!["0.0.0.0/0", "::/0"],
            Self::AnyoneV4 => vec!["0.0.0.0/0"],
            Self::AnyoneV6 => vec!["::/0"],
            Self::Nobody | Self::Unfilled => vec!["0.0.0.0/32"],
        }
    }

    /// The protected ports.
    pub const fn ports(self) -> &'static [u16] {
        match self {
            Self::Ports => &[1, 8443, 65_535],
            _ => &[443, 6443],
        }
    }

    /// The lists besides that of [`ranges`](Self::ranges), each with the ports that go by it alone.
    pub const fn own_lists(self) -> &'static [(&'static [u16], &'static [&'static str])] {
        match self {
            Self::Guards => &GUARDS,
            _ => &[],
        }
    }

    /// The options of `apifence attach` for this policy, without the ranges.
    pub fn options(self) -> Vec<String> {
        let mut words = vec!["--no-node-addresses".to_owned()];
        match self {
            Self::Monitor => words.push("--mode=monitor".to_owned()),
            Self::Destinations => {
                words.extend(GUARDED.iter().map(|cidr| format!("--destination={cidr}")));
            }
            Self::Ports => words.extend(self.ports().iter().map(|port| format!("--port={port}"))),
            _ => {}
        }
        words
    }
}

impl Policy for Rules {
    fn mode(&self) -> Mode {
        match self {
            Self::Monitor => Mode::Monitor,
            Self::Off => Mode::Off,
            Self::Unfilled => empty_gate().mode(),
            _ => Mode::Enforce,
        }
    }

    fn protects(&self, port: u16) -> bool {
        match self {
            Self::Unfilled => empty_gate().protects(port),
            _ => {
                let mut guards = self.own_lists().iter();
                self.ports().contains(&port) || guards.any(|(ports, _)| ports.contains(&port))
            }
        }
    }

    fn decapsulates(&self, how: Encapsulation) -> bool {
        match self {
            Self::Unfilled => empty_gate().decapsulates(how),
            _ => *self == Self::Decapsulating,
        }
    }

    fn guards_every_destination(&self) -> bool {
        *self != Self::Destinations
    }

    fn guards(&self, destination: IpAddr) -> bool {
        holds(&GUARDED, destination)
    }

    fn authorizes(&self, source: IpAddr, port: Option<u16>) -> bool {
        let mut guards = self.own_lists().iter();
        match port {
            _ if *self == Self::Unfilled => false,
            None if guards.len() > 0 => guards.all(|(_, ranges)| holds(ranges, source)),
            port => {
                let own = guards.find(|(ports, _)| port.is_some_and(|port| ports.contains(&port)));
                let lists = self
                    .own_lists()
                    .iter()
                    .flat_map(|(_, ranges)| *ranges)
                    .copied();
                match own {
                    Some((_, ranges)) => holds(ranges, source),
                    None => holds(
                        &self.ranges().into_iter().chain(lists).collect::<Vec<_>>(),
                        source,
                    ),
                }
            }
        }
    }
}

/// A header of zeros.
fn empty_gate() -> &'static PolicyHeader {
    static EMPTY: LazyLock<Box<PolicyHeader>> = LazyLock::new(bytemuck::zeroed_box);
    &EMPTY
}

fn holds(ranges: &[&str], address: IpAddr) -> bool {
    ranges.iter().any(|range| {
        let range: IpNet = range.parse().expect("the table writes ranges right");
        // An IPv4 range never holds an IPv6 address, embedded or not: `ipnet` keeps the families
        // apart.
        range.contains(&address) && range.addr().is_ipv4() == address.is_ipv4()
    })
}
