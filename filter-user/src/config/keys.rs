//! The keys of the config file, described: the manual page, the example in `deploy` and `config
//! --example` are made of this table.

use std::fmt::Write as _;

use super::layers::{Config, FILE_ONLY};

/// A key of the config file.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The type of its value, in words.
    pub kind: String,
    /// Its default as it is written in the file; `None` for tables.
    pub default: Option<String>,
    /// What it sets, and what happens with a wrong value.
    pub text: &'static str,
    /// An example; only tables have one.
    pub example: Option<&'static str>,
}

/// The name, what it sets, and an example of a table.
const TEXTS: [(&str, &str, &str); 22] = [
    (
        "ranges_file",
        "The file with the authorized ranges. Must be the file you edit.",
        "",
    ),
    (
        "bpffs",
        "The directory in a bpffs where the filter is pinned. Detach before you change it: `status` \
         and `detach` find the filter only here.",
        "",
    ),
    (
        "state_dir",
        "The directory that keeps the policy over a reboot. If the files are broken at a start, \
         `run` takes the policy from here.",
        "",
    ),
    (
        "output",
        "The output format. Scripts that read text break with another one.",
        "",
    ),
    (
        "verbose",
        "Print more messages; with `run`, also the log of the kernel program. Under attack that is \
         a lot of log.",
        "",
    ),
    (
        "interfaces",
        "The interfaces to guard, like [\"eth0\", \"eth1\"]. An empty list guards the interfaces \
         with a default route. A named interface is guarded as soon as it appears. Packets on an \
         interface that is not guarded are not filtered.",
        "",
    ),
    (
        "ports",
        "The TCP ports to protect. All other ports are open to everyone. The port of SSH in this \
         list can lock you out.",
        "",
    ),
    (
        "destinations",
        "The destinations to guard, as CIDRs: addresses of the node, virtual addresses. An empty \
         list guards all. Use it on nodes that route or serve other traffic to these ports. An \
         address of the API server that is not in the list is open to everyone.",
        "",
    ),
    (
        "mode",
        "\"enforce\" drops packets from unauthorized sources. \"monitor\" only counts them: the \
         port is open to everyone.",
        "",
    ),
    (
        "xdp_mode",
        "Where the program runs: \"native\" in the driver, \"generic\" in the network stack \
         (slower), \"auto\" in the first that works. \"native\" fails if the driver has no XDP. An \
         attached filter keeps its mode until `detach`.",
        "",
    ),
    (
        "outbound_ips",
        "The egress addresses of the cluster, authorized in addition to the list. Without them, \
         connections from the cluster through these addresses are dropped.",
        "",
    ),
    (
        "outbound_ip_prefixes",
        "The egress prefixes of the cluster, as CIDRs, authorized in addition to the list. A prefix \
         that is too wide also authorizes your neighbours.",
        "",
    ),
    (
        "cluster_cidrs",
        "The CIDRs of the cluster: other nodes, pods, load-balancer probes. They are authorized in \
         addition to the list. A node that is not authorized cannot reach this API server and \
         becomes `NotReady`. Names stand for sets. \"@nodes\" and \"@pods\" are files of these \
         names in the state directory; `run` follows them. \"@gcp-health-checks\" and \
         \"@azure-probe\" are the probes of load balancers.",
        "",
    ),
    (
        "node_addresses",
        "Whether the addresses of this node are authorized. With `false`, its kubelet may lose the \
         API server if its packets come from outside.",
        "",
    ),
    (
        "max_ranges",
        "The most ranges in all lists, up to 1000000. A longer list is refused, and the list before \
         stays in force.",
        "",
    ),
    (
        "metrics_listen",
        "The address and port of `/metrics`, `/healthz` and `/readyz` of `run`; \"off\" for none. \
         Every client that reaches it can read the counters: use loopback or a network of your own.",
        "",
    ),
    (
        "detach_on_exit",
        "Whether `run` detaches when it ends. The port is then open to everyone until the next \
         start.",
        "",
    ),
    (
        "on_cut",
        "What `run` does with an edit of this file or of the ranges file that would cut cluster \
         nodes or SSH administrators of this node. \"trial\" applies the edit and reverts it unless \
         you run `apifence confirm` in time. \"apply\" applies it. \"refuse\" keeps the policy in \
         force. Every other edit applies at once, even if it cuts a connected client.",
        "",
    ),
    (
        "on_cut_within",
        "How long such an edit is on trial, at most 24h. Leave enough time to read the log.",
        "",
    ),
    (
        "acknowledged_warnings",
        "The warnings to hide, by code, like [\"W11\"], or for one interface, like [\"W08:wg0\"]. A \
         code without an interface also hides later warnings: a new tunnel, for \"W08\". `apifence \
         explain` lists the codes. A warning that the filter is not as you expect cannot be hidden.",
        "",
    ),
    (
        "lists",
        "Limits of a list, by its name: the most ranges, the shortest prefix lengths, and the \
         longest time to the expiry of an entry (with it, each entry must expire). A list beyond \
         its limits keeps its last good entries. Without limits, a user who may write the list can \
         authorize any source. Without limits of their own, \"@nodes\" and \"@pods\" may have no \
         range wider than /8 (IPv4) or /16 (IPv6).",
        "[lists.guests]\nmax_ranges = 20\nwidest = { ipv4 = 32, ipv6 = 128 }\nmax_expires = \"30d\"",
    ),
    (
        "guard",
        "Ports with lists of their own, like the ports of etcd. They are protected, and open to \
         this node and to the sources of the named lists alone: not to other lists, the outbound \
         addresses or `cluster_cidrs`. All other protected ports are open to every list. At most 8 \
         tables.",
        "[[guard]]\nports = [2379, 2380]\nlists = [\"control-plane\"]",
    ),
];

/// The first lines of the example.
const HEAD: [&str; 5] = [
    "All settings, with their defaults. Uncomment what you need.",
    "A flag overrides the environment (`APIFENCE_...`), the environment overrides this file, this \
     file overrides the policy in force, and that overrides the default. A key that you remove \
     from this file has its default again.",
    "`apifence config` shows each setting and its origin. A file with an error is refused, and the \
     policy in force stays.",
    "After a change run `apifence attach`; `apifence run` applies it by itself. `apifence status` \
     shows the differences from the policy in force.",
    "The authorized ranges are not a setting. They have a file of their own: `apifence ranges` \
     changes it.",
];

/// The columns of the example.
const WIDTH: usize = 100;

impl Config {
    /// All keys, in the order of the example.
    pub fn keys() -> Vec<Key> {
        let key = |(name, kind, default): (&'static str, String, serde_json::Value)| {
            let own = TEXTS.iter().find(|(key, ..)| *key == name);
            let (_, text, example) = own.copied().unwrap_or_default();
            Key {
                name,
                kind,
                default: (!FILE_ONLY.contains(&name)).then(|| toml(&default)),
                text,
                example: (!example.is_empty()).then_some(example),
            }
        };
        Self::default().kinds().into_iter().map(key).collect()
    }

    /// The example of a config file: every key with its default, all as comments.
    pub fn example() -> String {
        let mut text = String::new();
        for line in HEAD {
            comment(&mut text, line);
        }
        for key in Self::keys() {
            text.push('\n');
            comment(&mut text, key.text);
            let lines = key.example.map(ToOwned::to_owned);
            let default = key.default.unwrap_or_default();
            let lines = lines.unwrap_or_else(|| format!("{} = {default}", key.name));
            for line in lines.lines() {
                let _ = writeln!(text, "#{line}");
            }
        }
        text
    }
}

/// A value in the form of the file.
fn toml(value: &serde_json::Value) -> String {
    value.to_string().replace(',', ", ")
}

/// Adds `words` as lines of a comment.
fn comment(text: &mut String, words: &str) {
    let mut line = "#".to_owned();
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described_and_no_other() {
        let keys = Config::keys();
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        assert_eq!(names, TEXTS.map(|(name, ..)| name));
        for key in keys {
            assert!(
                !key.kind.is_empty() && key.text.ends_with('.'),
                "{}",
                key.name
            );
        }
    }

    /// After a change of the table: `apifence config --example > deploy/apifence.toml`.
    #[test]
    fn the_file_in_deploy_is_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/apifence.toml");
        let Ok(text) = std::fs::read_to_string(path) else {
            // The packaged crate is without it.
            return;
        };
        assert_eq!(text, Config::example());
    }

    #[test]
    fn the_example_changes_nothing_and_is_valid_once_uncommented() {
        let text = Config::example();
        let mut config = Config::default();
        assert_eq!(config.read_file("f", &text), []);
        assert!(config.rows().iter().all(|row| row.source == "default"));
        // A comment has a space after its sign, and a setting has none.
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => "",
        });
        let lines: Vec<&str> = lines.collect();
        let mut config = Config::default();
        assert_eq!(config.read_file("f", &lines.join("\n")), []);
        assert!(config.rows().iter().all(|row| row.source == "file"));
        let defaults = Config::default().rows();
        for (row, default) in config.rows().into_iter().zip(defaults) {
            let is_table = FILE_ONLY.contains(&row.key);
            assert!(is_table || row.value == default.value, "{}", row.key);
        }
    }
}
