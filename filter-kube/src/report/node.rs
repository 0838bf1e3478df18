//! The status of this node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{ON_TRIAL, PENDING, condition, count_of};
use crate::{
    api::{Hook, NodeGuardStatus, NodeList},
    directory::{NODES, PODS},
    list::Wanted,
    node_state::NodeState,
    record::{Kept, Record},
};

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
        .and_then(|wanted| wanted.content.as_ref().as_ref().err());
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
            "sources outside the authorized ranges are dropped".to_owned(),
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
                "the filter is {}: run `apifence status` on the node",
                state.state
            );
            (Some(false), reason, message)
        }
    }
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
    if let Ok(NodeState {
        trial_until: Some(end),
        ..
    }) = present.state
    {
        // It would cut a node or an administrator, or a person on the node tries something.
        let message = format!(
            "a change is on trial until {end:.0}: `apifence status` on the node shows it, `apifence confirm` keeps it"
        );
        return (Some(false), ON_TRIAL.to_owned(), message);
    }
    let wrong: Vec<_> = lists.iter().filter(|list| !list.in_force).collect();
    let Some(first) = wrong.first() else {
        // The addresses of the cluster are carried, too.
        let state = present.state.as_ref().ok();
        let files = [NODES, PODS].into_iter();
        let mut files = files.filter_map(|name| Some((name, state?.list(name)?.fault.as_ref()?)));
        if let Some((name, fault)) = files.next() {
            // `apifence run` has not seen a file that was just made.
            let reason = match fault.contains("no such file") {
                true => "Pending",
                false => "Refused",
            };
            return (Some(false), reason.to_owned(), format!("{name}: {fault}"));
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
