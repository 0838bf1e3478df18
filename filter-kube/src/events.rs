//! Events: what a person who looks at an object with `kubectl describe` must learn.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::{
    Client, Resource as _, ResourceExt as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    api::{Condition, NodeGuardStatus, NodeList},
    watch::{Sources, words},
};

/// How long the API may take for one event.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The longest note of an event (events.k8s.io/v1: 1 kB).
const LONGEST_NOTE: usize = 1000;

/// The sender of events.
pub struct Events {
    recorder: Recorder,
    node: String,
}

impl Events {
    /// Events of the agent on `node`.
    pub fn new(client: Client, node: String) -> Self {
        let reporter = Reporter {
            controller: "apifence-kube".to_owned(),
            instance: Some(node.clone()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            node,
        }
    }

    /// Sends what changed since `before`. An event that cannot be sent is lost; the conditions say
    /// the same.
    pub async fn of_node(
        &self,
        before: Option<&NodeGuardStatus>,
        status: &NodeGuardStatus,
        sources: &Sources,
    ) {
        for condition in &status.conditions {
            let known = before.and_then(|before| {
                let mut all = before.conditions.iter();
                all.find(|known| known.type_ == condition.type_)
            });
            if is_worth_saying(known, condition) {
                self.send(
                    &self.node_reference(sources),
                    &condition.reason,
                    condition.status == "True",
                    &condition.message,
                )
                .await;
            }
        }
        let Some(objects) = sources.objects.as_ref().and_then(|source| source.all()) else {
            return;
        };
        for list in status.lists.iter().filter(|list| is_wrong(list)) {
            let was = before.and_then(|before| {
                let mut all = before.lists.iter();
                all.find(|known| known.name == list.name)
            });
            if was.is_some_and(|was| was.message == list.message) {
                continue;
            }
            let object = objects.iter().find(|object| object.name_any() == list.name);
            if let Some(object) = object {
                let note = format!("{}: {}", self.node, list.message);
                self.send(&object.object_ref(&()), "Refused", false, &note)
                    .await;
            }
        }
    }

    /// The Node of this agent. Tools look for events of a node by its name in place of the uid, as
    /// the kubelet writes them.
    fn node_reference(&self, sources: &Sources) -> ObjectReference {
        let nodes = sources.nodes.all().unwrap_or_default();
        let own = nodes.iter().find(|node| node.name_any() == self.node);
        let mut reference = own.map_or_else(ObjectReference::default, |node| node.object_ref(&()));
        reference.kind = Some(Node::kind(&()).into_owned());
        reference.name = Some(self.node.clone());
        reference.uid = Some(self.node.clone());
        reference
    }

    async fn send(&self, object: &ObjectReference, reason: &str, is_good: bool, note: &str) {
        let event = Event {
            type_: match is_good {
                true => EventType::Normal,
                false => EventType::Warning,
            },
            reason: reason.to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: "Enforce".to_owned(),
            secondary: None,
        };
        let sent = tokio::time::timeout(ANSWER_TIME, self.recorder.publish(&event, object)).await;
        if let Ok(Err(error)) = sent {
            eprintln!("warning: send event `{reason}`: {}", words(&error));
        }
    }
}

/// Whether a condition became another. At the start only what is wrong is said, and a list that is
/// on its way is not.
fn is_worth_saying(known: Option<&Condition>, now: &Condition) -> bool {
    if now.reason == "Pending" || known.is_some_and(|known| known.reason == "Pending") {
        return false;
    }
    match known {
        None => now.status != "True",
        Some(known) => known.status != now.status || known.reason != now.reason,
    }
}

fn is_wrong(list: &NodeList) -> bool {
    !list.in_force && !list.message.is_empty() && !list.message.starts_with("written,")
}
