//! What the agents say in the API. Pure: from what is known to the status of the objects.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::{
    api::{
        AuthorizedRanges, AuthorizedRangesStatus, Condition, Hook, NodeCount, NodeGuard,
        NodeGuardStatus, NodeList,
    },
    directory::{NODES, PODS},
    list::{self, Wanted, selects},
    node_state::NodeState,
    record::{Kept, Record},
};

/// The labels of control-plane nodes, the present one and that before Kubernetes 1.24.
const CONTROL_PLANE: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// What the agent knows of this node.
pub struct Present<'a> {
    /// The name of the directory of the lists.
    pub directory: &'a str,
    /// The lists with files.
    pub records: &'a BTreeMap<String, Record>,
    /// Why lists are not as the API has them.
    pub kept: &'a BTreeMap<String, Kept>,
    /// The lists as the API has them.
    pub wanted: &'a BTreeMap<String, Wanted>,
    /// What `apifence run` says, or why it says nothing.
    pub state: &'a Result<NodeState, String>,
    /// The file of this agent that could not be written, with the cause.
    pub unwritten: Option<&'a str>,
}

/// What is said of a list that `apifence run` has not read yet.
const PENDING: &str = "written, not in force yet";

impl NodeList {
    /// Whether it only waits for `apifence run`.
    pub fn is_pending(&self) -> bool {
        self.message.as_deref() == Some(PENDING)
    }

    /// Why it is not in force.
    pub fn words(&self) -> &str {
        self.message
            .as_deref()
            .unwrap_or("an older generation is in force")
    }
}

/// A condition that keeps its time while its status is the same as in `before`.
fn condition(
    before: &[Condition],
    type_: &str,
    status: Option<bool>,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let same = before
        .iter()
        .find(|known| known.type_ == type_ && known.status == status)
        // It could not be read.
        .filter(|known| known.last_transition_time != Timestamp::default());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or(now, |known| known.last_transition_time),
        observed_generation: generation,
    }
}

/// The status of this node.
pub fn of_node(present: &Present<'_>, before: &NodeGuardStatus, now: Timestamp) -> NodeGuardStatus {
    let lists = lists(present);
    let state = present.state.as_ref();
    let (guarded, reason, message) = guarded(present.state);
    let (in_sync, why, what) = in_sync(present, &lists);
    NodeGuardStatus {
        state: state.map_or_else(|_| "unknown".to_owned(), |state| state.state.clone()),
        hooks: state.map_or_else(|_| Vec::new(), hooks),
        ports: state.map_or_else(|_| Vec::new(), |state| state.ports.clone()),
        ranges: lists.iter().map(|list| list.ranges - list.expired).sum(),
        lists,
        reported: before.reported,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        conditions: vec![
            condition(
                &before.conditions,
                "Guarded",
                guarded,
                &reason,
                message,
                None,
                now,
            ),
            condition(&before.conditions, "InSync", in_sync, &why, what, None, now),
        ],
    }
}

fn hooks(state: &NodeState) -> Vec<Hook> {
    let hooks = state.interfaces.iter().map(|interface| Hook {
        interface: interface.name.clone(),
        hook: match &interface.hook {
            Some(hook) if interface.guarded => hook.clone(),
            _ => "none".to_owned(),
        },
    });
    hooks.collect()
}

/// The lists on this node, those without files and without wishes left out.
fn lists(present: &Present<'_>) -> Vec<NodeList> {
    let with_file = present
        .records
        .iter()
        .filter(|(_, record)| record.has_file());
    let selected = present
        .wanted
        .iter()
        .filter(|(_, wanted)| wanted.is_selected == Some(true));
    let names: BTreeSet<&String> = with_file
        .map(|(name, _)| name)
        .chain(selected.map(|(name, _)| name))
        .collect();
    names
        .into_iter()
        .map(|name| one_list(present, name))
        .collect()
}

fn one_list(present: &Present<'_>, name: &str) -> NodeList {
    let record = present.records.get(name).filter(|record| record.has_file());
    let full = format!("{}.{name}", present.directory);
    let state = present.state.as_ref().ok();
    let known = state.and_then(|state| state.list(&full));
    let is_read = record.zip(known).is_some_and(|(record, known)| {
        known.fault.is_none() && known.sha256.as_deref() == Some(&record.sha256)
    });
    let refusal = present
        .wanted
        .get(name)
        .and_then(|wanted| wanted.content.as_ref().err());
    let kept = present.kept.get(name);
    let message = if let Some(kept) = kept {
        Some(kept.message())
    } else if let Some(refusal) = refusal {
        Some(refusal.message.clone())
    } else if let Some(fault) = known.and_then(|known| known.fault.clone()) {
        Some(fault)
    } else if is_read || state.is_none() {
        None
    } else {
        Some(PENDING.to_owned())
    };
    NodeList {
        name: name.to_owned(),
        generation: record.map_or(0, |record| record.written.generation),
        ranges: known.map_or(0, |known| known.ranges),
        expired: known.map_or(0, |known| known.expired),
        in_force: is_read && kept.is_none() && refusal.is_none(),
        message,
    }
}

fn guarded(state: &Result<NodeState, String>) -> (Option<bool>, String, String) {
    match state {
        Err(why) => (None, "RunDoesNotReport".to_owned(), why.clone()),
        Ok(state) if state.is_enforcing() => (
            Some(true),
            "Enforcing".to_owned(),
            "sources that are not listed are dropped".to_owned(),
        ),
        Ok(state) => {
            let mut reason: String = state
                .state
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect();
            if let Some(first) = reason.get_mut(..1) {
                first.make_ascii_uppercase();
            } else {
                "NotEnforcing".clone_into(&mut reason);
            }
            let message = format!(
                "the filter is {}: `apifence status` on the node",
                state.state
            );
            (Some(false), reason, message)
        }
    }
}

/// A number with its noun.
fn count_of(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The first lists that are not in sync, in one message.
fn in_sync(present: &Present<'_>, lists: &[NodeList]) -> (Option<bool>, String, String) {
    const SHOWN: usize = 3;
    if let Some(cause) = present.unwritten {
        return (Some(false), "WriteFailed".to_owned(), cause.to_owned());
    }
    if let Err(why) = present.state {
        return (None, "RunDoesNotReport".to_owned(), why.clone());
    }
    let wrong: Vec<_> = lists.iter().filter(|list| !list.in_force).collect();
    let Some(first) = wrong.first() else {
        // The addresses of the cluster are carried, too.
        let state = present.state.as_ref().ok();
        let files = [NODES, PODS].into_iter();
        let mut files = files.filter_map(|name| Some((name, state?.list(name)?.fault.as_ref()?)));
        if let Some((name, fault)) = files.next() {
            return (
                Some(false),
                "Refused".to_owned(),
                format!("{name}: {fault}"),
            );
        }
        let message = format!("{} in force", count_of(lists.len(), "list"));
        return (Some(true), "InSync".to_owned(), message);
    };
    let reason = match present.kept.get(&first.name) {
        Some(kept) => kept.reason(),
        None if first.is_pending() => "Pending",
        None => "Refused",
    };
    let words = wrong.iter().take(SHOWN);
    let words: Vec<_> = words
        .map(|list| format!("{}: {}", list.name, list.words()))
        .collect();
    let more = match wrong.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (Some(false), reason.to_owned(), words.join("; ") + &more)
}

/// The status of an object, by what all nodes report. `is_silent` says which node's agent has not
/// reported for a while.
pub fn of_object(
    object: &AuthorizedRanges,
    nodes: &[impl AsRef<Node>],
    guards: &[impl AsRef<NodeGuard>],
    is_silent: impl Fn(&str) -> bool,
    now: Timestamp,
) -> AuthorizedRangesStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let content = list::content(object);
    let guards: BTreeMap<String, &NodeGuard> = guards
        .iter()
        .map(|guard| (guard.as_ref().name_any(), guard.as_ref()))
        .collect();
    let selected = nodes.iter().map(AsRef::as_ref).filter(|node| {
        let is_guarded = guards.contains_key(&node.name_any());
        let is_control_plane = CONTROL_PLANE
            .iter()
            .any(|label| node.labels().contains_key(*label));
        (is_guarded || is_control_plane) && selects(&object.spec.node_selector, node.labels())
    });
    let selected: BTreeSet<String> = selected.map(ResourceExt::name_any).collect();
    let missing: Vec<_> = selected
        .iter()
        .filter_map(|node| {
            let guard = guards.get(node).copied();
            let why = not_programmed(object, guard, is_silent(node))?;
            Some(format!("{node}: {why}"))
        })
        .collect();
    let accepted = match &content {
        Ok(content) => condition(
            &before.conditions,
            "Accepted",
            Some(true),
            "Accepted",
            count_of(content.ranges, "range"),
            Some(generation),
            now,
        ),
        Err(refusal) => condition(
            &before.conditions,
            "Accepted",
            Some(false),
            refusal.reason,
            refusal.message.clone(),
            Some(generation),
            now,
        ),
    };
    let (programmed, reason, message) = match (&content, &missing[..]) {
        (Err(_), _) => (Some(false), "NotAccepted", "see Accepted".to_owned()),
        (_, _) if selected.is_empty() => (
            Some(false),
            "NoNodes",
            "the nodeSelector selects no node with an agent".to_owned(),
        ),
        (_, []) => (
            Some(true),
            "Programmed",
            format!("in force on {}", count_of(selected.len(), "node")),
        ),
        (_, missing) => (Some(false), "Pending", missing.join("; ")),
    };
    let programmed = condition(
        &before.conditions,
        "Programmed",
        programmed,
        reason,
        message,
        Some(generation),
        now,
    );
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let enforcing = selected.len() - missing.len();
    AuthorizedRangesStatus {
        observed_generation: generation,
        ranges: count(object.spec.ranges.len()),
        nodes: NodeCount {
            selected: count(selected.len()),
            programmed: count(enforcing),
            summary: format!("{enforcing}/{}", selected.len()),
        },
        conditions: vec![accepted, programmed],
    }
}

/// Why a node does not enforce the present generation of an object; `None` if it does.
fn not_programmed(
    object: &AuthorizedRanges,
    guard: Option<&NodeGuard>,
    is_silent: bool,
) -> Option<String> {
    let Some(status) = guard.and_then(|guard| guard.status.as_ref()) else {
        return Some("no agent reports".to_owned());
    };
    if is_silent {
        return Some("its agent has stopped reporting".to_owned());
    }
    let mut conditions = status.conditions.iter();
    match conditions.find(|known| known.type_ == "Guarded") {
        Some(guarded) if guarded.status == "True" => {}
        Some(guarded) => return Some(guarded.message.clone()),
        None => return Some("not guarded".to_owned()),
    }
    let name = object.name_any();
    let Some(list) = status.lists.iter().find(|list| list.name == name) else {
        return Some("not written yet".to_owned());
    };
    let is_present = Some(list.generation) == object.metadata.generation;
    match is_present && list.in_force {
        true => None,
        false => Some(list.words().to_owned()),
    }
}
