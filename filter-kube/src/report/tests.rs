use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::{
    node::{Present, of_node},
    object::{CONTROL_PLANE, of_object},
    *,
};
use crate::{
    api::{AuthorizedRanges, AuthorizedRangesSpec, NodeGuard, NodeGuardStatus},
    list::{Content, Version, Wanted, content, digest},
    node_state::{Interface, ListInForce, NodeState},
    record::{Kept, Record},
};

fn now() -> Timestamp {
    Timestamp::from_second(1000).expect("a time")
}

fn object(generation: i64) -> AuthorizedRanges {
    let mut object = AuthorizedRanges::new("office", AuthorizedRangesSpec::default());
    object.spec.ranges = vec![crate::api::Range {
        cidr: "203.0.113.0/24".to_owned(),
        ..Default::default()
    }];
    object.metadata.generation = Some(generation);
    object
}

fn node(name: &str, labels: &[&str]) -> std::sync::Arc<Node> {
    let labels: BTreeMap<_, _> = labels.iter().map(|label| (label, "")).collect();
    let node = json!({"metadata": {"name": name, "labels": labels}});
    std::sync::Arc::new(serde_json::from_value(node).expect("a node"))
}

/// A node with one list whose text is `text`; `in_force` is the text in force.
fn status(text: &str, in_force: &str, fault: Option<&str>, kept: Option<Kept>) -> NodeGuardStatus {
    let version = Version {
        uid: "1".to_owned(),
        created: now(),
        generation: 4,
    };
    let record = Record {
        written: version.clone(),
        seen: version.clone(),
        sha256: digest(text),
        ends: None,
        ranges: 1,
    };
    let content = Content::new(text.to_owned(), None, 1);
    let wanted = Wanted {
        version,
        is_selected: Some(true),
        content: std::sync::Arc::new(Ok(content)),
    };
    let state = NodeState {
        state: "enforcing".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            hook: Some("native".to_owned()),
            guarded: true,
        }],
        lists: vec![ListInForce {
            name: "kubernetes.office".to_owned(),
            sha256: Some(digest(in_force)),
            ranges: 1,
            expired: 0,
            fault: fault.map(str::to_owned),
        }],
        ..NodeState::default()
    };
    let present = Present {
        directory: "kubernetes",
        records: &BTreeMap::from([("office".to_owned(), record)]),
        kept: &kept
            .map(|kept| ("office".to_owned(), kept))
            .into_iter()
            .collect(),
        wanted: &BTreeMap::from([("office".to_owned(), wanted)]),
        state: &Ok(state),
        unwritten: None,
    };
    of_node(&present, &NodeGuardStatus::default(), now())
}

fn in_sync(status: &NodeGuardStatus) -> (&str, &str) {
    let found = &status.conditions[1];
    (&found.status, &found.reason)
}

#[test]
fn a_list_is_in_force_when_its_bytes_are() {
    assert_eq!(in_sync(&status("a", "a", None, None)), ("True", "InSync"));
    assert_eq!(in_sync(&status("a", "b", None, None)), ("False", "Pending"));
    let refused = status("a", "a", Some("too wide"), None);
    assert_eq!(in_sync(&refused), ("False", "Refused"));
    assert!(refused.conditions[1].message.contains("office: too wide"));
    let gone = status("a", "a", None, Some(Kept::Gone));
    assert_eq!(in_sync(&gone), ("False", "ObjectGone"));
}

#[test]
fn what_takes_itself_back_is_not_in_sync() {
    let state = NodeState {
        state: "enforcing".to_owned(),
        trial_until: Timestamp::from_second(2000).ok(),
        ..NodeState::default()
    };
    let present = Present {
        directory: "kubernetes",
        records: &BTreeMap::new(),
        kept: &BTreeMap::new(),
        wanted: &BTreeMap::new(),
        state: &Ok(state),
        unwritten: None,
    };
    let status = of_node(&present, &NodeGuardStatus::default(), now());
    assert_eq!(in_sync(&status), ("False", ON_TRIAL));
    let message = &status.conditions[1].message;
    assert!(message.contains("until 1970-01-01T00:33:20Z"), "{message}");
}

#[test]
fn an_object_is_programmed_when_every_control_plane_enforces_its_generation() {
    let guard = |name: &str, status: NodeGuardStatus| {
        let mut guard = NodeGuard::new(name, crate::api::NodeGuardSpec {});
        guard.status = Some(status);
        std::sync::Arc::new(guard)
    };
    let nodes = [
        node("cp1", &[CONTROL_PLANE[0]]),
        node("cp2", &[CONTROL_PLANE[1]]),
        node("worker", &[]),
    ];
    let fine = || status("a", "a", None, None);
    let of = |object: &AuthorizedRanges, guards: &[std::sync::Arc<NodeGuard>], silent: &str| {
        let status = of_object(
            object,
            &content(object),
            &nodes,
            guards,
            |node| node == silent,
            now(),
        );
        let programmed = status.conditions[1].clone();
        (programmed.status, status.nodes.summary, programmed.message)
    };
    let both = [guard("cp1", fine()), guard("cp2", fine())];
    let (done, count, _) = of(&object(4), &both, "");
    assert_eq!((&*done, &*count), ("True", "2/2"));
    for (generation, guards, silent, want) in [
        (5, &both[..], "", "cp1: an older generation"),
        (4, &both[..1], "", "cp2: its agent does not report"),
        (4, &both[..], "cp2", "cp2: its agent no longer reports"),
        (
            4,
            &[both[0].clone(), guard("cp2", status("a", "b", None, None))],
            "",
            "cp2: written",
        ),
        (
            4,
            &[both[0].clone(), guard("cp2", NodeGuardStatus::default())],
            "",
            "cp2: not guarded",
        ),
    ] {
        let (done, count, message) = of(&object(generation), guards, silent);
        assert_eq!(done, "False", "{message}");
        assert!(count == "1/2" || generation == 5, "{count}");
        assert!(message.contains(want), "{message}");
    }
    let mut selective = object(4);
    selective.spec.node_selector = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    assert!(
        of(&selective, &both, "")
            .2
            .contains("does not select any node")
    );
    let mut empty = object(4);
    empty.spec.ranges.clear();
    assert_eq!(of(&empty, &both, "").2, "see the condition Accepted");
}

#[test]
fn a_condition_keeps_its_time_while_it_stays() {
    let before = status("a", "a", None, None).conditions;
    let later = Timestamp::from_second(2000).expect("a time");
    let at = |status| {
        condition(
            &before,
            "InSync",
            status,
            "InSync",
            String::new(),
            None,
            later,
        )
        .last_transition_time
    };
    assert_eq!(at(Some(true)), now());
    assert_eq!(at(Some(false)), later);
    assert_eq!(at(None), later);
}

#[test]
fn a_node_whose_run_does_not_report_is_unknown() {
    let present = Present {
        directory: "kubernetes",
        records: &BTreeMap::new(),
        kept: &BTreeMap::new(),
        wanted: &BTreeMap::new(),
        state: &Err("it is old".to_owned()),
        unwritten: None,
    };
    let status = of_node(&present, &NodeGuardStatus::default(), now());
    assert_eq!(status.state, "unknown");
    for condition in &status.conditions {
        assert_eq!(condition.status, "Unknown");
        assert_eq!(condition.message, "it is old");
    }
}
