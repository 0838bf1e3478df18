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

    /// The text of the file.
    pub fn text(&self, what: &str) -> String {
        let mut text = format!("# {what}; apifence-kube writes this file\n");
        for (range, place) in &self.0 {
            let _ = write!(text, "{range} # {}", place.node);
            if let Some(gone) = place.gone {
                let _ = write!(text, ", not in the API since {gone:.0}");
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
            .filter_map(|address| address.address.parse().ok())
            .filter(is_usable)
            .collect();
        for address in addresses.into_iter().take(MOST_OF_NODE) {
            found.insert(IpNet::from(address), node.name_any());
        }
    }
    found
}

/// Whether packets can come from the address: a wrong one must not spoil the file.
fn is_usable(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
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
            .collect();
        for range in ranges.into_iter().take(MOST_OF_NODE) {
            found.insert(range, node.name_any());
        }
    }
    found
}
