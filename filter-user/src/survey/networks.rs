//! The networks of the cluster, as a proposal for `cluster_cidrs`.

use ipnet::IpNet;

use super::{
    ClientKind, Survey,
    blocks::{is_of_pods, is_special},
};
use crate::{cluster::Cloud, config::Preset};

/// A network of the cluster, or a name for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// As `cluster_cidrs` takes it.
    pub(crate) value: String,
    /// What it is, and the source of the fact.
    pub(crate) why: String,
    /// Whether it is to be let in without a question.
    pub(crate) is_proposed: bool,
}

impl Survey {
    /// The networks of nodes, pods and probes, proposed ones first.
    pub(crate) fn networks(&self) -> Vec<Network> {
        let mut found: Vec<Network> = Vec::new();
        let mut add = |value: String, why: String, is_proposed: bool| {
            found.push(Network {
                value,
                why,
                is_proposed,
            });
        };
        for preset in &self.files {
            let why = format!("an agent keeps `{preset}` current");
            add(preset.to_string(), why, true);
        }
        for pods in &self.pods {
            let why = format!("pods: {}", pods.from);
            match is_of_pods(&pods.range) {
                true => add(pods.range.to_string(), why, true),
                false => add(pods.range.to_string(), format!("too wide for {why}"), false),
            }
        }
        for interface in self.interfaces.iter().filter(|one| !one.is_tunnel) {
            let many = interface.networks.iter();
            for network in many.filter(|own| own.prefix_len() < own.max_prefix_len()) {
                let (network, name) = (network.trunc(), &interface.name);
                if is_special(&network) {
                    add(
                        network.to_string(),
                        format!("other nodes: the network of `{name}`"),
                        true,
                    );
                } else {
                    let why = format!(
                        "the network of `{name}` has public addresses, which other machines may have, too"
                    );
                    add(network.to_string(), why, false);
                }
            }
        }
        for (peer, role) in &self.peers {
            add(
                IpNet::from(*peer).to_string(),
                format!("{role} of this node"),
                true,
            );
        }
        for client in &self.clients {
            if matches!(client.kind, ClientKind::Node | ClientKind::Neighbour) {
                let why = format!("connected now: {}", client.why);
                add(IpNet::from(client.address).to_string(), why, true);
            }
        }
        self.add_probes(&mut add);
        distinct(&found)
    }

    /// Health probes of balancers that keep their clients' addresses.
    fn add_probes(&self, add: &mut impl FnMut(String, String, bool)) {
        let seen = |name: &str| {
            let mut clients = self.clients.iter();
            clients.any(|client| client.kind == ClientKind::Probe && client.why.contains(name))
        };
        let cloud = self.cloud.as_ref();
        for (preset, own, what) in [
            (Preset::GcpHealthChecks, Cloud::Google, "Google Cloud"),
            (Preset::AzureProbe, Cloud::Azure, "Azure"),
        ] {
            let name = preset.name();
            let by_file = cloud.filter(|(cloud, _)| *cloud == own);
            let why = match by_file {
                Some((_, file)) => {
                    format!("health probes of load balancers: this node runs on {what} ({file})")
                }
                None if seen(name) => {
                    format!("health probes of {what} load balancers: connected now")
                }
                None => continue,
            };
            add(name.to_owned(), why, true);
        }
        if let Some((Cloud::Amazon, file)) = cloud {
            let why = format!(
                "the subnets of your Network Load Balancer, if it probes this node: this node runs on AWS ({file})"
            );
            add("YOUR-SUBNET".to_owned(), why, false);
        }
    }
}

/// Without those inside another one that is proposed too.
fn distinct(all: &[Network]) -> Vec<Network> {
    let range = |one: &Network| one.value.parse::<IpNet>().ok();
    let is_inside = |place: usize, one: &Network| {
        let Some(own) = range(one) else { return false };
        all.iter().enumerate().any(|(other_place, other)| {
            let wider = range(other).is_some_and(|range| range.contains(&own));
            other.is_proposed
                && wider
                && other_place != place
                && (range(other) != Some(own) || other_place < place)
        })
    };
    let (mut proposed, mut others): (Vec<Network>, Vec<Network>) = all
        .iter()
        .enumerate()
        .filter(|(place, one)| !is_inside(*place, one))
        .map(|(_, one)| one.clone())
        .partition(|one| one.is_proposed);
    proposed.append(&mut others);
    proposed
}
