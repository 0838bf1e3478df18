//! The status of an object.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::{ON_TRIAL, condition, count_of};
use crate::{
    api::{AuthorizedRanges, AuthorizedRangesStatus, NodeCount, NodeGuard},
    list::{Outcome, selects},
};

/// The labels of control-plane nodes, the present one and that before Kubernetes 1.24.
pub(super) const CONTROL_PLANE: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// The status of an object with the file `content`, by what all nodes report. `is_silent` says
/// which node's agent has not reported for a while.
pub fn of_object(
    object: &AuthorizedRanges,
    content: &Outcome,
    nodes: &[impl AsRef<Node>],
    guards: &[impl AsRef<NodeGuard>],
    is_silent: impl Fn(&str) -> bool,
    now: Timestamp,
) -> AuthorizedRangesStatus {
    let before = object.status.clone().unwrap_or_default();
    let guards: BTreeMap<String, &NodeGuard> = guards
        .iter()
        .map(|guard| (guard.as_ref().name_any(), guard.as_ref()))
        .collect();
    let nodes = nodes.iter().map(AsRef::as_ref);
    let selected = selected(object, nodes, &guards);
    let missing: Vec<_> = selected
        .iter()
        .filter_map(|node| {
            let guard = guards.get(node).copied();
            let why = not_programmed(object, guard, is_silent(node))?;
            Some(format!("{node}: {why}"))
        })
        .collect();
    let generation = object.metadata.generation.unwrap_or_default();
    let say = |type_: &str, (status, reason, message): Said| {
        let known = &before.conditions;
        condition(
            known,
            type_,
            Some(status),
            reason,
            message,
            Some(generation),
            now,
        )
    };
    let conditions = vec![
        say("Accepted", accepted(content)),
        say("Programmed", programmed(content, selected.len(), &missing)),
    ];
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
        conditions,
    }
}

/// The status, the reason and the message of a condition.
type Said = (bool, &'static str, String);

/// The nodes that should have the object in force: those with an agent, and control planes without
/// one, for the port is open there.
fn selected<'a>(
    object: &AuthorizedRanges,
    nodes: impl Iterator<Item = &'a Node>,
    guards: &BTreeMap<String, &NodeGuard>,
) -> BTreeSet<String> {
    let selected = nodes.filter(|node| {
        let is_guarded = guards.contains_key(&node.name_any());
        let is_control_plane = CONTROL_PLANE
            .iter()
            .any(|label| node.labels().contains_key(*label));
        (is_guarded || is_control_plane) && selects(&object.spec.node_selector, node.labels())
    });
    selected.map(ResourceExt::name_any).collect()
}

fn accepted(content: &Outcome) -> Said {
    match content {
        Ok(content) => (true, "Accepted", count_of(content.ranges, "range")),
        Err(refusal) => (false, refusal.reason, refusal.message.clone()),
    }
}

fn programmed(content: &Outcome, selected: usize, missing: &[String]) -> Said {
    match (content, missing) {
        (Err(_), _) => (
            false,
            "NotAccepted",
            "see the condition Accepted".to_owned(),
        ),
        _ if selected == 0 => {
            let message = "the nodeSelector does not select any node with an agent".to_owned();
            (false, "NoNodes", message)
        }
        (_, []) => {
            let message = format!("in force on {}", count_of(selected, "node"));
            (true, "Programmed", message)
        }
        (_, missing) => (false, "Pending", missing.join("; ")),
    }
}

/// Why a node does not enforce the present generation of an object; `None` if it does.
fn not_programmed(
    object: &AuthorizedRanges,
    guard: Option<&NodeGuard>,
    is_silent: bool,
) -> Option<String> {
    let Some(status) = guard.and_then(|guard| guard.status.as_ref()) else {
        return Some("its agent does not report".to_owned());
    };
    if is_silent {
        return Some("its agent no longer reports".to_owned());
    }
    let condition = |type_: &str| status.conditions.iter().find(|known| known.type_ == type_);
    match condition("Guarded") {
        Some(guarded) if guarded.status == "True" => {}
        Some(guarded) => return Some(guarded.message.clone()),
        None => return Some("not guarded".to_owned()),
    }
    if let Some(trial) = condition("InSync").filter(|known| known.reason == ON_TRIAL) {
        return Some(trial.message.clone());
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
