//! Who is connected to the ports of the API server now, and what each client is likely to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;

use super::{
    blocks::{is_of_pods, is_public},
    interfaces::NetworkInterface,
};
use crate::{
    cluster::{Cidr, Nodes, logged_in},
    config::Preset,
    context::Context,
    kernel::net::{conntrack::tracked, sock_diag::TcpSocket},
    ranges::Lists,
};

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) connections: usize,
    pub(crate) kind: ClientKind,
    /// The evidence, in words.
    pub(crate) why: String,
}

impl Client {
    /// Whether neither its address nor its network says that it belongs here.
    pub(crate) const fn is_foreign(&self) -> bool {
        matches!(self.kind, ClientKind::Private | ClientKind::Public)
    }
}

/// What a client is likely to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientKind {
    /// A node of the cluster.
    Node,
    /// Another machine in a network of this node: likely a node.
    Neighbour,
    /// A pod.
    Pod,
    /// The health probe of a cloud's balancer.
    Probe,
    /// The machine of an administrator who is logged in here by SSH.
    Administrator,
    /// Elsewhere in private address space.
    Private,
    /// Elsewhere.
    Public,
}

/// The presets of health probes.
const PROBES: [Preset; 2] = [Preset::GcpHealthChecks, Preset::AzureProbe];

/// What is known of the node.
pub(super) struct Facts<'a> {
    pub(super) context: &'a Context,
    pub(super) own: &'a BTreeSet<IpAddr>,
    pub(super) pods: &'a [Cidr],
    pub(super) peers: &'a BTreeMap<IpAddr, &'static str>,
    pub(super) ssh: Option<IpAddr>,
    pub(super) ports: &'a BTreeSet<u16>,
    pub(super) interfaces: &'a [NetworkInterface],
    /// The files `@nodes` and `@pods`.
    pub(super) files: &'a Lists,
}

impl Facts<'_> {
    /// The clients of `ports` among `sockets`, and those whose connections this node forwards, in
    /// order.
    pub(super) fn clients(&self, sockets: &[TcpSocket]) -> Result<Vec<Client>> {
        let cluster = &self.context.config.settings().cluster;
        // The peers are those of `self`, which a client cannot make itself.
        let nodes = Nodes::gather(&[], self.ports, cluster, self.files)?;
        let administrators = logged_in(sockets);
        let ends = sockets.iter().filter(|socket| socket.has_answered());
        let ends = ends.map(|socket| socket.connection);
        // Without connection tracking nothing is forwarded.
        let forwarded = tracked().unwrap_or_default().into_iter();
        let forwarded = forwarded
            .filter(|one| {
                one.original != one.rewritten && !self.own.contains(&one.rewritten.local.ip())
            })
            .map(|one| one.original);
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for connection in ends.chain(forwarded) {
            let client = connection.remote.ip();
            let is_own = client.is_loopback() || self.own.contains(&client);
            if self.ports.contains(&connection.local.port()) && !is_own {
                *counts.entry(client).or_default() += 1;
            }
        }
        let clients = counts.into_iter().map(|(address, connections)| {
            let (kind, why) = self.kind(address, &nodes, &administrators);
            Client {
                address,
                connections,
                kind,
                why,
            }
        });
        Ok(clients.collect())
    }

    fn kind(
        &self,
        address: IpAddr,
        nodes: &Nodes,
        administrators: &BTreeSet<IpAddr>,
    ) -> (ClientKind, String) {
        let probe = PROBES.into_iter().find(|preset| {
            let ranges = preset.ranges(self.files);
            ranges.iter().any(|range| range.contains(&address))
        });
        if let Some(preset) = probe {
            return (ClientKind::Probe, format!("health probe (`{preset}`)"));
        }
        if let Some(role) = self.peers.get(&address) {
            return (ClientKind::Node, (*role).to_owned());
        }
        let mut pods = self.pods.iter().filter(|pods| is_of_pods(&pods.range));
        if let Some(pods) = pods.find(|pods| pods.range.contains(&address)) {
            return (ClientKind::Pod, format!("in the pod CIDR {}", pods.range));
        }
        if self.ssh == Some(address) || administrators.contains(&address) {
            return (
                ClientKind::Administrator,
                "has an SSH session here".to_owned(),
            );
        }
        // Those at the other end of a tunnel may be people, and no nodes.
        let neighbours = self.interfaces.iter().filter(|one| !one.is_tunnel);
        let network = neighbours
            .filter_map(|interface| Some((interface, interface.network_of(address)?)))
            .next();
        if let Some((interface, network)) = network {
            let why = format!("in {network}, the network of `{}`", interface.name);
            // A neighbour with a public address may be another customer of the provider.
            return match is_public(address) {
                true => (
                    ClientKind::Public,
                    format!("{why}: a node or another machine"),
                ),
                false => (ClientKind::Neighbour, why),
            };
        }
        if let Some(why) = nodes.named(address) {
            return (ClientKind::Node, why);
        }
        if is_public(address) {
            return (ClientKind::Public, "public address".to_owned());
        }
        let why = "private address outside this node's networks: a remote node or a VPN";
        (ClientKind::Private, why.to_owned())
    }
}
