//! Events: what a person who looks at an object with `kubectl describe` must learn.
//!
//! They are events of the core API, as the kubelet's: for objects without a namespace those of
//! events.k8s.io are refused outside kube-system by older API servers (1.20 is one).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, Node, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, Resource as _, ResourceExt as _, api::PostParams};

use crate::{
    api::{Condition, NodeGuardStatus, NodeList},
    log::say,
    watch::{Sources, words},
};

/// How long the API may take for one event.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The longest message of an event, in bytes (the API's bound is 1,024).
const LONGEST_MESSAGE: usize = 1000;
/// The most bytes of an object's name in that of its event (the API's bound is 253 for all).
const LONGEST_BEGIN: usize = 230;
/// The namespace for events of objects that have none.
const NAMESPACE: &str = "default";

/// The sender of events.
pub struct Events {
    events: Api<Event>,
    node: String,
}

impl Events {
    /// Events of the agent on `node`.
    pub fn new(client: Client, node: String) -> Self {
        Self {
            events: Api::namespaced(client, NAMESPACE),
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
        let news = status.conditions.iter().filter(|condition| {
            let known = before.and_then(|before| {
                let mut all = before.conditions.iter();
                all.find(|known| known.type_ == condition.type_)
            });
            is_worth_saying(known, condition)
        });
        let mut last = "";
        for condition in news {
            // One cause often has both conditions for effects.
            if last != condition.reason {
                let (is_good, message) = (condition.status == "True", &condition.message);
                let node = self.node_reference(sources);
                self.send(&node, &condition.reason, is_good, message).await;
            }
            last = &condition.reason;
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
                let note = format!("{}: {}", self.node, list.words());
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

    async fn send(&self, object: &ObjectReference, reason: &str, is_good: bool, message: &str) {
        let now = Timestamp::now();
        let name = object.name.as_deref().unwrap_or_default();
        let begin = &name[..name.floor_char_boundary(LONGEST_BEGIN)];
        let end = message.floor_char_boundary(LONGEST_MESSAGE);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    begin.trim_end_matches('.'),
                    now.as_nanosecond()
                )),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message[..end].to_owned()),
            type_: Some(if is_good { "Normal" } else { "Warning" }.to_owned()),
            source: Some(EventSource {
                component: Some("apifence-kube".to_owned()),
                host: Some(self.node.clone()),
            }),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        let params = PostParams::default();
        let sent = tokio::time::timeout(ANSWER_TIME, self.events.create(&params, &event)).await;
        if let Ok(Err(error)) = sent {
            say!("warning: send event `{reason}`: {}", words(&error));
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
    !list.in_force && list.message.is_some() && !list.is_pending()
}
