//! What the API has, followed. A source that cannot be followed keeps what it had last.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeStatus};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        reflector::{ObjectRef, Store, store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::{
    api::{AuthorizedRanges, NodeGuard},
    cli::ConfigMapName,
};

/// The kind of the nodes' reports.
const REPORTS: &str = "NodeGuard";

/// How long the API may take to say its version.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The pauses before a failed source is tried again: a restarted API server is found at once, and a
/// busy one is not beset.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause between two questions whether the API answers.
const PERIOD: Duration = Duration::from_secs(3);

/// The objects of the API.
pub struct Sources {
    /// The lists as objects, unless they come from a ConfigMap.
    pub objects: Option<Source<AuthorizedRanges>>,
    /// The ConfigMap with the lists.
    pub config_map: Option<Source<ConfigMap>>,
    /// The nodes.
    pub nodes: Source<Node>,
    /// The reports of all nodes.
    pub guards: Source<NodeGuard>,
}

/// The objects of one kind.
pub struct Source<K: Resource<DynamicType = ()> + Clone + 'static> {
    kind: &'static str,
    store: Store<K>,
    reach: Arc<Reach>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Source<K> {
    /// All objects; `None` as long as they were never listed, or cannot be followed now: then
    /// nothing is known of those that are missing.
    pub fn all(&self) -> Option<Vec<Arc<K>>> {
        let is_followed = self.reach.is_followed(self.kind);
        is_followed.then(|| self.store.state())
    }
}

/// What can be reached of the API. Whatever changes wakes the agent up.
pub struct Reach {
    /// Something changed.
    pub news: Notify,
    state: Mutex<ReachState>,
}

struct ReachState {
    /// The kinds that were listed, each with the cause why it cannot be followed now.
    kinds: BTreeMap<&'static str, Option<String>>,
    /// Why the API server does not answer.
    silent: Option<String>,
    /// Since when something is wrong.
    since: Option<Timestamp>,
}

impl ReachState {
    fn cause(&self) -> Option<String> {
        // Without the reports of the nodes the lists are carried all the same.
        let mut kinds = self.kinds.iter().filter(|(kind, _)| **kind != REPORTS);
        let failed = kinds.find_map(|(kind, cause)| {
            let cause = cause.as_ref()?;
            Some(format!("follow {kind}: {cause}"))
        });
        self.silent.clone().or(failed)
    }
}

impl Default for Reach {
    fn default() -> Self {
        let state = ReachState {
            kinds: BTreeMap::new(),
            silent: Some("not reached yet".to_owned()),
            since: Some(Timestamp::now()),
        };
        Self {
            news: Notify::new(),
            state: Mutex::new(state),
        }
    }
}

impl Reach {
    fn change(&self, change: impl FnOnce(&mut ReachState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        match state.cause() {
            None => state.since = None,
            Some(_) => drop(state.since.get_or_insert_with(Timestamp::now)),
        }
        drop(state);
        self.news.notify_one();
    }

    /// Since when the API, or a part of it, cannot be reached, and why; `None` while all is well.
    pub fn away(&self) -> Option<(Timestamp, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.zip(state.cause())
    }

    fn is_followed(&self, kind: &str) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(state.kinds.get(kind), Some(None))
    }
}

impl Sources {
    /// Follows the objects until the process ends.
    pub fn follow(client: &Client, config_map: Option<&ConfigMapName>, reach: &Arc<Reach>) -> Self {
        let (restart, restarts) = watch::channel(());
        tokio::spawn(ask(client.clone(), reach.clone(), restart));
        let start = Start {
            reach: reach.clone(),
            restarts,
        };
        let all = watcher::Config::default;
        Self {
            objects: config_map
                .is_none()
                .then(|| start.follow("AuthorizedRanges", Api::all(client.clone()), all(), |_| {})),
            config_map: config_map.map(|place| {
                let api = Api::namespaced(client.clone(), &place.namespace);
                let one = all().fields(&format!("metadata.name={}", place.name));
                start.follow("ConfigMap", api, one, |_| {})
            }),
            nodes: start.follow("Node", Api::all(client.clone()), all(), trim_node),
            guards: start.follow(REPORTS, Api::all(client.clone()), all(), |_| {}),
        }
    }
}

/// Takes out of a node what is not read here: what its kubelet writes every few minutes, and most
/// of its size.
fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    node.metadata.resource_version = None;
    if let Some(status) = &mut node.status {
        let addresses = status.addresses.take();
        *status = NodeStatus {
            addresses,
            ..NodeStatus::default()
        };
    }
}

/// What each source needs.
struct Start {
    reach: Arc<Reach>,
    restarts: watch::Receiver<()>,
}

impl Start {
    fn follow<K: Object>(
        &self,
        kind: &'static str,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        trim: fn(&mut K),
    ) -> Source<K> {
        let (store, writer) = store();
        let reach = self.reach.clone();
        let source = Source {
            kind,
            store: store.clone(),
            reach: reach.clone(),
        };
        let following = Following {
            kind,
            api,
            config,
            trim,
            store,
            writer,
            reach,
        };
        tokio::spawn(following.run(self.restarts.clone()));
        source
    }
}

/// An object that can be followed.
trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + PartialEq + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// The task that follows the objects of one kind.
struct Following<K: Object> {
    kind: &'static str,
    /// One object that cannot be read must not hold up the others.
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    /// Takes out of an object what is not read.
    trim: fn(&mut K),
    store: Store<K>,
    writer: Writer<K>,
    reach: Arc<Reach>,
}

impl<K: Object> Following<K> {
    /// Follows them until the agent ends. After a failure all are listed again: a restored etcd
    /// does not have the version to go on with.
    async fn run(mut self, mut restarts: watch::Receiver<()>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let stream = watcher(self.api.clone(), self.config.clone());
            let mut stream = std::pin::pin!(stream);
            loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    changed = restarts.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                };
                match event {
                    Some(Ok(event)) => {
                        if self.take(event) {
                            pause = SHORTEST_PAUSE;
                        }
                    }
                    Some(Err(error)) => {
                        self.say(Some(words(&error)));
                        tokio::time::sleep(pause).await;
                        pause = LONGEST_PAUSE.min(2 * pause);
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// Takes over an event. Returns whether all objects are known by it: a list that is being read
    /// is not whole.
    fn take(&mut self, event: Event<DeserializeGuard<K>>) -> bool {
        let is_whole = !matches!(event, Event::Init | Event::InitApply(_));
        let Some(event) = self.read(event) else {
            return is_whole;
        };
        let is_known = match &event {
            Event::Apply(object) => {
                let known = self.store.get(&ObjectRef::from(object));
                known.is_some_and(|known| *known == *object)
            }
            _ => false,
        };
        // The heartbeat of a node is no news.
        if is_known && self.reach.is_followed(self.kind) {
            return true;
        }
        self.writer.apply_watcher_event(&event);
        if is_whole {
            self.say(None);
        }
        is_whole
    }

    /// The event as it counts here: an object that cannot be read stays as it was. `None` if it was
    /// not there.
    fn read(&self, event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
        let read = |object: DeserializeGuard<K>| match object.0 {
            Ok(mut object) => {
                object.meta_mut().managed_fields = None;
                (self.trim)(&mut object);
                Some(object)
            }
            Err(error) => {
                let name = error.metadata.name.clone().unwrap_or_default();
                let space = error.metadata.namespace.clone();
                eprintln!(
                    "warning: {} {name} cannot be read: its list stays in force: {}",
                    self.kind, error.error
                );
                let mut place = ObjectRef::new(&name);
                place.namespace = space;
                self.store.get(&place).map(|known| (*known).clone())
            }
        };
        Some(match event {
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
            Event::InitApply(object) => Event::InitApply(read(object)?),
            Event::Apply(object) => Event::Apply(read(object)?),
            Event::Delete(object) => Event::Delete(read(object)?),
        })
    }

    fn say(&self, cause: Option<String>) {
        let kind = self.kind;
        self.reach
            .change(|state| drop(state.kinds.insert(kind, cause)));
    }
}

/// An error with its causes, in one line.
pub fn words(error: &(dyn Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return status.message.replace(['\n', '\r'], " ");
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = match inner.downcast_ref() {
            Some(kube::Error::Api(_)) => words(inner),
            _ => inner.to_string(),
        };
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// Asks the API server every few seconds whether it answers: a watch on a server that hangs says
/// nothing for minutes. Restarts all watches once it answers again.
async fn ask(client: Client, reach: Arc<Reach>, restart: watch::Sender<()>) {
    let mut was_silent = false;
    loop {
        let asked = tokio::time::timeout(ANSWER_TIME, client.apiserver_version()).await;
        let silent = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(words(&error)),
            Err(_) => Some(format!("no answer within {ANSWER_TIME:?}")),
        };
        if silent.is_none() && was_silent {
            // Without a receiver there is nothing to restart.
            let _ = restart.send(());
        }
        was_silent = silent.is_some();
        reach.change(|state| state.silent = silent);
        tokio::time::sleep(PERIOD).await;
    }
}
