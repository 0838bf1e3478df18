//! The impact of a change: the connections that it cuts, and their owners.

mod before;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    panic::resume_unwind,
    thread,
};

use anyhow::{Context as _, Result};
use filter_common::Mode;
use jiff::Timestamp;
use serde::Serialize;

use self::before::{PreviousPolicy, guards};
use super::{
    first::{Obstacle, obstacle, unreadable_nat},
    words::first_lines,
};
use crate::{
    clock::Clocks,
    cluster::{Nodes, administrators},
    config::Settings,
    context::Context,
    kernel::{
        bpf::Maps,
        nat::rewriters,
        net::{
            conntrack::{ConntrackEntry, tracked},
            sock_diag::{CLOSED, Connection, TcpSocket, open, ssh_client_address},
        },
        routes::Paths,
    },
    policy::Policy,
    ranges::{Entry, List, ListName},
    ui::error::UserError,
};

/// The effect of a change on open connections.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Impact {
    /// Connections to the protected ports that stop at their next packet.
    cut: Vec<Cut>,
    /// How many stay.
    kept: usize,
    /// The address of this SSH session, if the change blocks it.
    shuts_out: Option<IpAddr>,
    /// Other addresses with an SSH session on this node that the change blocks.
    administrators: Vec<IpAddr>,
    /// Why the connections are unknown.
    unknown: Option<String>,
    /// Which connections cannot be seen.
    unseen: Option<String>,
    /// The note about an unreadable NAT table.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
    /// The reason against the first enforcement.
    #[serde(skip)]
    obstacle: Option<Obstacle>,
    /// Whether SSH is filtered, too.
    #[serde(skip)]
    filters_ssh: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Cut {
    #[serde(flatten)]
    connection: Connection,
    kind: Kind,
    /// The evidence for `kind`, in words.
    why: Option<String>,
    /// Why the client may be gone. Such a connection does not block a change.
    doubt: Option<&'static str>,
}

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    ClusterNode,
    SshOrigin,
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
        obstacle: obstacle(context, policy, guarded, enforced)?,
        unread: unreadable_nat(context, policy, enforced),
        filters_ssh: policy.settings.ports.contains(&SSH),
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
    /// Whether the new policy drops packets from `client`.
    fn drops(&self, client: IpAddr) -> bool {
        self.policy.mode() == Mode::Enforce && !self.policy.sources().authorize(client, self.wall)
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
            if !settings.ports.contains(&local.port()) || self.paths.is_own(client) {
                continue;
            }
            let route = match bound {
                0 => self.paths.to(client, Some(local.ip())),
                bound => Some(bound),
            };
            if !self.paths.is_guarded(route, self.guarded) {
                continue;
            }
            if !(self.drops(client) && guards(&settings.destinations, local.ip())) {
                impact.kept += usize::from(doubt.is_none());
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
        let mut shut_out = BTreeSet::new();
        for (client, bound) in clients {
            if self.paths.is_own(client) || !self.drops(client) {
                continue;
            }
            let route = match bound {
                None => self.paths.to(client, None),
                bound => bound,
            };
            let was_open = !self.paths.is_guarded(route, &self.before.guarded)
                || self.before.passes_anywhere(client, self.policy)?;
            if was_open && self.paths.is_guarded(route, self.guarded) {
                shut_out.insert(client);
            }
        }
        Ok(shut_out)
    }
}

const SSH: u16 = 22;

/// Further facts about a connection.
struct SocketFacts {
    /// The ifindex that it is bound to, or 0.
    bound: u32,
    /// Why the client may be gone.
    doubt: Option<&'static str>,
}

/// The connections as the filter sees them, in order. For forwarded and for translated connections
/// the packet's addresses are those in connection tracking, not those of the socket.
fn filtered_connections(
    sockets: &[TcpSocket],
    policy: &Policy,
    paths: &Paths,
    unseen: &mut Option<String>,
) -> BTreeMap<Connection, SocketFacts> {
    let forwards = || {
        let files = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        let on = |file| fs::read_to_string(format!("/proc/sys/net/{file}"));
        files
            .iter()
            .any(|file| on(file).is_ok_and(|on| on.trim() != "0"))
    };
    // The table may be very long, so it is read only if connections can be cut.
    let wanted = policy.mode() == Mode::Enforce && (forwards() || !rewriters().is_empty());
    let tracked = match wanted.then(tracked) {
        None => Vec::new(),
        Some(Ok(tracked)) => tracked,
        Some(Err(_)) => {
            *unseen = Some(
                "forwarded connections (to pods, containers, guests) are not among them: the kernel does not tell which it tracks"
                    .to_owned(),
            );
            Vec::new()
        }
    };
    let rewritten = |tracked: &&ConntrackEntry| tracked.original != tracked.rewritten;
    let originals: BTreeMap<Connection, Connection> = tracked
        .iter()
        .filter(rewritten)
        .map(|tracked| (tracked.rewritten, tracked.original))
        .collect();
    let mut seen: BTreeMap<Connection, SocketFacts> = sockets
        .iter()
        .map(|socket| {
            let connection = socket.connection;
            let original = originals.get(&connection).copied();
            let found = SocketFacts {
                bound: socket.interface,
                doubt: socket.doubt(),
            };
            (original.unwrap_or(connection), found)
        })
        .collect();
    for tracked in tracked {
        // For a connection that ends on this node the sockets say more.
        if !paths.is_own(tracked.rewritten.local.ip()) {
            let doubt = tracked.is_half_closed.then_some(CLOSED);
            seen.entry(tracked.original)
                .or_insert(SocketFacts { bound: 0, doubt });
        }
    }
    seen
}

/// The connections that are cut, each with its owner.
fn describe_cut(
    context: &Context,
    cut: Vec<(Connection, Option<&'static str>)>,
    sockets: &[TcpSocket],
    before: &PreviousPolicy<'_>,
    policy: &Policy,
    origin: Option<IpAddr>,
) -> Result<Vec<Cut>> {
    let (mut ports, mut cluster) = (
        policy.settings.ports.clone(),
        policy.settings.cluster.clone(),
    );
    if let Some(Settings {
        ports: have_ports,
        cluster: have_cluster,
        ..
    }) = &before.settings
    {
        ports.extend(have_ports);
        cluster.extend(have_cluster);
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
        Cut {
            connection,
            kind,
            why,
            doubt,
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
        let (are_cut, is_shut_out) = match would {
            true => ("would be cut", "would be shut out"),
            false => ("are cut", "is shut out"),
        };
        let mut lines = Vec::new();
        if let Some(why) = &self.unknown {
            lines.push(format!(
                "warning: which connections this {} is unknown: {why}",
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
                "warning: {client}, {role}, {is_shut_out} from the protected ports{}",
                self.ssh_note()
            )
        };
        let origin = self.shuts_out.iter();
        lines.extend(origin.map(|client| shut_out(client, "where this shell came in from")));
        let others = self.administrators.iter();
        lines.extend(others.map(|client| shut_out(client, "logged in on this node by SSH")));
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
                "it shuts out {first}{}, logged in on this node by SSH",
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
            0 => format!("{first} is a node of the cluster{why}, and would lose the API server"),
            others => format!(
                "{first}{} are nodes of the cluster{why}, and would lose the API server",
                more(others)
            ),
        })
    }

    /// Refuses a change that cuts cluster nodes, the operator or every client, unless it is forced.
    pub(crate) fn refuse_harm(&self, force: bool) -> Result<()> {
        if let Some(obstacle) = self.obstacle.as_ref().filter(|_| !force) {
            return Err(obstacle.refusal());
        }
        const MEANT: &str = "`--force` if that is meant, with `--confirm-within 60s` so that it takes itself back; nothing changed";
        let origin = self.shuts_out.map(|client| {
            format!(
                "it shuts out {client}, where this shell came in from{}",
                self.ssh_note()
            )
        });
        let nodes = || self.nodes();
        let everyone = || {
            let count = self.open().count();
            (count > 0 && self.kept == 0)
                .then(|| format!("it cuts every established client (connections: {count})"))
        };
        let is_node = origin.is_none();
        match origin.or_else(nodes).or_else(everyone) {
            Some(cause) if !force => {
                let hint = if is_node && self.nodes().is_some() {
                    format!("add it to the list, or to `cluster_cidrs`; {MEANT}")
                } else {
                    format!("add it to the list; {MEANT}")
                };
                Err(UserError::refused(cause, hint, Vec::new()))
            }
            _ => Ok(()),
        }
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
            (Kind::SshOrigin, _) => ": where this shell came in from".to_owned(),
            (Kind::Client, Some(why)) => format!(": {why}"),
            (Kind::Client, None) => String::new(),
        };
        format!("  {remote} -> {local}{owner}{doubt}")
    }
}
