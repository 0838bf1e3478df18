//! The programs that serve the API on this node: API servers, and proxies in front of one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    owners::{NamedProcess, connected, owner, sockets_of},
    ports::{SERVERS, WEB},
};
use crate::kernel::net::sock_diag::TcpSocket;

/// A port that a program listens on, reachable over the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// The port.
    pub port: u16,
    /// The one address that it listens at; `None` for all.
    pub address: Option<IpAddr>,
    /// The name of the program.
    pub program: String,
    /// Its process id.
    pub pid: i32,
}

impl Server {
    /// Whether the program can be a proxy, by its name.
    pub fn is_proxy(&self) -> bool {
        let name = self.program.as_str();
        PROXIES.contains(&name) || (WEB.contains(&name) && !INGRESSES.contains(&name))
    }

    /// Whether the program often forwards TCP, at ports other than the web's.
    pub fn may_forward(&self) -> bool {
        FORWARDERS.contains(&self.program.as_str()) && !WEB_PORTS.contains(&self.port)
    }

    /// Whether the program contains an API server, by its name.
    pub fn is_server(&self) -> bool {
        SERVERS
            .iter()
            .any(|server| self.program.starts_with(server))
    }
}

/// The programs with a part in serving the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// API servers.
    pub api: Vec<Server>,
    /// Programs through which nodes join the cluster.
    pub join: Vec<Server>,
    /// Proxies in front of an API server: a filter on the API server's port alone leaves them open.
    pub proxies: Vec<Server>,
    /// Other programs that listen and have connections to an API server. They may be clients.
    pub unclear: Vec<Server>,
    /// All listeners by port, with the name of one owner.
    pub listening: BTreeMap<u16, Server>,
}

/// Programs that are an API server and nothing else: all of their ports are the API's.
const API_ALONE: &str = "kube-apiserver";
/// The port of the API server in microk8s (`kubelite`), which has all components in one program.
const MICROK8S: u16 = 16443;
/// The ports through which nodes join RKE2 and k0s.
const JOIN: [u16; 2] = [9345, 9443];
/// Proxies besides web servers.
const PROXIES: [&str; 4] = ["kube-vip", "gobetween", "socat", "relayd"];
/// Web servers that ask the API server what to serve: a connection to it makes them no proxy.
const INGRESSES: [&str; 6] = [
    "nginx-ingress-c",
    "nginx-ingress",
    "haproxy-ingress",
    "traefik",
    "kong",
    "contour",
];
/// Programs that often forward TCP, and have no connection to their servers until they are used.
const FORWARDERS: [&str; 5] = ["haproxy", "nginx", "gobetween", "socat", "relayd"];
/// Ports of the web.
pub const WEB_PORTS: [u16; 2] = [80, 443];
/// Name prefixes of components of a cluster that are clients of the API server, and listen for
/// probes and metrics.
const CLIENTS: [&str; 19] = [
    "kubelet",
    "kube-",
    "etcd",
    "cilium",
    "calico",
    "flannel",
    "antrea",
    "ovn",
    "coredns",
    "node-cache",
    "metrics-server",
    "prometheus",
    "node_exporter",
    "cloud-controll",
    "csi-",
    "containerd",
    "dockerd",
    "crio",
    "konnectivity",
];

/// The programs among the owners of `listeners` and `connections`, which are those of this network
/// namespace. `known` are the ports of the API server that files name.
pub fn servers(
    known: &BTreeSet<u16>,
    listeners: &[TcpSocket],
    connections: &[TcpSocket],
) -> Servers {
    let owners = sockets_of(|_| true);
    let reachable = listeners
        .iter()
        .filter(|socket| !socket.connection.local.ip().is_loopback());
    let listening: Vec<(SocketAddr, &NamedProcess)> = reachable
        .filter_map(|socket| Some((socket.connection.local, owner(&owners, socket)?)))
        .collect();
    let connected = connected(&owners, listeners, connections);
    classify(known, &listening, &connected)
}

/// As [`servers`]: `connected` are the remote ports of connections, each with its process.
fn classify(
    known: &BTreeSet<u16>,
    listening: &[(SocketAddr, &NamedProcess)],
    connected: &BTreeSet<(u16, i32)>,
) -> Servers {
    let is_server = |name: &str| SERVERS.iter().any(|server| name.starts_with(server));
    let mut found = Servers::default();
    let mut api: BTreeSet<u16> = known.clone();
    for (local, named) in listening {
        let (server, port) = (server(*local, named), &local.port());
        found
            .listening
            .entry(*port)
            .or_insert_with(|| server.clone());
        let is_api = named.name == API_ALONE
            || is_server(&named.name) && (known.contains(port) || *port == MICROK8S);
        if is_api {
            api.insert(*port);
            found.api.push(server);
        } else if is_server(&named.name) && JOIN.contains(port) {
            found.join.push(server);
        }
    }
    let upstream: BTreeSet<i32> = connected
        .iter()
        .filter(|(port, _)| api.contains(port))
        .map(|(_, pid)| *pid)
        .collect();
    for (local, named) in listening {
        let port = &local.port();
        let name = named.name.as_str();
        if !upstream.contains(&named.pid) || is_server(name) || api.contains(port) {
            continue;
        }
        if server(*local, named).is_proxy() {
            found.proxies.push(server(*local, named));
        } else if !CLIENTS.iter().any(|client| name.starts_with(client)) {
            found.unclear.push(server(*local, named));
        }
    }
    keep_own_ports(&mut found.proxies);
    for list in [
        &mut found.api,
        &mut found.join,
        &mut found.proxies,
        &mut found.unclear,
    ] {
        list.sort();
        list.dedup_by(|one, other| one.port == other.port);
    }
    found
}

/// A proxy that listens on web ports and others serves the web on the former.
fn keep_own_ports(proxies: &mut Vec<Server>) {
    let others: BTreeSet<i32> = proxies
        .iter()
        .filter(|proxy| !WEB_PORTS.contains(&proxy.port))
        .map(|proxy| proxy.pid)
        .collect();
    proxies.retain(|proxy| !(WEB_PORTS.contains(&proxy.port) && others.contains(&proxy.pid)));
}

fn server(local: SocketAddr, named: &NamedProcess) -> Server {
    Server {
        port: local.port(),
        address: Some(local.ip()).filter(|address| !address.is_unspecified()),
        program: named.name.clone(),
        pid: named.pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_by_name_port_and_connections() {
        let named = |name: &str, pid| NamedProcess {
            pid,
            name: name.to_owned(),
        };
        let (api, k3s, rke2) = (
            named("kube-apiserver", 1),
            named("k3s-server", 2),
            named("rke2", 3),
        );
        let traefik = named("traefik", 8);
        let (haproxy, kubelet, other, nginx) = (
            named("haproxy", 4),
            named("kubelet", 5),
            named("bridge", 6),
            named("nginx", 7),
        );
        let at = |port| SocketAddr::from(([0; 4], port));
        let listening = [
            (6443, &api),
            (6444, &k3s),
            (10250, &k3s),
            (9345, &rke2),
            (8443, &haproxy),
            (443, &haproxy),
            (10250, &kubelet),
            (7000, &other),
            (443, &nginx),
            (444, &traefik),
        ]
        .map(|(port, named)| (at(port), named));
        let connected = BTreeSet::from([(6443, 4), (6443, 5), (6443, 6), (8080, 7), (6443, 8)]);
        let found = classify(&BTreeSet::from([6444]), &listening, &connected);
        let ports = |list: &[Server]| list.iter().map(|one| one.port).collect::<Vec<_>>();
        assert_eq!(ports(&found.api), [6443, 6444]);
        assert_eq!(ports(&found.join), [9345]);
        assert_eq!(ports(&found.proxies), [8443]);
        assert_eq!(ports(&found.unclear), [444, 7000]);
        assert_eq!(found.listening[&443].program, "haproxy");
        // A program on 443 alone that leads to an API server is a proxy, too.
        let found = classify(
            &BTreeSet::new(),
            &[(at(6443), &api), (at(443), &nginx)],
            &BTreeSet::from([(6443, 7)]),
        );
        assert_eq!(ports(&found.proxies), [443]);
    }
}
