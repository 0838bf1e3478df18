//! Groups observed addresses into ranges that an auditor would accept.
//!
//! A range is proposed only for sources seen in it:
//! - IPv4: the sources within one /24 become one range if at least a quarter of its addresses were
//!   seen. If not, the same rule applies to each half, down to single addresses.
//! - IPv6: two or more sources within one /64 become that /64, since a host changes its address
//!   within one (RFC 8981). A single source stays as it is.
//!
//! With an explicit length, two or more sources within a prefix of that length become one range.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};

/// How sources are grouped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grouping {
    /// Explicit length of an IPv4 range.
    pub v4: Option<u8>,
    /// Explicit length of an IPv6 range.
    pub v6: Option<u8>,
}

/// Length of the widest IPv4 range that is proposed without an explicit length.
const WIDEST_V4: u8 = 24;
/// Length of the widest IPv6 range that is proposed without an explicit length: the prefix of one
/// link (RFC 4291 section 2.5.4).
const WIDEST_V6: u8 = 64;
/// At least one address in so many must have been seen.
const MIN_SOURCES: u64 = 4;

/// The proposed ranges for `sources`, sorted, each with its sources. Every source is in exactly
/// one.
pub fn group(sources: &[IpAddr], by: Grouping) -> Vec<(IpNet, Vec<IpAddr>)> {
    let mut widest = BTreeMap::<IpNet, Vec<IpAddr>>::new();
    for source in sources {
        let len = match source {
            IpAddr::V4(_) => by.v4.unwrap_or(WIDEST_V4),
            IpAddr::V6(_) => by.v6.unwrap_or(WIDEST_V6),
        };
        widest
            .entry(around(*source, len))
            .or_default()
            .push(*source);
    }
    let mut groups = Vec::new();
    for (range, mut sources) in widest {
        sources.sort_unstable();
        sources.dedup();
        match range {
            IpNet::V4(range) if by.v4.is_none() => divide(range, sources, &mut groups),
            _ if sources.len() > 1 => groups.push((range, sources)),
            _ => groups.push((IpNet::from(sources[0]), sources)),
        }
    }
    groups
}

/// The prefix of `len` bits around `address`.
fn around(address: IpAddr, len: u8) -> IpNet {
    IpNet::new(address, len)
        .expect("the command line checks the length")
        .trunc()
}

/// Proposes `range` if enough of it was seen, and otherwise parts of it.
fn divide(range: Ipv4Net, sources: Vec<IpAddr>, groups: &mut Vec<(IpNet, Vec<IpAddr>)>) {
    let size = 1_u64 << (32 - range.prefix_len());
    match sources.len() {
        0 => return,
        1 => return groups.push((IpNet::from(sources[0]), sources)),
        seen if seen as u64 * MIN_SOURCES < size => {}
        _ if halves(range).all(|half| sources.iter().any(|source| holds(half, source))) => {
            return groups.push((range.into(), sources));
        }
        _ => {}
    }
    for half in halves(range) {
        let inside = sources.iter().copied().filter(|source| holds(half, source));
        divide(half, inside.collect(), groups);
    }
}

fn halves(range: Ipv4Net) -> impl Iterator<Item = Ipv4Net> {
    range.subnets(range.prefix_len() + 1).into_iter().flatten()
}

fn holds(range: Ipv4Net, source: &IpAddr) -> bool {
    matches!(source, IpAddr::V4(source) if range.contains(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(by: Grouping, sources: &[&str]) -> Vec<String> {
        let sources: Vec<IpAddr> = sources
            .iter()
            .map(|source| source.parse().expect("an address"))
            .collect();
        let groups = group(&sources, by);
        let inside: usize = groups.iter().map(|(_, inside)| inside.len()).sum();
        assert_eq!(inside, sources.len(), "every source is in one range");
        for (range, inside) in &groups {
            assert!(inside.iter().all(|source| range.contains(source)));
        }
        groups.iter().map(|(range, _)| range.to_string()).collect()
    }

    #[test]
    fn sources_far_from_each_other_stay_alone() {
        let none = Grouping::default();
        assert_eq!(
            grouped(none, &["203.0.113.254", "203.0.113.1", "198.51.100.7"]),
            ["198.51.100.7/32", "203.0.113.1/32", "203.0.113.254/32"]
        );
        assert_eq!(
            grouped(none, &["2001:db8::1", "2001:db8:0:1::1"]),
            ["2001:db8::1/128", "2001:db8:0:1::1/128"]
        );
    }

    #[test]
    fn neighbours_become_the_smallest_range_with_enough_sources() {
        let none = Grouping::default();
        assert_eq!(
            grouped(none, &["203.0.113.8", "203.0.113.9"]),
            ["203.0.113.8/31"]
        );
        assert_eq!(
            grouped(none, &["203.0.113.8", "203.0.113.10"]),
            ["203.0.113.8/30"]
        );
        assert_eq!(
            grouped(none, &["203.0.113.8", "203.0.113.12"]),
            ["203.0.113.8/29"]
        );
        // Two of sixteen are too few.
        assert_eq!(
            grouped(none, &["203.0.113.0", "203.0.113.15"]),
            ["203.0.113.0/32", "203.0.113.15/32"]
        );
        // A quarter of a /24, and never more than that /24.
        let many: Vec<String> = (0..64).map(|at| format!("203.0.113.{}", at * 4)).collect();
        let next: Vec<String> = (0..64).map(|at| format!("203.0.112.{}", at * 4)).collect();
        let all: Vec<&str> = many.iter().chain(&next).map(String::as_str).collect();
        assert_eq!(grouped(none, &all), ["203.0.112.0/24", "203.0.113.0/24"]);
        assert_eq!(
            grouped(none, &["2001:db8::1", "2001:db8::ffff:1"]),
            ["2001:db8::/64"]
        );
    }

    #[test]
    fn a_length_given_is_kept_for_several_sources_alone() {
        let by = Grouping {
            v4: Some(16),
            v6: Some(48),
        };
        assert_eq!(
            grouped(
                by,
                &[
                    "10.1.0.1",
                    "10.1.255.1",
                    "10.2.0.1",
                    "2001:db8:1::1",
                    "2001:db8:1:1::1"
                ]
            ),
            ["10.1.0.0/16", "10.2.0.1/32", "2001:db8:1::/48"]
        );
    }
}
