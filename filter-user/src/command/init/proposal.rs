//! What `init` proposes, as a config file and a list with the origin of each line.

use std::{fmt::Write as _, fs};

use jiff::Timestamp;

use crate::{
    config::join,
    survey::{Client, ClientKind, NetworkInterface, Survey},
    ui::visible::{is_hidden, visible_in_line},
};

/// A value, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) value: String,
    why: String,
    /// Whether it is set, or only shown as a comment.
    pub(super) is_set: bool,
}

impl Row {
    pub(super) fn new(
        value: &(impl ToString + ?Sized),
        why: impl Into<String>,
        is_set: bool,
    ) -> Self {
        Self {
            value: value.to_string(),
            // Names of programs and devices can hold any byte, and a comment is one line.
            why: visible_in_line(&why.into()).into_owned(),
            is_set,
        }
    }
}

/// How many clients are named: anyone can be one of many.
const MAX_CLIENTS: usize = 50;

/// The settings and the list.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) ports: Vec<Row>,
    pub(super) interfaces: Vec<Row>,
    pub(super) cluster: Vec<Row>,
    pub(super) ranges: Vec<Row>,
}

impl Proposal {
    /// What follows from the facts.
    pub(super) fn new(survey: &Survey) -> Self {
        let ports = survey.ports.iter();
        let interfaces = survey.interfaces.iter();
        let networks = survey.networks().into_iter();
        let mut ranges = Vec::new();
        if let Some(ssh) = survey.ssh {
            ranges.push(Row::new(&ssh, "the address of this SSH session", true));
        }
        let clients = survey.clients.iter().filter(|client| is_unknown(client));
        ranges.extend(
            clients
                .filter(|client| survey.ssh != Some(client.address))
                .map(|client| {
                    let is_set = client.kind == ClientKind::Administrator;
                    Row::new(&client.address, connected(client), is_set)
                }),
        );
        Self {
            ports: ports
                .map(|port| Row::new(&port.port, port.why.join("; "), true))
                .collect(),
            interfaces: interfaces
                .map(|one| Row::new(&one.name, after_name(one), one.can_be_guarded()))
                .collect(),
            cluster: networks
                .map(|network| Row::new(&network.value, network.why, network.is_proposed))
                .collect(),
            ranges,
        }
    }

    /// The text of the config file.
    pub(super) fn config(&self, survey: &Survey) -> String {
        let mut text = heading("Settings of apifence", survey);
        text.push_str("# `apifence config` shows all settings and their sources.\n\n");
        text.push_str("# TCP ports of the API server.\n");
        array(&mut text, "ports", &self.ports, false, false);
        // Without the setting, interfaces are known by their default routes at any time.
        let is_default = self.interfaces.iter().all(|row| {
            let mut own = survey.interfaces.iter();
            own.any(|one| one.name == row.value && one.is_default == row.is_set)
        });
        text.push_str(if is_default {
            "\n# Interfaces. The default is the interfaces with a default route.\n"
        } else {
            "\n# Interfaces through which other machines reach these ports.\n"
        });
        array(&mut text, "interfaces", &self.interfaces, true, is_default);
        text.push_str(
            "\n# Networks of the cluster: nodes, pods, health probes. They are allowed in addition to the list.\n\
             # A node that is neither here nor in the list loses the API server and becomes `NotReady`.\n",
        );
        array(&mut text, "cluster_cidrs", &self.cluster, true, false);
        text.push_str(&guard(survey));
        text
    }

    /// The text of the ranges file.
    pub(super) fn ranges(&self, survey: &Survey) -> String {
        let mut text = heading(
            "Authorized ranges, in addition to the cluster's networks",
            survey,
        );
        text.push_str("# One entry on each line: CIDR [expires=TIME] [# comment]\n\n");
        let (set, others): (Vec<&Row>, Vec<&Row>) = self.ranges.iter().partition(|row| row.is_set);
        if set.is_empty() {
            text.push_str(
                "0.0.0.0/32 # no entry yet; the first `apifence ranges add` replaces this line\n",
            );
        }
        for row in set {
            let _ = writeln!(text, "{} # {}", row.value, row.why);
        }
        if !others.is_empty() {
            text.push_str("\n# Clients that were connected during `init`. Delete the first `#` of those that you know.\n");
        }
        for row in others.iter().take(MAX_CLIENTS) {
            let _ = writeln!(text, "# {} # {}", row.value, row.why);
        }
        if let Some(more @ 1..) = others.len().checked_sub(MAX_CLIENTS) {
            let _ = writeln!(
                text,
                "# {more} more: `apifence suggest` groups them into ranges"
            );
        }
        text
    }
}

/// A guard of etcd's ports, as a comment: the list that it names has to be there first.
fn guard(survey: &Survey) -> String {
    const ETCD: [u16; 2] = [2379, 2380];
    let listening = &survey.servers.listening;
    let listener = ETCD.iter().find_map(|port| listening.get(port));
    let listener = listener.map(|etcd| format!("`{}` (pid {})", etcd.program, etcd.pid));
    let Some(etcd) = listener.or_else(|| survey.control_plane.etcd.clone()) else {
        return String::new();
    };
    let members = survey
        .peers
        .iter()
        .filter(|(_, role)| **role == "etcd peer");
    let members = join(members.map(|(member, _)| member));
    let members = if members.is_empty() {
        "CIDR,..."
    } else {
        &members
    };
    let etcd = etcd.replace(char::is_control, "?");
    format!(
        "\n# etcd also runs on this node ({etcd}). To give its ports their own list, first run\n\
         # `apifence ranges set --list control-plane {members}`, then use these lines:\n\
         # [[guard]]\n# ports = [2379, 2380]\n# lists = [\"control-plane\"]\n"
    )
}

fn heading(what: &str, survey: &Survey) -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kind = survey.control_plane.distribution;
    let kind = kind.map_or_else(String::new, |kind| format!(" ({kind})"));
    let now = format!("{:.0}", Timestamp::now());
    let name = visible_in_line(name.trim());
    format!("# {what}, written by `apifence init` on {name}{kind}, {now}.\n")
}

/// Writes the array `key`. Texts are quoted, numbers are not. If `is_comment`, all of it is.
fn array(text: &mut String, key: &str, rows: &[Row], is_text: bool, is_comment: bool) {
    let mark = if is_comment { "# " } else { "" };
    if rows.is_empty() {
        let _ = writeln!(text, "{mark}{key} = []");
        return;
    }
    let _ = writeln!(text, "{mark}{key} = [");
    for row in rows {
        let value = if is_text {
            quoted(&row.value)
        } else {
            row.value.clone()
        };
        let off = if row.is_set || is_comment { "" } else { "# " };
        let _ = writeln!(text, "{mark}    {off}{value}, # {}", row.why);
    }
    let _ = writeln!(text, "{mark}]");
}

/// `text` as a string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        if is_hidden(letter) {
            let _ = write!(quoted, "\\U{:08x}", u32::from(letter));
            continue;
        }
        if ['"', '\\'].contains(&letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted + "\""
}

/// Whether a client is for the list, since neither its address nor its network says what it is.
const fn is_unknown(client: &Client) -> bool {
    matches!(
        client.kind,
        ClientKind::Administrator | ClientKind::Private | ClientKind::Public
    )
}

fn connected(client: &Client) -> String {
    let plural = if client.connections == 1 { "" } else { "s" };
    format!(
        "{} connection{plural} now: {}",
        client.connections, client.why
    )
}

fn after_name(interface: &NetworkInterface) -> String {
    let line = interface.line();
    line.split_once(": ")
        .map_or(line.clone(), |(_, rest)| rest.to_owned())
}

/// The first of many names, and the number of the others.
fn some_of(names: &[String]) -> String {
    const MAX_SHOWN: usize = 5;
    let shown = join(names.iter().take(MAX_SHOWN));
    match names.len().saturating_sub(MAX_SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

/// What was found, in lines for people.
pub(super) fn facts(survey: &Survey) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |what: &str, texts: Vec<String>| {
        for (place, text) in texts.into_iter().enumerate() {
            let what = if place == 0 { what } else { "" };
            lines.push(format!("{what:<15}{}", visible_in_line(&text)));
        }
    };
    let kind = survey.control_plane.distribution.unwrap_or("none found");
    let kubelet = survey.kubelet.as_ref();
    let kubelet = kubelet.map_or_else(String::new, |kubelet| format!("; kubelet: {kubelet}"));
    add("control plane", vec![format!("{kind}{kubelet}")]);
    let ports = survey.ports.iter();
    add(
        "ports",
        ports
            .map(|port| format!("{}: {}", port.port, port.why.join("; ")))
            .collect(),
    );
    let addresses = survey.control_plane.addresses.iter();
    add(
        "addresses",
        addresses
            .map(|(address, from)| format!("{address}: {from}"))
            .collect(),
    );
    let interfaces = survey.interfaces.iter();
    add(
        "interfaces",
        interfaces.map(NetworkInterface::line).collect(),
    );
    let devices = survey.pod_devices.iter();
    add(
        "pod devices",
        devices
            .map(|(kind, names)| format!("{kind}: {}", some_of(names)))
            .collect(),
    );
    let cidr = |cidr: &crate::cluster::Cidr| format!("{}: {}", cidr.range, cidr.from);
    add("pods", survey.pods.iter().map(cidr).collect());
    add("services", survey.services.iter().map(cidr).collect());
    if let Some((cloud, file)) = &survey.cloud {
        add("cloud", vec![format!("{cloud:?} ({file})")]);
    }
    let clients = survey.clients.iter();
    let more = clients.len().checked_sub(MAX_CLIENTS);
    let shown = clients.take(MAX_CLIENTS);
    let shown = shown.map(|client| format!("{}: {}", client.address, connected(client)));
    let more = more.filter(|more| *more > 0);
    let more = more.map(|more| format!("{more} more"));
    add("clients", shown.chain(more).collect());
    add("note", survey.notes.clone());
    lines
}
