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
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client, Resource,
    runtime::{
        reflector::{Store, store, store::Writer},
        watcher::{self, watcher},
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
            silent: Some("it was not reached yet".to_owned()),
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
                .then(|| start.follow("AuthorizedRanges", Api::all(client.clone()), all())),
            config_map: config_map.map(|place| {
                let api = Api::namespaced(client.clone(), &place.namespace);
                let one = all().fields(&format!("metadata.name={}", place.name));
                start.follow("ConfigMap", api, one)
            }),
            nodes: start.follow("Node", Api::all(client.clone()), all()),
            guards: start.follow(REPORTS, Api::all(client.clone()), all()),
        }
    }
}

/// What each source needs.
struct Start {
    reach: Arc<Reach>,
    restarts: watch::Receiver<()>,
}

impl Start {
    fn follow<K>(&self, kind: &'static str, api: Api<K>, config: watcher::Config) -> Source<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (store, writer) = store();
        let reach = self.reach.clone();
        let source = Source {
            kind,
            store,
            reach: reach.clone(),
        };
        let following = Following {
            kind,
            api,
            config,
            writer,
            reach,
        };
        tokio::spawn(following.run(self.restarts.clone()));
        source
    }
}

/// The task that follows the objects of one kind.
struct Following<K: Resource<DynamicType = ()> + Clone + 'static> {
    kind: &'static str,
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    reach: Arc<Reach>,
}

impl<K> Following<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
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
                        if self.take(&event) {
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
    fn take(&mut self, event: &watcher::Event<K>) -> bool {
        self.writer.apply_watcher_event(event);
        let is_whole = !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
        if is_whole {
            self.say(None);
        }
        is_whole
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
