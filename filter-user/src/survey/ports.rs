//! The ports to protect.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::cluster::{ControlPlane, Port, Server, Servers, WEB_PORTS};

/// The port of an API server, where neither a file nor a process names one.
const DEFAULT: u16 = 6443;

/// A port to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtectedPort {
    /// The port.
    pub(crate) port: u16,
    /// What it is, with the program or the file that says so.
    pub(crate) why: Vec<String>,
}

/// The ports through which the API server is reached, in order. `own` are the node's addresses.
pub(super) fn protected_ports(
    files: &ControlPlane,
    servers: &Servers,
    own: &BTreeSet<IpAddr>,
    notes: &mut Vec<String>,
) -> Vec<ProtectedPort> {
    let mut found: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (port, why) in of_processes(servers)
        .into_iter()
        .chain(of_files(files, servers, notes))
    {
        found.entry(port).or_default().push(why);
    }
    if found.is_empty() {
        notes.push(format!(
            "no API server found on this node: using the usual port {DEFAULT}"
        ));
        found.insert(DEFAULT, vec!["the usual port of an API server".to_owned()]);
    }
    add_endpoint(files, servers, own, &mut found, notes);
    for server in &servers.unclear {
        notes.push(format!(
            "{} and is connected to the API server: if it forwards clients, protect its port, too",
            listens(server)
        ));
    }
    for server in servers.listening.values() {
        let is_told = found.contains_key(&server.port) || servers.unclear.contains(server);
        if server.may_forward() && !is_told && !servers.api.is_empty() {
            notes.push(format!(
                "{}: if it forwards clients to the API server, protect its port, too",
                listens(server)
            ));
        }
    }
    let found = found.into_iter();
    found
        .map(|(port, why)| ProtectedPort { port, why })
        .collect()
}

/// The ports that processes listen on, each with the reason.
fn of_processes(servers: &Servers) -> Vec<(u16, String)> {
    let each = |servers: &[Server], what: &str| -> Vec<(u16, String)> {
        let ports = servers.iter();
        ports
            .map(|server| (server.port, format!("{}{what}", listens(server))))
            .collect()
    };
    [
        each(&servers.api, ""),
        each(&servers.proxies, ", and forwards to the API server"),
        each(&servers.join, ", where nodes join"),
    ]
    .concat()
}

/// The ports that files name, each with the reason.
fn of_files(
    files: &ControlPlane,
    servers: &Servers,
    notes: &mut Vec<String>,
) -> Vec<(u16, String)> {
    for Port { port, from } in &files.api {
        let mut listening = servers.listening.values();
        let serves = || listening.find(|one| one.is_server());
        // Both are protected: the program may be one that only has the name.
        if !servers.listening.contains_key(port)
            && let Some(server) = servers.api.first().or_else(serves)
        {
            notes.push(format!(
                "port {port}, {from}, has no listener, and {}",
                listens(server)
            ));
        }
    }
    let ports = files.api.iter().chain(&files.proxies).chain(&files.join);
    ports.map(|one| (one.port, one.from.clone())).collect()
}

/// The port of the cluster's endpoint, if it is on this node.
fn add_endpoint(
    files: &ControlPlane,
    servers: &Servers,
    own: &BTreeSet<IpAddr>,
    found: &mut BTreeMap<u16, Vec<String>>,
    notes: &mut Vec<String>,
) {
    let Some((host, Port { port, from })) = &files.endpoint else {
        return;
    };
    if found.contains_key(port) {
        return;
    }
    let is_here = host.parse().is_ok_and(|host| own.contains(&host));
    match servers.listening.get(port) {
        Some(server) if is_here || (server.is_proxy() && !WEB_PORTS.contains(port)) => {
            let why = format!("{}: {from}", listens(server));
            found.insert(*port, vec![why]);
        }
        _ => {
            let target = match host.parse() {
                Ok(host) => SocketAddr::new(host, *port).to_string(),
                Err(_) => format!("{host}:{port}"),
            };
            notes.push(format!(
                "{from} is `{target}`: if that is a load balancer, restrict its clients there"
            ));
        }
    }
}

fn listens(server: &Server) -> String {
    let Server {
        port,
        address,
        program,
        pid,
    } = server;
    let at = match address {
        Some(address) => SocketAddr::new(*address, *port).to_string(),
        None => port.to_string(),
    };
    format!("`{program}` (pid {pid}) listens on {at}")
}
