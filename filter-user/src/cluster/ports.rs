//! The programs that listen on the protected ports of this node.

use std::collections::{BTreeMap, BTreeSet};

use super::owners::{NamedProcess, connected, owner, sockets_of};
use crate::kernel::net::sock_diag::TcpSocket;

/// A protected port that another program than the API server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignListener {
    /// The port.
    pub port: u16,
    /// The name of the program.
    pub program: String,
    /// Its process id.
    pub pid: i32,
}

/// Name prefixes of programs that are an API server or contain one.
pub(super) const SERVERS: [&str; 5] = ["kube-apiserver", "k3s", "rke2", "k0s", "kubelite"];
/// Web servers. They are not an API server unless they are a proxy for one.
pub(super) const WEB: [&str; 14] = [
    "nginx",
    "nginx-ingress-c",
    "nginx-ingress",
    "openresty",
    "traefik",
    "envoy",
    "caddy",
    "apache2",
    "httpd",
    "haproxy",
    "haproxy-ingress",
    "kong",
    "contour",
    "lighttpd",
];
/// A default port that many other programs listen on, too.
pub(super) const HTTPS: u16 = 443;

/// The ports of `new_ports` that belong to another program. `ports` are all ports to be protected,
/// and `chosen` if the operator set them. The sockets are those of this network namespace.
pub fn foreign(
    new_ports: &BTreeSet<u16>,
    (ports, chosen): (&BTreeSet<u16>, bool),
    listeners: &[TcpSocket],
    connections: &[TcpSocket],
) -> Vec<ForeignListener> {
    let on = |socket: &&TcpSocket| ports.contains(&socket.connection.local.port());
    if !listeners.iter().any(|socket| on(&socket)) {
        return Vec::new();
    }
    let owners = sockets_of(|_| true);
    // A proxy has connections to the API servers that it serves.
    let connected = connected(&owners, listeners, connections).into_iter();
    let proxies: BTreeSet<i32> = connected
        .filter(|(remote, _)| *remote != HTTPS && ports.contains(remote))
        .map(|(_, pid)| pid)
        .collect();
    let listening: Vec<(u16, &NamedProcess)> = listeners
        .iter()
        .filter(on)
        .filter_map(|socket| Some((socket.connection.local.port(), owner(&owners, socket)?)))
        .collect();
    foreign_listeners(new_ports, chosen, &listening, &proxies)
}

fn foreign_listeners(
    new_ports: &BTreeSet<u16>,
    chosen: bool,
    listening: &[(u16, &NamedProcess)],
    proxies: &BTreeSet<i32>,
) -> Vec<ForeignListener> {
    let serves = |named: &NamedProcess| SERVERS.iter().any(|name| named.name.starts_with(name));
    let foreign = listening.iter().filter(|(port, named)| {
        if !new_ports.contains(port) || serves(named) || proxies.contains(&named.pid) {
            return false;
        }
        let other = || {
            let mut others = listening.iter();
            others.any(|(other, program)| other != port && program.name != named.name)
        };
        WEB.contains(&&*named.name) || (!chosen && *port == HTTPS && other())
    });
    // A program may listen at several addresses, and in several processes.
    let foreign: BTreeMap<(u16, &str), i32> = foreign
        .map(|(port, named)| ((*port, &*named.name), named.pid))
        .rev()
        .collect();
    let foreign = foreign
        .into_iter()
        .map(|((port, program), pid)| ForeignListener {
            port,
            program: program.to_owned(),
            pid,
        });
    foreign.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_server_is_foreign_and_one_program_on_all_ports_is_not() {
        let named = |name: &str, pid| NamedProcess {
            pid,
            name: name.to_owned(),
        };
        for (on_443, on_6443, chosen, want) in [
            (named("nginx", 1), named("kube-apiserver", 2), false, true),
            (named("nginx", 1), named("kube-apiserver", 2), true, true),
            (named("it", 1), named("kube-apiserver", 2), false, true),
            (named("it", 1), named("kube-apiserver", 2), true, false),
            (named("it", 1), named("it", 1), false, false),
            (named("kube-apiserver", 1), named("it", 2), false, false),
            (
                named("haproxy", 9),
                named("kube-apiserver", 2),
                false,
                false,
            ),
        ] {
            let listening = [(443, &on_443), (6443, &on_6443)];
            let new_ports = BTreeSet::from([443, 6443]);
            let found = foreign_listeners(&new_ports, chosen, &listening, &BTreeSet::from([9]));
            let ports: Vec<u16> = found.iter().map(|foreign| foreign.port).collect();
            let wanted: &[u16] = if want { &[443] } else { &[] };
            assert_eq!(ports, wanted, "{on_443:?} {on_6443:?} {chosen}");
            assert_eq!(
                foreign_listeners(&BTreeSet::new(), chosen, &listening, &BTreeSet::new()),
                []
            );
        }
    }
}
