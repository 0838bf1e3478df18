//! The loop: what the API has becomes files, and what the node does becomes reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    addresses::{of_nodes, of_pods},
    api::NodeGuardStatus,
    cli::RunArgs,
    connection,
    directory::{Directory, Memory, NODES, PODS},
    health::Health,
    list::{Contents, Wanted, digest, of_config_map, of_objects},
    node_state::StateFile,
    post::{Poster, Report, seconds},
    record::{self, Kept, Record, Step, step},
    report::{Present, of_node},
    watch::{Reach, Sources},
};

/// How often the state of the node is looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// How long news are collected: objects often change in numbers.
const SETTLE_TIME: Duration = Duration::from_millis(30);
/// How long the API must be away before that is said.
const WORTH_SAYING: SignedDuration = SignedDuration::from_secs(2);
/// The period of signs of life.
const HEALTH_PERIOD: Duration = Duration::from_secs(5);
/// The period of a thorough look at the files.
const WRITE_PERIOD: Duration = Duration::from_secs(10);

/// Follows the API until SIGTERM or SIGINT.
///
/// # Errors
/// If the directory cannot be written, or the credentials are missing.
pub fn run(args: &RunArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start")?;
    runtime.block_on(async {
        let directory = Directory::open(&args.directory.lists_dir)?;
        let client = connection::client(args).await?;
        let mut interrupt = signal(SignalKind::interrupt()).context("follow SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("follow SIGTERM")?;
        let reach = Arc::new(Reach::default());
        let sources = Arc::new(Sources::follow(&client, args.config_map.as_ref(), &reach));
        let (reports, inbox) = watch::channel(Report::default());
        tokio::spawn(Poster::new(client, args.node.clone(), sources.clone()).run(inbox));
        let mut agent = Agent::new(args, directory, sources, reach.clone(), reports);
        // What an earlier agent said of itself is not true of this one.
        agent.show_health(Timestamp::now());
        eprintln!(
            "following {} for node {}: lists in `{}`",
            args.server,
            args.node,
            args.directory.lists_dir.display()
        );
        loop {
            let has_news = tokio::select! {
                () = reach.news.notified() => {
                    tokio::time::sleep(SETTLE_TIME).await;
                    true
                }
                () = tokio::time::sleep(PERIOD) => false,
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            };
            agent.check(has_news);
        }
    })
}

struct Agent {
    node: String,
    forget_after: Duration,
    state_file: PathBuf,
    state: StateFile,
    directory: Directory,
    memory: Memory,
    /// What is on the disk of it.
    remembered: Option<Memory>,
    sources: Arc<Sources>,
    reach: Arc<Reach>,
    reports: watch::Sender<Report>,
    contents: Contents,
    kept: BTreeMap<String, Kept>,
    wanted: BTreeMap<String, Wanted>,
    status: NodeGuardStatus,
    unwritten: Option<String>,
    said_away: Option<Timestamp>,
    /// When the health was written last, and whether the API was away then.
    last_health: Option<(Instant, bool)>,
    last_write: Option<Instant>,
    news: u64,
}

impl Agent {
    fn new(
        args: &RunArgs,
        directory: Directory,
        sources: Arc<Sources>,
        reach: Arc<Reach>,
        reports: watch::Sender<Report>,
    ) -> Self {
        Self {
            node: args.node.clone(),
            forget_after: args.forget_after,
            state_file: args.state.clone(),
            state: StateFile::default(),
            memory: directory.memory(),
            remembered: None,
            directory,
            sources,
            reach,
            reports,
            contents: Contents::default(),
            kept: BTreeMap::new(),
            wanted: BTreeMap::new(),
            status: NodeGuardStatus::default(),
            unwritten: None,
            said_away: None,
            last_health: None,
            last_write: None,
            news: 0,
        }
    }

    /// Brings the files in line with the API, and reports.
    fn check(&mut self, has_news: bool) {
        let now = Timestamp::now();
        let is_due = self
            .last_write
            .is_none_or(|last| last.elapsed() >= WRITE_PERIOD);
        if has_news || is_due {
            self.news += u64::from(has_news);
            if is_due {
                self.last_write = Some(Instant::now());
            }
            let unwritten = self
                .write(now, is_due)
                .err()
                .map(|error| format!("{error:#}"));
            if let Some(cause) = &unwritten
                && self.unwritten.as_ref() != Some(cause)
            {
                eprintln!("error: {cause}; the previous files stay");
            }
            self.unwritten = unwritten;
        }
        self.say_away(now);
        self.show_health(now);
        self.report(now);
    }

    /// Writes what changed, and remembers it.
    fn write(&mut self, now: Timestamp, is_due: bool) -> Result<()> {
        // A file that could not be written is not as it is remembered.
        if is_due || self.unwritten.is_some() {
            self.find_files();
        }
        let mut files = Vec::new();
        let lists = self.update_lists(now, &mut files);
        self.update_addresses(now, &mut files);
        // First: an agent that is killed meanwhile must not take an older object for news.
        let remembered = self.remember();
        let written = self.write_files(files);
        lists.and(remembered).and(written)
    }

    /// Remembers what is not remembered yet.
    fn remember(&mut self) -> Result<()> {
        if self.remembered.as_ref() != Some(&self.memory) {
            self.directory.remember(&self.memory)?;
            self.remembered = Some(self.memory.clone());
        }
        Ok(())
    }

    /// A file that another hand changed or removed is written again from the API.
    fn find_files(&mut self) {
        for (name, record) in &mut self.memory.records {
            if record.has_file() {
                let text = self.directory.read(name);
                let lost = || Record::LOST.to_owned();
                record.sha256 = text.map_or_else(lost, |text| digest(&text));
            }
        }
    }

    /// Takes over the lists that changed, and adds the texts of their `files`.
    fn update_lists(&mut self, now: Timestamp, files: &mut Vec<(String, String)>) -> Result<()> {
        let Some(wanted) = self.read_lists() else {
            // Nothing is known of what is missing.
            return Ok(());
        };
        let names: BTreeSet<String> = wanted
            .keys()
            .chain(self.memory.records.keys())
            .cloned()
            .collect();
        let mut kept = BTreeMap::new();
        let mut failure = Ok(());
        for name in names {
            let record = self.memory.records.get_mut(&name);
            match step(record, wanted.get(&name), now) {
                Step::Leave => {}
                Step::Keep(why) => {
                    if self.kept.get(&name) != Some(&why) {
                        eprintln!("warning: list {name}: {}", why.message());
                    }
                    kept.insert(name, why);
                }
                Step::Write(content, record) => {
                    self.memory.records.insert(name.clone(), *record);
                    files.push((name, content.text));
                }
                // One list holds up no other.
                Step::Remove => failure = failure.and(self.remove_list(&name)),
            }
        }
        record::forget(&mut self.memory.records);
        self.kept = kept;
        self.wanted = wanted;
        failure
    }

    /// The lists that the API has; `None` while it cannot be followed.
    fn read_lists(&mut self) -> Option<BTreeMap<String, Wanted>> {
        if let Some(source) = &self.sources.config_map {
            let maps = source.all()?;
            // A ConfigMap that is gone has no keys: each list is kept.
            return Some(
                maps.first()
                    .map(|map| of_config_map(map))
                    .unwrap_or_default(),
            );
        }
        let objects = self.sources.objects.as_ref()?.all()?;
        let nodes = self.sources.nodes.all()?;
        if let Some(own) = nodes.iter().find(|node| node.name_any() == self.node) {
            // Without its Node object the node is still the one that it was.
            self.memory.labels = Some(own.labels().clone());
        }
        let labels = self.memory.labels.as_ref();
        Some(of_objects(&objects, &mut self.contents, labels))
    }

    fn remove_list(&mut self, name: &str) -> Result<()> {
        self.directory.remove(name)?;
        eprintln!("list {name}: removed: its object was deleted, and no range was in force");
        if let Some(record) = self.memory.records.get_mut(name) {
            record.sha256.clear();
            record.ranges = 0;
        }
        Ok(())
    }

    /// Takes over the addresses of the nodes, and the pod ranges, and adds the texts of their
    /// `files`.
    fn update_addresses(&mut self, now: Timestamp, files: &mut Vec<(String, String)>) {
        let Some(all) = self.sources.nodes.all().filter(|all| !all.is_empty()) else {
            return;
        };
        let all = || all.iter().map(|node| &**node);
        let Memory { nodes, pods, .. } = &mut self.memory;
        nodes.update(&of_nodes(all()), now, self.forget_after);
        pods.update(&of_pods(all()), now, self.forget_after);
        let text = pods.text("The pod ranges of the cluster's nodes");
        files.push((PODS.to_owned(), text));
        // Nodes without an address are not written: the cluster's own sources would be cut.
        if !nodes.is_empty() {
            let text = nodes.text("The addresses of the cluster's nodes");
            files.push((NODES.to_owned(), text));
        }
    }

    /// Writes those of `files` that are not there as they should be.
    fn write_files(&self, files: Vec<(String, String)>) -> Result<()> {
        let mut failure = Ok(());
        for (name, text) in files {
            if self.directory.read(&name).as_ref() == Some(&text) {
                continue;
            }
            let written = self.directory.write(&name, &text);
            if written.is_ok() {
                match self.memory.records.get(&name) {
                    Some(record) => eprintln!(
                        "list {name}: wrote generation {} with {} ranges",
                        record.written.generation, record.ranges
                    ),
                    None => eprintln!("{name}: wrote {} lines", text.lines().count()),
                }
            }
            // One file holds up no other.
            failure = failure.and(written);
        }
        failure
    }

    /// Says once that the API is away, and once that it is back.
    fn say_away(&mut self, now: Timestamp) {
        match (self.reach.away(), self.said_away) {
            (Some((since, cause)), None) if now.duration_since(since) > WORTH_SAYING => {
                eprintln!(
                    "warning: the API does not answer since {since:.0}; all lists stay in force: {cause}"
                );
                self.said_away = Some(since);
            }
            (None, Some(since)) => {
                eprintln!("the API answers again; it did not answer since {since:.0}");
                self.said_away = None;
            }
            _ => {}
        }
    }

    fn show_health(&mut self, now: Timestamp) {
        let away = self.reach.away();
        let is_due = self.last_health.is_none_or(|(last, was_away)| {
            last.elapsed() >= HEALTH_PERIOD || was_away != away.is_some()
        });
        if !is_due {
            return;
        }
        self.last_health = Some((Instant::now(), away.is_some()));
        let health = Health {
            alive: now,
            away: away.as_ref().map(|(since, _)| *since),
            cause: away.map(|(_, cause)| cause),
        };
        // A failure shows itself: the file becomes old.
        let _ = health.write(&self.directory);
    }

    fn report(&mut self, now: Timestamp) {
        let state = self.state.read(&self.state_file, now);
        if self.status.conditions.is_empty() {
            // The times of an earlier agent's conditions.
            let guards = self.sources.guards.all().unwrap_or_default();
            let own = guards.iter().find(|guard| guard.name_any() == self.node);
            self.status = own
                .and_then(|guard| guard.status.clone())
                .unwrap_or_default();
        }
        let present = Present {
            directory: &self.directory.name(),
            records: &self.memory.records,
            kept: &self.kept,
            wanted: &self.wanted,
            state: &state,
            unwritten: self.unwritten.as_deref(),
        };
        self.status = of_node(&present, &self.status, seconds(now));
        let report = Report {
            status: self.status.clone(),
            news: self.news,
        };
        self.reports.send_if_modified(|known| {
            let is_new = *known != report;
            *known = report;
            is_new
        });
    }
}
