//! The impact of a change: the connections that it cuts, and their owners.

mod before;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::resume_unwind,
    thread,
};

use anyhow::{Context as _, Result};
use filter_common::Mode;
use jiff::Timestamp;
use serde::Serialize;

use self::{
    before::{PreviousPolicy, guards},
    seen::{SocketFacts, filtered_connections},
};
use super::{
    first::{Obstacle, obstacle, unreadable_nat},
    words::first_lines,
};
use crate::{
    clock::Clocks,
    cluster::{Nodes, administrators},
    config::{Guard, named},
    context::Context,
    kernel::{
        bpf::Maps,
        net::sock_diag::{Connection, TcpSocket, open, ssh_client_address},
        routes::Paths,
    },
    policy::Policy,
    ranges::{Entry, List, ListName},
    ui::error::UserError,
};

/// The effect of a change on open connections.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Impact {
    /// Connections to the protected ports that stop at their next packet.
    cut: Vec<Cut>,
    /// How many connections stay.
    kept: usize,
    /// The guards of their ports; `None` for ports without one.
    #[serde(skip)]
    kept_by: BTreeSet<Option<usize>>,
    /// The address of this SSH session; null if the change does not block it.
    shuts_out: Option<IpAddr>,
    /// Other addresses with an SSH session on this node that the change blocks.
    administrators: Vec<IpAddr>,
    /// Why the connections are unknown; null if they are known.
    unknown: Option<String>,
    /// Which connections cannot be seen, in words; null if all can be seen.
    unseen: Option<String>,
    /// The note about an unreadable NAT table; missing without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
    /// The reason against the first enforcement.
    #[serde(skip)]
    obstacle: Option<Obstacle>,
    /// Whether SSH is filtered, too.
    #[serde(skip)]
    filters_ssh: bool,
}

/// A connection that stops at its next packet.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Cut {
    #[serde(flatten)]
    connection: Connection,
    /// What the client is.
    kind: Kind,
    /// The evidence for `kind`, in words; null without any.
    why: Option<String>,
    /// Why the client may be gone, in words; null if it is there. Such a connection does not block
    /// a change.
    doubt: Option<&'static str>,
    /// The guard of its port; missing if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
    /// The number of the guard.
    #[serde(skip)]
    number: Option<usize>,
}

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A node of the cluster.
    ClusterNode,
    /// An address with an SSH session on this node.
    SshOrigin,
    /// Any other client.
    Client,
}

/// Examines the connections of this node and the address of this SSH session. `guarded` are the
/// interfaces that the filter will be on; `maps` hold the policy in force, if there is one.
pub(crate) fn assess(
    context: &Context,
    maps: Option<&Maps>,
    policy: &Policy,
    guarded: &BTreeSet<u32>,
) -> Result<Impact> {
    let now = Clocks::now()?;
    // Finding the SSH client takes as long as all other steps together.
    let origin = thread::Builder::new()
        .spawn(ssh_client_address)
        .context("start thread")?;
    let mut comparison = Comparison {
        before: PreviousPolicy::new(context, maps, now)?,
        policy,
        guarded,
        paths: Paths::new()?,
        wall: now.wall,
    };
    let enforced = comparison.before.enforced();
    let mut impact = Impact {
        obstacle: obstacle(context, policy, guarded, enforced.as_ref())?,
        unread: unreadable_nat(context, policy, enforced.as_ref()),
        filters_ssh: policy.settings.protects(SSH),
        ..Impact::default()
    };
    let sockets = open().unwrap_or_else(|error| {
        impact.unknown = Some(format!("{error:#}"));
        Vec::new()
    });
    let cut = comparison.cut(&sockets, &mut impact)?;
    let origin = origin.join().unwrap_or_else(|panic| resume_unwind(panic));
    let mut shut_out = comparison.shut_out(&sockets, origin)?;
    impact.shuts_out = origin.filter(|client| shut_out.remove(client));
    if !shut_out.is_empty() {
        let administrators = administrators(&sockets);
        impact.administrators = shut_out.intersection(&administrators).copied().collect();
    }
    if !cut.is_empty() {
        impact.cut = describe_cut(context, cut, &sockets, &comparison.before, policy, origin)?;
    }
    Ok(impact)
}

/// A new policy, and the state before it.
struct Comparison<'a> {
    before: PreviousPolicy<'a>,
    policy: &'a Policy,
    /// The interfaces that the filter will be on.
    guarded: &'a BTreeSet<u32>,
    paths: Paths,
    wall: Timestamp,
}

impl Comparison<'_> {
    /// Whether the new policy drops packets from `client` to `port`, which it protects.
    fn drops(&self, client: IpAddr, port: u16) -> bool {
        let sources = self.policy.sources_at(port);
        self.policy.mode() == Mode::Enforce && !sources.authorize(client, self.wall)
    }

    /// A port of each kind that an administrator may need: those of the API server, those that were
    /// protected before, and SSH. Ports of one kind have the same sources now, and had before.
    /// Other ports of guards are closed to administrators on purpose.
    fn needed(&self) -> Vec<u16> {
        let (now, before) = (&self.policy.settings, self.before.settings.as_ref());
        let was_protected = |port| before.is_some_and(|before| before.protects(port));
        let is_needed =
            |port: &u16| *port == SSH || now.ports.contains(port) || was_protected(*port);
        let ports = now.protected().into_iter().filter(is_needed);
        let kind = |port| {
            let guard = before.map(|before| before.guard_of(port));
            (now.guard_of(port), was_protected(port), guard)
        };
        let kinds: BTreeMap<_, u16> = ports.map(|port| (kind(port), port)).collect();
        kinds.into_values().collect()
    }

    /// The connections that are cut; those that stay are counted in `impact`.
    fn cut(
        &mut self,
        sockets: &[TcpSocket],
        impact: &mut Impact,
    ) -> Result<Vec<(Connection, Option<&'static str>)>> {
        let settings = &self.policy.settings;
        let seen = filtered_connections(sockets, self.policy, &self.paths, &mut impact.unseen);
        let mut cut = Vec::new();
        for (connection, SocketFacts { bound, doubt }) in seen {
            let (client, local) = (connection.remote.ip(), connection.local);
            // Traffic of the node to itself never passes the filter.
            if !settings.protects(local.port()) || self.paths.is_own(client) {
                continue;
            }
            let route = match bound {
                0 => self.paths.to(client, Some(local.ip())),
                bound => Some(bound),
            };
            if !self.paths.is_guarded(route, self.guarded) {
                continue;
            }
            if !(self.drops(client, local.port()) && guards(&settings.destinations, local.ip())) {
                if doubt.is_none() {
                    impact.kept += 1;
                    impact.kept_by.insert(settings.guard_of(local.port()));
                }
                continue;
            }
            let was_guarded = self.paths.is_guarded(route, &self.before.guarded);
            if self.before.passes(&connection, was_guarded)? {
                cut.push((connection, doubt));
            }
        }
        Ok(cut)
    }

    /// The connected clients, and `origin`, that the new policy blocks and the old one did not.
    fn shut_out(
        &mut self,
        sockets: &[TcpSocket],
        origin: Option<IpAddr>,
    ) -> Result<BTreeSet<IpAddr>> {
        // The route to a link-local address is unknown without its interface.
        let connected = sockets.iter().map(|socket| {
            let bound = Some(socket.interface).filter(|bound| *bound != 0);
            (socket.connection.remote.ip(), bound)
        });
        let origin = origin.into_iter().map(|client| (client, None));
        let clients: BTreeMap<IpAddr, Option<u32>> = origin.chain(connected).collect();
        let (mut shut_out, needed) = (BTreeSet::new(), self.needed());
        for (client, bound) in clients {
            let mut dropped = needed.clone();
            dropped.retain(|port| self.drops(client, *port));
            if self.paths.is_own(client) || dropped.is_empty() {
                continue;
            }
            let route = match bound {
                None => self.paths.to(client, None),
                bound => bound,
            };
            let mut was_open = !self.paths.is_guarded(route, &self.before.guarded);
            for port in dropped {
                was_open = was_open || self.before.passes_anywhere(client, port, self.policy)?;
            }
            if was_open && self.paths.is_guarded(route, self.guarded) {
                shut_out.insert(client);
            }
        }
        Ok(shut_out)
    }
}

const SSH: u16 = 22;

/// The connections that are cut, each with its owner.
fn describe_cut(
    context: &Context,
    cut: Vec<(Connection, Option<&'static str>)>,
    sockets: &[TcpSocket],
    before: &PreviousPolicy<'_>,
    policy: &Policy,
    origin: Option<IpAddr>,
) -> Result<Vec<Cut>> {
    let settings = &policy.settings;
    let (mut ports, mut cluster) = (settings.ports.clone(), settings.cluster.clone());
    if let Some(have) = &before.settings {
        ports.extend(&have.ports);
        cluster.extend(&have.cluster);
    }
    let files = context.read_cluster(ListName::all_of_cluster()).lists;
    let nodes = Nodes::gather(sockets, &ports, &cluster, &files)?;
    // The files hold the list in force, unless they were edited since.
    let list = context.read_lists();
    let list = list.map_or(List::Off, |read| read.lists.union());
    let named = cut.into_iter().map(|(connection, doubt)| {
        let client = connection.remote.ip();
        let (kind, why) = match nodes.why(client) {
            Some(why) => (Kind::ClusterNode, Some(why)),
            None if origin == Some(client) => (Kind::SshOrigin, None),
            None => (Kind::Client, listed_as(list.entries(), client)),
        };
        let number = settings.guard_of(connection.local.port());
        Cut {
            connection,
            kind,
            why,
            doubt,
            guard: number.map(|number| settings.guards[number].clone()),
            number,
        }
    });
    Ok(named.collect())
}

/// The longest entry that contains `client`, in words.
fn listed_as(entries: &[Entry], client: IpAddr) -> Option<String> {
    let around = entries.iter().filter(|entry| entry.range.contains(&client));
    let entry = around.max_by_key(|entry| entry.range.prefix_len())?;
    let comment = entry
        .comment
        .as_ref()
        .map(|comment| format!(" ({comment})"));
    Some(format!(
        "listed as {}{}",
        entry.range,
        comment.unwrap_or_default()
    ))
}

impl Impact {
    /// The report, one line each; `would`: the change is not made.
    pub(crate) fn lines(&self, would: bool) -> Vec<String> {
        let (are_cut, loses) = match would {
            true => ("would be cut", "would lose"),
            false => ("are cut", "loses"),
        };
        let mut lines = Vec::new();
        if let Some(why) = &self.unknown {
            lines.push(format!(
                "warning: the connections that this {} are unknown: {why}",
                if would { "would cut" } else { "cuts" }
            ));
        }
        if !self.cut.is_empty() {
            let named = self.cut.iter().map(Cut::line);
            lines.push(format!(
                "warning: {} of {} established connections {are_cut} at their next packet:",
                self.cut.len(),
                self.cut.len() + self.kept
            ));
            lines.extend(first_lines(named, self.cut.len()));
        }
        let notes = self.unseen.iter().chain(&self.unread);
        lines.extend(notes.map(|note| format!("note: {note}")));
        let shut_out = |client: &IpAddr, role: &str| {
            format!(
                "warning: {client}, {role}, {loses} the protected ports{}",
                self.ssh_note()
            )
        };
        let origin = self.shuts_out.iter();
        lines.extend(origin.map(|client| shut_out(client, "the address of your SSH session")));
        let others = self.administrators.iter();
        lines.extend(others.map(|client| shut_out(client, "with an SSH session on this node")));
        lines
    }

    const fn ssh_note(&self) -> &'static str {
        if self.filters_ssh {
            ""
        } else {
            " (SSH itself is not filtered)"
        }
    }

    /// Why `run` must not make the change unasked: it cuts cluster nodes, or blocks an
    /// administrator of this node. All other sources are blocked on purpose.
    pub(crate) fn lockout(&self) -> Option<String> {
        self.nodes().or_else(|| {
            let mut shut_out = self.shuts_out.iter().chain(&self.administrators);
            let first = shut_out.next()?;
            Some(format!(
                "{first}{}, with an SSH session on this node, would lose the API server",
                more(shut_out.count())
            ))
        })
    }

    /// The cut connections whose client is certainly there.
    fn open(&self) -> impl Iterator<Item = &Cut> {
        self.cut.iter().filter(|cut| cut.doubt.is_none())
    }

    /// The cluster nodes that are cut, in words.
    fn nodes(&self) -> Option<String> {
        let cut = self.open().filter(|cut| cut.kind == Kind::ClusterNode);
        let nodes: BTreeMap<IpAddr, Option<&String>> = cut
            .map(|cut| (cut.connection.remote.ip(), cut.why.as_ref()))
            .collect();
        let (first, why) = nodes.first_key_value()?;
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        Some(match nodes.len() - 1 {
            0 => format!("{first}, a cluster node{why}, would lose the API server"),
            others => format!(
                "{first}{}, cluster nodes{why}, would lose the API server",
                more(others)
            ),
        })
    }

    /// Refuses a change that cuts cluster nodes, the operator or every client, unless it is forced.
    pub(crate) fn refuse_harm(&self, force: bool) -> Result<()> {
        if let Some(obstacle) = self.obstacle.as_ref().filter(|_| !force) {
            return Err(obstacle.refusal());
        }
        const MEANT: &str = "or use `--force`, with `--confirm-within 60s` so that the change reverts by itself; nothing changed";
        let origin = self.shuts_out.map(|client| {
            format!(
                "{client}, the address of your SSH session, would lose the API server{}",
                self.ssh_note()
            )
        });
        let nodes = || self.nodes();
        let is_node = origin.is_none();
        match origin.or_else(nodes).or_else(|| self.everyone()) {
            Some(cause) if !force => {
                let guards: BTreeSet<&Guard> =
                    self.open().filter_map(|cut| cut.guard.as_ref()).collect();
                let lists = guards.first().map(|guard| named(&guard.lists));
                let hint = match lists {
                    Some(lists) => format!("add it to the {lists}; {MEANT}"),
                    None if is_node && self.nodes().is_some() => {
                        format!("add it to the list, or to `cluster_cidrs`; {MEANT}")
                    }
                    None => format!("add it to the list; {MEANT}"),
                };
                Err(UserError::refused(cause, hint, Vec::new()))
            }
            _ => Ok(()),
        }
    }

    /// The ports that lose every established client, in words: those without a guard, or those of
    /// one.
    fn everyone(&self) -> Option<String> {
        let lost = |cut: &&Cut| !self.kept_by.contains(&cut.number);
        let first = self.open().find(lost)?;
        let count = self.open().filter(|cut| cut.number == first.number).count();
        let at = first
            .guard
            .as_ref()
            .map(|guard| format!(" to {}", guard.ports()));
        let at = at.unwrap_or_default();
        Some(match count {
            1 => format!("the only connection{at} would be cut"),
            count => format!("all {count} connections{at} would be cut"),
        })
    }
}

/// ` and 2 more`, or nothing.
fn more(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" and {count} more"),
    }
}

impl Cut {
    fn line(&self) -> String {
        let Connection { remote, local } = self.connection;
        let why = self.why.as_deref();
        let doubt = self.doubt.map(|doubt| format!(", {doubt}"));
        let doubt = doubt.unwrap_or_default();
        let owner = match (self.kind, why) {
            (Kind::ClusterNode, why) => {
                format!(": cluster node ({})", why.unwrap_or_default())
            }
            (Kind::SshOrigin, _) => ": your SSH session".to_owned(),
            (Kind::Client, Some(why)) => format!(": {why}"),
            (Kind::Client, None) => String::new(),
        };
        let guard = self.guard.as_ref();
        let guard = guard.map(|guard| format!(", port of the {}", named(&guard.lists)));
        let guard = guard.unwrap_or_default();
        format!("  {remote} -> {local}{owner}{doubt}{guard}")
    }
}
