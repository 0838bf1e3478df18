//! Ports of haproxy that it forwards to an API server, from its configuration.
//!
//! Only what these lines need is read: sections, `bind`, `server`, `server-template`,
//! `default_backend` and `use_backend` (haproxy's configuration manual, sections 4.2 and 5).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{files::Root, port::Port};

/// The name of its process.
pub const HAPROXY: &str = "haproxy";

/// A section that listens, forwards, or both.
#[derive(Default)]
struct Section<'a> {
    /// The ports that it listens on over the network, each with the file that says so.
    binds: BTreeMap<u16, &'a Path>,
    /// The ports of its servers.
    servers: BTreeSet<u16>,
    /// The names of the backends that it uses.
    backends: BTreeSet<String>,
}

/// The sections by kind and name.
type Sections<'a> = BTreeMap<(String, String), Section<'a>>;

/// The ports that haproxy forwards to one of the ports `api`, wherever that server is.
pub(super) fn haproxy_ports(root: &Root, api: &[u16]) -> Vec<Port> {
    let mut paths: Vec<PathBuf> = vec!["/etc/haproxy/haproxy.cfg".into()];
    paths.extend(root.files("/etc/haproxy/conf.d", &["cfg"]));
    // The backend of a frontend may be in another file.
    let texts: Vec<(&Path, String)> = paths
        .iter()
        .filter_map(|path| Some((path.as_path(), root.text(path)?)))
        .collect();
    let mut sections = Sections::new();
    for (path, text) in &texts {
        add_sections(path, text, &mut sections);
    }
    let ports = forwarded(&sections, api).into_iter();
    ports
        .filter(|(port, _)| !api.contains(port))
        .map(|(port, path)| Port {
            port,
            from: format!(
                "haproxy forwards this port to the API server (`bind` in `{}`)",
                path.display()
            ),
        })
        .collect()
}

fn forwarded<'a>(sections: &Sections<'a>, api: &[u16]) -> BTreeMap<u16, &'a Path> {
    let leads = |section: &Section<'_>| section.servers.iter().any(|port| api.contains(port));
    let behind = |name: &String| {
        let names = ["backend", "listen"].map(|kind| (kind.to_owned(), name.clone()));
        names
            .iter()
            .any(|name| sections.get(name).is_some_and(leads))
    };
    let listening = sections.values();
    listening
        .filter(|section| leads(section) || section.backends.iter().any(behind))
        .flat_map(|section| section.binds.clone())
        .collect()
}

/// Adds the sections of the file at `path`.
fn add_sections<'a>(path: &'a Path, text: &str, sections: &mut Sections<'a>) {
    /// The kinds of sections that forward TCP, and the others.
    const KINDS: [&str; 18] = [
        "frontend",
        "backend",
        "listen",
        "defaults",
        "global",
        "peers",
        "resolvers",
        "userlist",
        "mailers",
        "cache",
        "program",
        "http-errors",
        "ring",
        "log-forward",
        "fcgi-app",
        "crt-store",
        "log-profile",
        "traces",
    ];
    let mut current = (String::new(), String::new());
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let line = line.replace(['"', '\'', '\\'], "");
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        if KINDS.contains(first) {
            let name = rest.first().copied().unwrap_or_default();
            current = ((*first).to_owned(), name.to_owned());
            continue;
        }
        let section = sections.entry(current.clone()).or_default();
        match (*first, rest) {
            ("bind", [addresses, ..]) => {
                let ports = bound(addresses);
                section.binds.extend(ports.map(|port| (port, path)));
            }
            ("server", [_, address, ..]) | ("server-template", [_, _, address, ..]) => {
                section.servers.extend(ports(address));
            }
            ("default_backend" | "use_backend", [name, ..]) => {
                section.backends.insert((*name).to_owned());
            }
            _ => {}
        }
    }
}

/// The ports of a `bind` line that are reachable over the network.
fn bound(addresses: &str) -> impl Iterator<Item = u16> {
    let addresses = addresses.split(',').map(|address| {
        // The family of the address may stand before it.
        address.split_once('@').map_or(address, |(_, rest)| rest)
    });
    let is_local = |address: &str| {
        let starts = ["127.", "[::1]", "::1:", "localhost:"];
        starts.iter().any(|start| address.starts_with(start))
    };
    addresses
        .filter(move |address| !is_local(address))
        .flat_map(ports)
}

/// The port at the end of an address, such as `*:8443`, `:8443` or `[::]:8443`, or all of
/// `*:8443-8445`.
fn ports(address: &str) -> impl Iterator<Item = u16> {
    let ports = || {
        let ports = address.rsplit_once(':')?.1;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    ports().into_iter().flatten()
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
        assert_eq!(forwards(&[text], &[6443]), [7443, 8443, 8444]);
        assert_eq!(forwards(&[text], &[8080]), [80, 443]);
        assert!(forwards(&[text], &[1]).is_empty());
        assert!(forwards(&["bind\nserver x\nbackend\n"], &[6443]).is_empty());
    }

    /// The ports that a configuration of these files forwards to `api`.
    fn forwards(texts: &[&str], api: &[u16]) -> Vec<u16> {
        let mut sections = Sections::new();
        for text in texts {
            add_sections(Path::new("/haproxy.cfg"), text, &mut sections);
        }
        forwarded(&sections, api).into_keys().collect()
    }

    #[test]
    fn addresses_have_many_forms_and_sections_end() {
        let server = "server cp1 192.0.2.11:6443\n";
        for (bind, want) in [
            ("*:8443-8445", vec![8443, 8444, 8445]),
            ("\"*:8443\" ssl", vec![8443]),
            ("ipv4@:8443,ipv6@:::8444 v6only", vec![8443, 8444]),
            ("ipv4@127.0.0.1:8443", vec![]),
            ("unix@/run/api.sock mode 600", vec![]),
            ("*:8445-8443", vec![]),
            ("*:99999", vec![]),
        ] {
            let text = format!("listen api\n bind {bind}\n {server}");
            assert_eq!(forwards(&[&text], &[6443]), want, "{bind}");
        }
        let template = "listen api\n bind :8443\n server-template cp 3 _api._tcp.it:6443 check\n";
        assert_eq!(forwards(&[template], &[6443]), [8443]);
        // Frontends in one file, backends in another; the lines of other sections are their own.
        let front = "frontend api\n bind :8443\n use_backend cp if { ssl_fc_sni it }\n\
            frontend web\n bind :443\n use_backend web\n";
        let back = format!("backend cp\n {server}log-forward syslog\n bind :514\n");
        assert_eq!(forwards(&[front, &back], &[6443]), [8443]);
    }
}
