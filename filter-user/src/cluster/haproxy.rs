//! Ports of haproxy that it forwards to an API server, from its configuration.
//!
//! Only what these lines need is read: sections, `bind`, `server`, `default_backend` and
//! `use_backend` (haproxy's configuration manual, sections 4.2 and 5).

use std::collections::{BTreeMap, BTreeSet};

use super::{files::Root, port::Port};

/// A section that listens, forwards, or both.
#[derive(Default)]
struct Section {
    /// The ports that it listens on over the network.
    binds: BTreeSet<u16>,
    /// The ports of its servers.
    servers: BTreeSet<u16>,
    /// The names of the backends that it uses.
    backends: BTreeSet<String>,
}

/// The ports that haproxy forwards to one of the ports `api`, wherever that server is.
pub(super) fn haproxy_ports(root: &Root, api: &[u16]) -> Vec<Port> {
    let mut paths = vec!["/etc/haproxy/haproxy.cfg".into()];
    paths.extend(root.files("/etc/haproxy/conf.d", &["cfg"]));
    let texts = paths
        .iter()
        .filter_map(|path| Some((path, root.text(path)?)));
    let mut found = Vec::new();
    for (path, text) in texts {
        let ports = forwarded(&text, api).into_iter();
        found.extend(ports.filter(|port| !api.contains(port)).map(|port| Port {
            port,
            from: format!(
                "haproxy forwards it to the API server (`bind` in `{}`)",
                path.display()
            ),
        }));
    }
    found
}

fn forwarded(text: &str, api: &[u16]) -> BTreeSet<u16> {
    let sections = sections(text);
    let leads = |section: &Section| section.servers.iter().any(|port| api.contains(port));
    let behind = |name: &String| {
        let backend = sections.get(&("backend".to_owned(), name.clone()));
        backend.is_some_and(leads)
    };
    let listening = sections.values();
    listening
        .filter(|section| leads(section) || section.backends.iter().any(behind))
        .flat_map(|section| section.binds.iter().copied())
        .collect()
}

/// The sections by kind and name.
fn sections(text: &str) -> BTreeMap<(String, String), Section> {
    const KINDS: [&str; 4] = ["frontend", "backend", "listen", "defaults"];
    let mut sections: BTreeMap<(String, String), Section> = BTreeMap::new();
    let mut current = (String::new(), String::new());
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        if KINDS.contains(first) || *first == "global" {
            let name = rest.first().copied().unwrap_or_default();
            current = ((*first).to_owned(), name.to_owned());
            continue;
        }
        let section = sections.entry(current.clone()).or_default();
        match (*first, rest) {
            ("bind", [addresses, ..]) => section.binds.extend(bound(addresses)),
            ("server", [_, address, ..]) => section.servers.extend(port(address)),
            ("default_backend" | "use_backend", [name, ..]) => {
                section.backends.insert((*name).to_owned());
            }
            _ => {}
        }
    }
    sections
}

/// The ports of a `bind` line that are reachable over the network.
fn bound(addresses: &str) -> impl Iterator<Item = u16> {
    let addresses = addresses.split(',');
    let is_local = |address: &str| address.starts_with("127.") || address.starts_with("[::1]");
    addresses
        .filter(move |address| !is_local(address))
        .filter_map(port)
}

/// The port at the end of an address, such as `*:8443`, `:8443` or `[::]:8443`.
fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_lead_to_the_api_server_through_their_backends() {
        let text = "global\n log /dev/log\ndefaults\n mode tcp\n\
            frontend api # kubeadm\n bind *:8443\n bind [::]:8444 v4v6\n default_backend masters\n\
            frontend web\n bind :80,:443\n default_backend web\n\
            backend masters\n option httpchk GET /healthz\n server cp1 192.0.2.10:6443 check\n\
            backend web\n server w1 192.0.2.20:8080\n\
            listen both\n bind 0.0.0.0:7443 ssl\n bind 127.0.0.1:7444\n server cp1 cp1.example.org:6443\n";
        assert_eq!(forwarded(text, &[6443]), BTreeSet::from([8443, 8444, 7443]));
        assert_eq!(forwarded(text, &[8080]), BTreeSet::from([80, 443]));
        assert_eq!(forwarded(text, &[1]), BTreeSet::new());
        assert_eq!(
            forwarded("bind\nserver x\nbackend\n", &[6443]),
            BTreeSet::new()
        );
    }
}
