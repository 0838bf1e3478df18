//! The addresses of the cluster's nodes and of this node's administrators.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    files::{Root, manifests},
    owners::{sockets_of, titles_of},
};
use crate::{
    config::{ClusterCidr, Preset},
    kernel::net::{
        rtnetlink::{self, is_link_local},
        sock_diag::TcpSocket,
    },
    ranges::Lists,
};

/// The ports of etcd: for clients, and for its other members.
const ETCD: [u16; 2] = [2379, 2380];
/// Many services listen here, so a server on this port need not be an API server.
const HTTPS: u16 = 443;

/// The known nodes of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    listed: Vec<IpNet>,
    peers: BTreeMap<IpAddr, &'static str>,
    subnets: Vec<IpNet>,
    /// The ranges of `cluster_cidrs`, each with its value there.
    cluster: Vec<(IpNet, ClusterCidr)>,
}

impl Nodes {
    /// Collects the facts. `sockets` are the connections of this network namespace, `ports` those
    /// of the API server, `cluster` the values in the settings, `files` the files of the cluster in
    /// the state directory, whether the settings name them or not.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub fn gather(
        sockets: &[TcpSocket],
        ports: &BTreeSet<u16>,
        cluster: &[ClusterCidr],
        files: &Lists,
    ) -> Result<Self> {
        let ranges = |cidr: &ClusterCidr| {
            let cidr = *cidr;
            let ranges = cidr.ranges(files).into_iter();
            ranges.map(move |range| (range, cidr))
        };
        Ok(Self {
            listed: Preset::Nodes.ranges(files),
            // What might be a node is not to be cut without a question.
            peers: peers(&Root::default(), sockets, ports, &BTreeSet::new()),
            subnets: own_subnets()?,
            cluster: cluster.iter().flat_map(ranges).collect(),
        })
    }

    /// Why `address` is a node's, in words; `None` if it is not known to be.
    pub fn why(&self, address: IpAddr) -> Option<String> {
        let around = |ranges: &[IpNet]| {
            let found = ranges.iter().filter(|range| range.contains(&address));
            found.max_by_key(|range| range.prefix_len()).copied()
        };
        if around(&self.listed).is_some() {
            return Some(format!("in `{}`", Preset::Nodes));
        }
        if let Some(peer) = self.peers.get(&address) {
            return Some((*peer).to_owned());
        }
        let subnet = || Some(format!("own subnet {}", around(&self.subnets)?));
        subnet().or_else(|| self.named(address))
    }

    /// The same for what an operator or the API names a node: settings, and the file of nodes.
    pub fn named(&self, address: IpAddr) -> Option<String> {
        if self.listed.iter().any(|range| range.contains(&address)) {
            return Some(format!("in `{}`", Preset::Nodes));
        }
        let found = self.cluster.iter();
        let found = found.filter(|(range, _)| range.contains(&address));
        let (_, cidr) = found.max_by_key(|(range, _)| range.prefix_len())?;
        Some(format!("`cluster_cidrs` {cidr}"))
    }
}

/// The subnets of this node's addresses, which the other nodes may be in.
///
/// # Errors
/// If rtnetlink does not answer.
pub fn own_subnets() -> Result<Vec<IpNet>> {
    let own = rtnetlink::addresses_in_networks()?.into_iter();
    let subnets: BTreeSet<IpNet> = own
        .map(|(_, own)| own)
        .filter(|own| own.prefix_len() < own.max_prefix_len() && !is_link_local(own.addr()))
        .map(|own| own.trunc())
        .collect();
    Ok(subnets.into_iter().collect())
}

/// The addresses of etcd members and API servers, each with its role. They come from this node's
/// connections and manifests. `ports` are those of the API server. Connections to `listening`, the
/// ports of this node's listeners, count for nothing: any machine can open one, from any port.
pub fn peers(
    root: &Root,
    sockets: &[TcpSocket],
    ports: &BTreeSet<u16>,
    listening: &BTreeSet<u16>,
) -> BTreeMap<IpAddr, &'static str> {
    let mut found = BTreeMap::new();
    for socket in sockets {
        let (remote, local) = (socket.connection.remote, socket.connection.local.port());
        if listening.contains(&local) {
            continue;
        }
        if ETCD.contains(&local) || ETCD.contains(&remote.port()) {
            found.insert(remote.ip(), "etcd peer");
        } else if remote.port() != HTTPS && ports.contains(&remote.port()) {
            found.entry(remote.ip()).or_insert("API server");
        }
    }
    for (component, name) in [
        ("etcd", "--initial-cluster"),
        ("kube-apiserver", "--etcd-servers"),
    ] {
        let values = manifests(component).into_iter();
        let values = values.filter_map(|manifest| root.flag(manifest, name));
        let hosts: Vec<IpAddr> = values
            .flat_map(|value| value.split(',').filter_map(host).collect::<Vec<_>>())
            .collect();
        found.extend(hosts.into_iter().map(|host| (host, "etcd peer")));
    }
    found.retain(|address, _| !address.is_loopback());
    found
}

/// The address in `https://192.0.2.10:2380`, or in `name=https://192.0.2.10:2380`.
pub(super) fn host(url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next()?;
    let with_port = || {
        authority
            .parse()
            .ok()
            .map(|address: SocketAddr| address.ip())
    };
    let alone = || authority.trim_matches(['[', ']']).parse().ok();
    with_port().or_else(alone)
}

/// The programs of SSH servers.
const SSH_SERVERS: [&str; 3] = ["sshd", "sshd-session", "dropbear"];

/// The remote addresses of those who have logged in on this node by OpenSSH, and not only connected
/// to it. `sockets` are the connections of this network namespace.
pub fn logged_in(sockets: &[TcpSocket]) -> BTreeSet<IpAddr> {
    let sessions = titles_of(|name| SSH_SERVERS.contains(&name), is_session);
    let of_session = sockets
        .iter()
        .filter(|socket| sessions.contains(&socket.inode.into()));
    of_session
        .map(|socket| socket.connection.remote.ip())
        .collect()
}

/// Whether this is the title of a session, such as `sshd: root@pts/0`. Before the password it is
/// `sshd: root [priv]`.
fn is_session(title: &str) -> bool {
    let whose = title.split_once(": ").map(|(_, whose)| whose);
    whose.is_some_and(|whose| whose.contains('@') && !whose.ends_with(']'))
}

/// The remote addresses of SSH connections to this node: peers of `sshd`, or of port 22 if no
/// `sshd` is found. `sockets` are the connections of this network namespace.
pub fn administrators(sockets: &[TcpSocket]) -> BTreeSet<IpAddr> {
    const SSH: u16 = 22;
    let of_sshd = sockets_of(|name| SSH_SERVERS.contains(&name));
    let remote = |socket: &TcpSocket| socket.connection.remote.ip();
    let by_process = sockets
        .iter()
        .filter(|socket| of_sshd.contains_key(&socket.inode.into()));
    let found: BTreeSet<IpAddr> = by_process.map(remote).collect();
    if !found.is_empty() {
        return found;
    }
    let by_port = sockets
        .iter()
        .filter(|socket| socket.connection.local.port() == SSH);
    by_port.map(remote).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_its_title() {
        for (title, want) in [
            ("sshd: root@pts/0", true),
            ("sshd-session: me@notty", true),
            (
                "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
                false,
            ),
            ("sshd: [accepted]", false),
            ("sshd-session: root [priv]", false),
            ("sshd: me@site [net]", false),
            ("sshd", false),
        ] {
            assert_eq!(is_session(title), want, "{title}");
        }
    }

    #[test]
    fn a_host_is_read_from_a_url() {
        for (url, want) in [
            ("https://192.0.2.10:2380", Some("192.0.2.10")),
            ("n1=https://192.0.2.10:2380", Some("192.0.2.10")),
            ("https://[2001:db8::1]:2379/", Some("2001:db8::1")),
            ("http://[2001:db8::1]", Some("2001:db8::1")),
            ("https://etcd.example.org:2379", None),
            ("", None),
        ] {
            let want = want.map(|text| text.parse().expect("an address"));
            assert_eq!(host(url), want, "{url}");
        }
    }
}
