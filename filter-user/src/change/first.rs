//! Checks before traffic is dropped for the first time: the cluster must keep working.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use anyhow::Result;
use filter_common::Mode;
use ipnet::IpNet;

use crate::{
    clock::Clocks,
    cluster::{
        Cidr, ControlPlane, ForeignListener, HAPROXY, Root, foreign, kubelet, own_subnets, peers,
        pod_cidrs,
    },
    config::{self, ClusterCidr, DEFAULT_PORTS, PolicyMode, Settings},
    context::Context,
    kernel::{
        nat::{Diversion, Query, diverted, legacy},
        net::{
            rtnetlink::{self, is_link_local},
            sock_diag::{listeners, listening_ports, open},
        },
        routes::Paths,
    },
    policy::Policy,
    store::PolicyStore,
    ui::error::UserError,
};

/// What this node shows about its cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterFacts {
    /// The evidence for a kubelet, in words.
    kubelet: Option<String>,
    pods: Vec<Cidr>,
    subnets: Vec<IpNet>,
    peers: Vec<(IpAddr, &'static str)>,
}

impl ClusterFacts {
    /// Collects the facts if there is a kubelet. `ports` are those of the API server.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub(crate) fn gather(ports: &BTreeSet<u16>) -> Result<Self> {
        let root = Root::default();
        let kubelet = kubelet(&root);
        if kubelet.is_none() {
            return Ok(Self::default());
        }
        let own: BTreeSet<IpAddr> = rtnetlink::addresses()?
            .into_iter()
            .map(|(_, own)| own)
            .collect();
        // Without the kernel's list of connections the peers are unknown.
        let (sockets, listening) = (open(), listening_ports(&listeners().unwrap_or_default()));
        let peers = peers(&root, &sockets.unwrap_or_default(), ports, &listening).into_iter();
        Ok(Self {
            kubelet,
            pods: pod_cidrs(&root),
            subnets: own_subnets()?,
            peers: peers.filter(|(peer, _)| !own.contains(peer)).collect(),
        })
    }

    /// The CIDRs to authorize, in order, without those inside another one.
    fn cidrs(&self) -> Vec<IpNet> {
        let pods = self.pods.iter().map(|cidr| cidr.range);
        let peers = self.peers.iter().map(|(peer, _)| IpNet::from(*peer));
        let all: Vec<IpNet> = pods
            .chain(self.subnets.iter().copied())
            .chain(peers)
            .collect();
        let mut cidrs: Vec<IpNet> = Vec::new();
        for (place, cidr) in all.iter().enumerate() {
            let around = |(other_place, other): (usize, &IpNet)| {
                other.contains(cidr) && (other != cidr || other_place < place)
            };
            if !all.iter().enumerate().any(around) {
                cidrs.push(*cidr);
            }
        }
        cidrs
    }

    /// The facts for an operator, with a heading.
    fn details(&self) -> Vec<String> {
        let mut details = self.lines();
        if !details.is_empty() {
            details.insert(0, "found on this node:".to_owned());
        }
        details
    }

    /// The facts, one line each.
    fn lines(&self) -> Vec<String> {
        let line = |range: &dyn fmt::Display, what: &str| format!("  {range}: {what}");
        let pods = self.pods.iter();
        let mut lines: Vec<String> = pods
            .map(|cidr| line(&cidr.range, &format!("pods ({})", cidr.from)))
            .collect();
        lines.extend(self.subnets.iter().map(|subnet| line(subnet, "own subnet")));
        lines.extend(self.peers.iter().map(|(peer, what)| line(peer, what)));
        lines
    }
}

/// Why dropping should not start yet, unless the operator forces it.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    /// The danger.
    pub(crate) cause: String,
    /// The setting that removes the doubt.
    setting: String,
    /// When `--force` is right.
    meant: &'static str,
    details: Vec<String>,
}

impl Obstacle {
    /// The refusal of a command.
    pub(crate) fn refusal(&self) -> anyhow::Error {
        let details = self.details.clone();
        let Self {
            cause,
            setting,
            meant,
            ..
        } = self;
        let hint = format!("{setting}; use `--force` if {meant}; nothing changed");
        UserError::refused(cause, hint, details)
    }

    /// The message of `run`, which cannot ask an operator and monitors instead.
    pub(crate) fn fallback(&self) -> String {
        let Self {
            cause,
            setting,
            meant,
            ..
        } = self;
        format!(
            "monitor mode: nothing is dropped yet: {cause}; {setting}; or run `apifence enforce --force` if {meant}"
        )
    }
}

/// Checks the first enforcement on a cluster node. It needs `cluster_cidrs` with nodes or pods
/// (`knows_cluster`), or a list that authorizes all pod CIDRs and subnets that were found, at least
/// one of each. Without them other nodes and pods would lose the API server.
///
/// # Errors
/// The danger.
pub(crate) fn first_enforcement(
    found: &ClusterFacts,
    (settings, knows_cluster): (&Settings, bool),
    is_authorized: impl Fn(&IpNet) -> bool,
) -> Result<(), Obstacle> {
    let Some(kubelet) = &found.kubelet else {
        return Ok(());
    };
    let cidrs = found.cidrs();
    let is_complete = !found.pods.is_empty() && !found.subnets.is_empty();
    // A port with lists of its own is not open to `cluster_cidrs`.
    let closed = &settings.ports - &settings.unguarded_ports();
    let is_open = knows_cluster && closed.is_empty();
    if is_open || (is_complete && cidrs.iter().all(is_authorized)) {
        return Ok(());
    }
    let had = settings.cluster.iter().copied();
    let all: Vec<ClusterCidr> = had
        .chain(cidrs.iter().copied().map(ClusterCidr::Range))
        .collect();
    let join = |quote: &str, between: &str| {
        let each = all.iter().map(|cidr| format!("{quote}{cidr}{quote}"));
        each.collect::<Vec<_>>().join(between)
    };
    let lack = match &settings.cluster[..] {
        [] => "`cluster_cidrs` is not set".to_owned(),
        cluster => format!(
            "`cluster_cidrs` has no range of a node or pod yet ({})",
            config::join(cluster)
        ),
    };
    let setting = if !closed.is_empty() {
        format!(
            "add the CIDRs of nodes and pods ({}) to a list of the guard",
            join("", ", ")
        )
    } else if cidrs.is_empty() {
        "set `cluster_cidrs` to the CIDRs of nodes and pods (none found on this node)".to_owned()
    } else {
        format!(
            "set `cluster_cidrs = [{}]` in the config file, or use `--cluster-cidrs {}`",
            join("\"", ", "),
            join("", ",")
        )
    };
    let why = match closed.is_empty() {
        true => lack,
        false => format!(
            "TCP {} has its own lists, without `cluster_cidrs`",
            join_by(&closed, ", ")
        ),
    };
    Err(Obstacle {
        cause: format!(
            "other nodes and pods would lose the API server: this is a cluster node ({kubelet}), and {why}"
        ),
        setting,
        meant: "no node or pod reaches this port over the network",
        details: found.details(),
    })
}

/// Whether the ports that `policy` protects are the defaults, and not set by the operator.
fn uses_default_ports(context: &Context, policy: &Policy) -> bool {
    let mut rows = context.config.rows().into_iter();
    policy.settings.ports == BTreeSet::from(DEFAULT_PORTS)
        && !rows.any(|row| row.key == "ports" && row.source != "default")
}

/// Whether a port of `new_ports`, which `policy` protects, belongs to another program. `guarded`
/// are the interfaces with the filter.
fn foreign_port(
    context: &Context,
    paths: &Paths,
    new_ports: &BTreeSet<u16>,
    policy: &Policy,
    guarded: &BTreeSet<u32>,
) -> Option<Obstacle> {
    if new_ports.is_empty() {
        return None;
    }
    let found = foreign_claims(
        paths,
        new_ports,
        &policy.settings,
        !uses_default_ports(context, policy),
        guarded,
    );
    let ((_, first), more) = found.split_first()?;
    let others: BTreeSet<u16> = found.iter().map(|(port, _)| *port).collect();
    let rest = &policy.settings.unguarded_ports() - &others;
    Some(Obstacle {
        cause: format!("{first}; its clients would be dropped"),
        setting: if rest.is_empty() {
            "set the API server's port with `--port`".to_owned()
        } else {
            format!(
                "use `--port {}` to protect only the API server",
                join_ports(&rest)
            )
        },
        meant: "it forwards to the API server, or its clients are listed",
        details: more.iter().map(|(_, words)| words.clone()).collect(),
    })
}

/// Those of `new_ports`, which `settings` protect, that belong to another program or are rewritten
/// to another destination, each with the reason in words. `is_chosen`: the operator set the ports.
pub(crate) fn foreign_claims(
    paths: &Paths,
    new_ports: &BTreeSet<u16>,
    settings: &Settings,
    is_chosen: bool,
    guarded: &BTreeSet<u32>,
) -> Vec<(u16, String)> {
    let Settings { destinations, .. } = settings;
    let ports = &settings.protected();
    let is_guarded = |address: IpAddr| {
        !is_link_local(address)
            && (destinations.is_empty()
                || destinations.iter().any(|range| range.contains(&address)))
    };
    let own = paths.own();
    let targets: Vec<IpAddr> = own.iter().copied().filter(|own| is_guarded(*own)).collect();
    // Sockets that the kernel does not list count as absent. Listeners at other addresses are not
    // reachable over the network.
    let (mut listeners, connections) =
        (listeners().unwrap_or_default(), open().unwrap_or_default());
    listeners.retain(|listener| {
        let local = listener.connection.local.ip();
        local.is_unspecified() || targets.contains(&local)
    });
    // A guard names the port of another program on purpose.
    let api = settings.unguarded_ports();
    let new_api = &api & new_ports;
    let mut listened = foreign(&new_api, (&api, is_chosen), &listeners, &connections);
    if !listened.is_empty() {
        // A proxy without clients has no connection to the API server: its configuration tells.
        let proxies = ControlPlane::read(&Root::default()).proxies;
        listened.retain(|one| {
            one.program != HAPROXY || !proxies.iter().any(|proxy| proxy.port == one.port)
        });
    }
    let listened = listened
        .into_iter()
        .map(|ForeignListener { port, program, pid }| {
            let words = format!("`{program}` (pid {pid}) listens on TCP {port}");
            (port, words)
        });
    let diverted = diverted(&Query {
        candidates: new_ports,
        ports,
        own,
        targets,
        ingresses: paths.ingresses(guarded),
    });
    let diverted = diverted.into_iter().map(|Diversion { port, chain }| {
        let words = format!("nftables chain `{chain}` redirects TCP {port}");
        (port, words)
    });
    listened.chain(diverted).collect()
}

/// The ports as `--port` takes them.
fn join_ports(ports: &BTreeSet<u16>) -> String {
    join_by(ports, ",")
}

fn join_by(ports: &BTreeSet<u16>, between: &str) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(between)
}

/// The ports that `policy` starts to drop packets to. `enforced` are the ports of the policy in
/// force, or `None` if it drops nothing.
fn newly_enforced(
    context: &Context,
    policy: &Policy,
    enforced: Option<&BTreeSet<u16>>,
) -> BTreeSet<u16> {
    if policy.mode() != Mode::Enforce {
        return BTreeSet::new();
    }
    let ports = policy.settings.protected();
    if let Some(enforced) = enforced {
        return &ports - enforced;
    }
    let store = PolicyStore::new(&context.config.state_dir);
    if !store.has_enforced() {
        return ports;
    }
    // After a boot the saved policy counts as the one in force.
    let before = store.read().ok().flatten().map(|saved| saved.settings);
    let before = before.filter(|settings| settings.mode == PolicyMode::Enforce);
    let before = before.map_or_else(BTreeSet::new, |settings| settings.protected());
    &ports - &before
}

/// The reason against dropping under `policy`, if there is one. `guarded` are the interfaces with
/// the filter; `enforced` is as for [`newly_enforced`].
///
/// # Errors
/// If rtnetlink does not answer.
pub(crate) fn obstacle(
    context: &Context,
    policy: &Policy,
    guarded: &BTreeSet<u32>,
    enforced: Option<&BTreeSet<u16>>,
) -> Result<Option<Obstacle>> {
    if policy.mode() != Mode::Enforce {
        return Ok(None);
    }
    let new_ports = newly_enforced(context, policy, enforced);
    let paths = Paths::new()?;
    let elsewhere = foreign_port(context, &paths, &new_ports, policy, guarded);
    let store = PolicyStore::new(&context.config.state_dir);
    if elsewhere.is_some() || enforced.is_some() || store.has_enforced() {
        return Ok(elsewhere);
    }
    let found = ClusterFacts::gather(&policy.settings.ports)?;
    let now = Clocks::now()?.wall;
    let ports = &policy.settings.ports;
    let is_authorized = |range: &IpNet| {
        let mut sources = ports.iter().map(|port| policy.sources_at(*port));
        sources.all(|sources| sources.cover(range, now))
    };
    let knows_cluster = policy.settings.knows_cluster(&policy.cluster);
    let settings = (&policy.settings, knows_cluster);
    Ok(first_enforcement(&found, settings, is_authorized).err())
}

/// A note if an unreadable NAT table may redirect ports that `policy` starts to drop packets to.
/// `enforced` is as for [`newly_enforced`]. Ports that the operator set need no note.
pub(crate) fn unreadable_nat(
    context: &Context,
    policy: &Policy,
    enforced: Option<&BTreeSet<u16>>,
) -> Option<String> {
    let new_ports = newly_enforced(context, policy, enforced);
    let program = *legacy().first()?;
    (!new_ports.is_empty() && uses_default_ports(context, policy)).then(|| {
        format!(
            "apifence cannot read the table `nat` of {program}-legacy: if it redirects TCP {} (`{program}-legacy-save -t nat` shows it), leave that port out of `--port`",
            join_by(&new_ports, " or "),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> IpNet {
        text.parse().expect("a CIDR")
    }

    #[test]
    fn cidrs_inside_another_are_left_out() {
        let found = ClusterFacts {
            kubelet: Some("it".to_owned()),
            pods: vec![Cidr {
                range: cidr("10.0.0.0/8"),
                from: "a file".to_owned(),
            }],
            subnets: ["10.1.0.0/16", "192.0.2.0/24", "192.0.2.0/24"]
                .map(cidr)
                .to_vec(),
            peers: vec![
                (IpAddr::from([192, 0, 2, 30]), "etcd peer"),
                (IpAddr::from([203, 0, 113, 5]), "etcd peer"),
            ],
        };
        let want = ["10.0.0.0/8", "192.0.2.0/24", "203.0.113.5/32"].map(cidr);
        assert_eq!(found.cidrs(), want);
    }
}
