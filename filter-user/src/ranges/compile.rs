//! From a list and the implicit sources to the prefixes of a generation.

use std::collections::BTreeMap;

use filter_common::map::Origin;
use ipnet::IpNet;

use super::Entry;

/// The prefixes of one generation, each with the origins it has, as bits of [`Origin`].
pub type Prefixes = BTreeMap<IpNet, u8>;

/// The ranges that are authorized without being listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The node's own addresses.
    pub node: Vec<IpNet>,
    /// The cluster's egress addresses.
    pub outbound: Vec<IpNet>,
    /// The cluster's CIDRs.
    pub cluster: Vec<IpNet>,
}

/// The prefixes that authorize a source.
pub fn compile(entries: &[Entry], implicit: &Sources) -> Prefixes {
    let listed = entries.iter().map(|entry| (entry.range, Origin::List));
    let node = implicit.node.iter().map(|range| (*range, Origin::Node));
    let outbound = implicit
        .outbound
        .iter()
        .map(|range| (*range, Origin::Outbound));
    let cluster = implicit
        .cluster
        .iter()
        .map(|range| (*range, Origin::Cluster));
    let mut prefixes = Prefixes::new();
    for (range, origin) in listed.chain(node).chain(outbound).chain(cluster) {
        *prefixes.entry(range).or_default() |= origin as u8;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_two_origins_is_one_prefix() {
        let range: IpNet = "198.51.100.0/24".parse().expect("a range");
        let entries = [Entry {
            range,
            comment: None,
        }];
        let implicit = Sources {
            cluster: vec![range],
            ..Sources::default()
        };
        assert_eq!(
            compile(&entries, &implicit),
            Prefixes::from([(range, Origin::List as u8 | Origin::Cluster as u8)])
        );
    }
}
