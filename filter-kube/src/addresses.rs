//! The nodes of the API as the files `@nodes` and `@pods`. Pure.
//!
//! An address that leaves the API stays in its file for a while: a Node that is deleted by mistake,
//! or that an older snapshot of etcd does not have, must not be cut, for its kubelet would then be
//! unable to come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

/// The most addresses of one node, and the most pod ranges: a Node's status is written by its
/// kubelet.
const MOST_OF_NODE: usize = 16;

/// What stands between the name of a node and the time since which the API is without it.
const GONE: &str = ", not in the API since ";

/// The ranges of a file, each with its node, and since when the API is without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(BTreeMap<IpNet, Place>);

/// Where a range is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Timestamp>,
}

impl Known {
    /// Takes over what the API has at `now`, and forgets what it has been without for
    /// `forget_after`. If the API has none, nothing is gone: all nodes are not deleted on purpose.
    pub fn update(
        &mut self,
        present: &BTreeMap<IpNet, String>,
        now: Timestamp,
        forget_after: Duration,
    ) {
        if present.is_empty() {
            return;
        }
        for (range, node) in present {
            let place = Place {
                node: node.clone(),
                gone: None,
            };
            self.0.insert(*range, place);
        }
        self.0.retain(|range, place| {
            if present.contains_key(range) {
                return true;
            }
            let gone = *place.gone.get_or_insert(now);
            let since = now.duration_since(gone);
            // A clock that went back shows a time in the future.
            since.unsigned_abs() < forget_after || since.is_negative()
        });
    }

    /// Whether it has no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an earlier agent wrote into the file with this `text`.
    pub fn of_text(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let (range, comment) = line.split_once(" # ")?;
            let (node, since) = match comment.split_once(GONE) {
                Some((node, since)) => (node, since.parse().ok()),
                None => (comment, None),
            };
            let place = Place {
                node: node.to_owned(),
                gone: since,
            };
            Some((range.parse().ok()?, place))
        });
        Self(lines.collect())
    }

    /// The text of the file.
    pub fn text(&self, what: &str) -> String {
        let mut text = format!("# {what}; apifence-kube writes this file\n");
        for (range, place) in &self.0 {
            let _ = write!(text, "{range} # {}", place.node);
            if let Some(gone) = place.gone {
                let _ = write!(text, "{GONE}{gone:.0}");
            }
            text.push('\n');
        }
        if self.0.is_empty() {
            text.push_str("empty\n");
        }
        text
    }
}

/// The addresses of the nodes, each with its node's name.
pub fn of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> BTreeMap<IpNet, String> {
    let mut found = BTreeMap::new();
    for node in nodes {
        let addresses = node.status.iter().flat_map(|status| &status.addresses);
        let addresses: BTreeSet<IpAddr> = addresses
            .flatten()
            .filter(|address| matches!(&*address.type_, "InternalIP" | "ExternalIP"))
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .map(|address| address.to_canonical())
            .filter(|address| is_usable(IpNet::from(*address)))
            .collect();
        for address in addresses.into_iter().take(MOST_OF_NODE) {
            found.insert(IpNet::from(address), node.name_any());
        }
    }
    found
}

/// The widest ranges that a file of the cluster may have where the node sets no other bound.
const WIDEST: (u8, u8) = (8, 16);

/// Whether `apifence run` takes the range: a wrong one would spoil the file for all nodes.
fn is_usable(range: IpNet) -> bool {
    let first = range.network();
    let is_mapped = || first.to_canonical() != first;
    let is_wide = match range {
        IpNet::V4(range) => range.prefix_len() < WIDEST.0 || range.network().octets()[0] == 0,
        IpNet::V6(range) => range.prefix_len() < WIDEST.1,
    };
    let is_no_source = first.is_unspecified() || first.is_loopback() || first.is_multicast();
    !(is_wide || is_no_source || is_mapped())
}

/// The pod ranges of the nodes, each with its node's name.
pub fn of_pods<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> BTreeMap<IpNet, String> {
    let mut found = BTreeMap::new();
    for node in nodes {
        let ranges = node.spec.iter().flat_map(|spec| {
            let many = spec.pod_cidrs.iter().flatten();
            many.chain(&spec.pod_cidr)
        });
        let ranges: BTreeSet<IpNet> = ranges
            .filter_map(|range| range.parse::<IpNet>().ok())
            .map(|range| range.trunc())
            .filter(|range| is_usable(*range))
            .collect();
        for range in ranges.into_iter().take(MOST_OF_NODE) {
            found.insert(range, node.name_any());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn node(name: &str, addresses: &[(&str, &str)], pods: &[&str]) -> Node {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let object = json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": pods, "podCIDR": pods.first()},
            "status": {"addresses": addresses},
        });
        serde_json::from_value(object).expect("a node")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn addresses_and_pod_ranges_are_read() {
        let addresses = [
            ("Hostname", "cp1"),
            ("InternalIP", "10.0.0.5"),
            ("InternalIP", "fd00::5"),
            ("ExternalIP", "203.0.113.5"),
            ("InternalIP", "0.0.0.0"),
            ("InternalIP", "127.0.0.1"),
            ("InternalIP", "ff02::1"),
            ("InternalIP", "0.1.2.3"),
            ("InternalIP", "::ffff:10.0.0.6"),
            ("InternalIP", "::ffff:127.0.0.1"),
            ("InternalIP", "10.0.0.0/8"),
            ("InternalIP", ""),
        ];
        let nodes = [
            node("cp1", &addresses, &["10.244.0.0/24", "fd01::/64"]),
            node(
                "worker",
                &[],
                &["nonsense", "0.0.0.0/0", "::/0", "127.0.0.0/8"],
            ),
            node(
                "odd",
                &[],
                &["10.0.0.0/7", "::ffff:10.0.0.0/104", "224.0.0.0/8"],
            ),
        ];
        let text = |found: &BTreeMap<IpNet, String>| {
            let lines: Vec<_> = found.keys().map(ToString::to_string).collect();
            lines.join(" ")
        };
        assert_eq!(
            text(&of_nodes(&nodes)),
            "10.0.0.5/32 10.0.0.6/32 203.0.113.5/32 fd00::5/128"
        );
        assert_eq!(text(&of_pods(&nodes)), "10.244.0.0/24 fd01::/64");
    }

    #[test]
    fn one_node_cannot_fill_the_file() {
        let addresses: Vec<_> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
        let addresses: Vec<_> = addresses.iter().map(|one| ("InternalIP", &**one)).collect();
        assert_eq!(
            of_nodes(&[node("bad", &addresses, &[])]).len(),
            MOST_OF_NODE
        );
    }

    #[test]
    fn an_address_that_left_the_api_stays_for_a_day() {
        let (a, b) = (
            node("a", &[("InternalIP", "10.0.0.1")], &[]),
            node("b", &[("InternalIP", "10.0.0.2")], &[]),
        );
        let mut known = Known::default();
        known.update(&of_nodes([&a, &b]), at(0), DAY);
        known.update(&of_nodes([&a]), at(10), DAY);
        let text = known.text("Nodes");
        assert!(text.contains("10.0.0.1/32 # a\n"), "{text}");
        assert!(
            text.contains("10.0.0.2/32 # b, not in the API since 1970-01-01T00:00:10Z\n"),
            "{text}"
        );
        // It comes back, and leaves again.
        known.update(&of_nodes([&a, &b]), at(20), DAY);
        known.update(&of_nodes([&a]), at(30), DAY);
        known.update(&of_nodes([&a]), at(86_429), DAY);
        assert!(known.text("Nodes").contains("10.0.0.2"));
        // A clock that goes back forgets nothing.
        known.update(&of_nodes([&a]), at(-86_400 * 3), DAY);
        assert!(known.text("Nodes").contains("10.0.0.2"));
        known.update(&of_nodes([&a]), at(86_430), DAY);
        assert!(!known.text("Nodes").contains("10.0.0.2"));
        // All nodes are not deleted on purpose.
        known.update(&of_nodes([]), at(100), DAY);
        known.update(&of_nodes([]), at(86_400 * 9), DAY);
        assert!(known.text("Nodes").contains("10.0.0.1/32 # a\n"));
        assert_eq!(Known::default().text("Pods").lines().last(), Some("empty"));
    }

    #[test]
    fn what_is_known_survives_a_restart() {
        let mut known = Known::default();
        known.update(
            &of_nodes([&node("a", &[("InternalIP", "10.0.0.1")], &[])]),
            at(0),
            DAY,
        );
        let text = serde_json::to_string(&known).expect("JSON");
        let read: Known = serde_json::from_str(&text).expect("the same");
        assert_eq!(read, known);
        // What was remembered is lost: the file says the same.
        let two = [
            &node("a", &[("InternalIP", "10.0.0.1")], &[]),
            &node("b", &[("InternalIP", "fd00::2")], &[]),
        ];
        known.update(&of_nodes(two), at(1), DAY);
        known.update(&of_nodes([two[0]]), at(2), DAY);
        assert_eq!(Known::of_text(&known.text("Nodes")), known);
        assert_eq!(Known::of_text("# a\nempty\n"), Known::default());
    }
}
