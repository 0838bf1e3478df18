//! Puts the reports into the API. It may fail or hang: the files never wait for it.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    api::{AuthorizedRanges, NodeGuard, NodeGuardStatus},
    events::Events,
    list::Contents,
    log::say,
    report::of_object,
    watch::{Sources, words},
};

/// How often an agent reports without news. Other agents call it silent after three times this.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long the API may take for one report.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long an agent leaves the status of the objects to the first of all agents.
const PATIENCE: Duration = Duration::from_secs(3);
/// The manager of the fields of the objects' status: all agents are one.
const MANAGER: &str = "apifence-kube";

/// The longest name of a manager that the API takes, in bytes. A Node's may be longer.
const LONGEST_MANAGER: usize = 128;

/// What the agent reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status of the node.
    pub status: NodeGuardStatus,
    /// Another number after each change in the API.
    pub news: u64,
}

/// The task that reports.
pub struct Poster {
    client: Client,
    node: String,
    sources: Arc<Sources>,
    events: Events,
    posted: Option<(NodeGuardStatus, Instant)>,
    /// When each agent's report last changed, as seen from here: clocks of nodes differ.
    heard: HashMap<String, (Option<Timestamp>, Instant)>,
    contents: Contents,
    /// Since when the status of an object is not as it should be.
    waiting: HashMap<String, Instant>,
    failure: Option<String>,
}

impl Poster {
    /// Reports for `node`.
    pub fn new(client: Client, node: String, sources: Arc<Sources>) -> Self {
        Self {
            events: Events::new(client.clone(), node.clone()),
            client,
            node,
            sources,
            posted: None,
            heard: HashMap::new(),
            contents: Contents::default(),
            waiting: HashMap::new(),
            failure: None,
        }
    }

    /// Reports what comes until the agent ends.
    pub async fn run(mut self, mut inbox: watch::Receiver<Report>) {
        loop {
            let report = inbox.borrow_and_update().clone();
            // Before the first look at the node there is nothing to report.
            if !report.status.conditions.is_empty() {
                match self.post(&report.status).await {
                    Ok(()) => self.failure = None,
                    Err(error) => {
                        let words = format!("{error:#}");
                        if self.failure.as_ref() != Some(&words) {
                            say!("warning: report to the API: {words}");
                            self.failure = Some(words);
                        }
                        // Whatever is new: an API server that refuses is not beset.
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                }
            }
            let changed = tokio::time::timeout(PATIENCE, inbox.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    }

    async fn post(&mut self, status: &NodeGuardStatus) -> Result<()> {
        let is_known = self
            .posted
            .as_ref()
            .is_some_and(|(posted, when)| posted == status && when.elapsed() < HEARTBEAT);
        if !is_known {
            self.post_node(status).await?;
            self.events
                .of_node(
                    self.posted.as_ref().map(|(posted, _)| posted),
                    status,
                    &self.sources,
                )
                .await;
            self.posted = Some((status.clone(), Instant::now()));
        }
        self.post_objects().await
    }

    /// Makes the NodeGuard of this node, and writes its status.
    async fn post_node(&self, status: &NodeGuardStatus) -> Result<()> {
        let manager = manager(&self.node);
        let guards: Api<NodeGuard> = Api::all(self.client.clone());
        let nodes = self.sources.nodes.all().unwrap_or_default();
        let own = nodes.iter().find(|node| node.name_any() == self.node);
        let owner = own.and_then(|node| owner(node));
        // A NodeGuard goes with its Node, which may be known later.
        let guards_known = self.sources.guards.all().unwrap_or_default();
        let is_made = guards_known.iter().any(|guard| {
            guard.name_any() == self.node
                && (owner.is_none() || !guard.owner_references().is_empty())
        });
        if !is_made {
            let mut guard = NodeGuard::new(&self.node, crate::api::NodeGuardSpec {});
            guard.metadata.owner_references = owner.map(|owner| vec![owner]);
            let params = PatchParams::apply(&manager).force();
            let patch = Patch::Apply(&guard);
            answer(&self.node, guards.patch(&self.node, &params, &patch)).await?;
        }
        let mut status = status.clone();
        status.reported = Some(seconds(Timestamp::now()));
        put_status(&guards, &self.node, &manager, &status).await
    }

    /// Writes the status of the objects that it does not describe. The first agent by name does,
    /// and the others where it does not.
    async fn post_objects(&mut self) -> Result<()> {
        let Some(objects) = self
            .sources
            .objects
            .as_ref()
            .and_then(|source| source.all())
        else {
            return Ok(());
        };
        let (Some(nodes), Some(guards)) = (self.sources.nodes.all(), self.sources.guards.all())
        else {
            return Ok(());
        };
        for guard in &guards {
            let reported = guard.status.as_ref().and_then(|status| status.reported);
            let heard = self
                .heard
                .entry(guard.name_any())
                .or_insert((reported, Instant::now()));
            if heard.0 != reported {
                *heard = (reported, Instant::now());
            }
        }
        let is_silent = |node: &str| {
            self.heard
                .get(node)
                .is_some_and(|(_, when)| when.elapsed() > 3 * HEARTBEAT)
        };
        let first = guards
            .iter()
            .map(|guard| guard.name_any())
            .filter(|node| !is_silent(node))
            .min();
        let is_first = first.is_none_or(|first| first >= self.node);
        let now = seconds(Timestamp::now());
        let api: Api<AuthorizedRanges> = Api::all(self.client.clone());
        let mut waiting = HashMap::new();
        let mut failure = Ok(());
        let contents = self.contents.of(&objects);
        for (object, content) in objects.iter().zip(&contents) {
            let status = of_object(object, content, &nodes, &guards, is_silent, now);
            if object.status.as_ref() == Some(&status) {
                continue;
            }
            let name = object.name_any();
            let since = *self.waiting.get(&name).unwrap_or(&Instant::now());
            if !is_first && since.elapsed() < PATIENCE {
                waiting.insert(name, since);
                continue;
            }
            // One object holds up no other.
            let done = put_status(&api, &name, MANAGER, &status).await;
            failure = failure.and(done);
        }
        self.waiting = waiting;
        failure
    }
}

/// The manager of the fields that the agent of `node` writes.
fn manager(node: &str) -> String {
    let mut manager = format!("{MANAGER}/{node}");
    manager.truncate(manager.floor_char_boundary(LONGEST_MANAGER));
    manager
}

/// A time without fractions, as all in the API.
pub fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn owner(node: &Node) -> Option<OwnerReference> {
    node.owner_ref(&())
}

/// Puts `status` in the place of the one before.
///
/// Not a server-side apply: that merges lists, and Kubernetes 1.20 turns one whose last entry goes
/// into `null`, which its own schema refuses.
async fn put_status<K>(
    api: &Api<K>,
    name: &str,
    manager: &str,
    status: &impl Serialize,
) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    let operations = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
    answer(name, api.patch_status(name, &params, &patch)).await
}

/// Waits for the answer of the API about one object.
async fn answer<K: Resource<DynamicType = ()>>(
    name: &str,
    asked: impl Future<Output = kube::Result<K>>,
) -> Result<()> {
    match tokio::time::timeout(ANSWER_TIME, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => bail!("{} {name}: {}", K::kind(&()), words(&error)),
        Err(_) => bail!("{} {name}: no answer within {ANSWER_TIME:?}", K::kind(&())),
    }
}
