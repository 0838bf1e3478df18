//! Follows the files and puts them in force.
//!
//! Each check compares the present state with the wanted one and removes the difference. All events
//! lead to the same check. A failure is reported once, and tried again at the next event.

mod cluster;
mod drift;
mod edited;
mod in_force;
mod interfaces;
mod lists;
mod messages;
mod node_state;
mod report;
mod seen;
mod state;
mod trial;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{ArgMatches, FromArgMatches as _};
use filter_common::layout::Basis;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use self::node_state::NodeState;
use self::{
    in_force::Outcome,
    interfaces::INTERFACES,
    node_state::Report,
    state::{Follower, KnownPolicy},
};
use super::{
    Compiled, Request, WantedInterfaces,
    alerts::{Alerts, sentence},
};
use crate::{
    cli::Cli,
    codes::Code,
    context::{Context, load},
    kernel::net::decapsulation,
    metrics::{Health, Heartbeats, Loop},
    store::{AcknowledgedStore, StateFile, WatchedFile, WatchedLists},
    ui::{
        error::{InputErrors, UserError},
        output::{eprint, eprint_fields},
        visible::visible_in_line,
    },
    warnings::node,
};
/// How often the files and the policy in force are checked.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the files of the cluster and the directories of lists are checked: a node that joins
/// is let in within a second.
const CLUSTER_PERIOD: Duration = Duration::from_millis(300);
/// The period while a file is being written.
const CHANGING_PERIOD: Duration = Duration::from_millis(100);
/// Periods between two thorough checks: they find changes that the kernel sent no message about.
const THOROUGH: u64 = 10;
/// Periods between two searches for warnings.
const MINUTE: u64 = 60;
/// How long the node's addresses must be stable before the policy follows them: a device gets
/// several, one after the other.
const ADDRESS_SETTLE_TIME: Duration = Duration::from_secs(1);
/// The pause before a failed change is tried again without an event.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How long another writer may hold the lock before that is reported.
const WRITER_TIMEOUT: Duration = Duration::from_secs(30);

/// The matters of alerts.
const WRITER_LOCK: &str = "writer";
const ACKNOWLEDGED: &str = "acknowledgements";

/// The follower's connections to the rest of the process.
pub(crate) struct Channels {
    pub(crate) wanted: watch::Sender<WantedInterfaces>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    /// The facts that the policy in force was compiled from, if this process compiled it.
    pub(crate) compiled: Option<Compiled>,
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// Starts the thread that follows the files, in the network namespace of the caller.
///
/// # Errors
/// If a socket or the thread cannot be created.
pub(crate) fn follow(
    context: &Context,
    matches: &ArgMatches,
    channels: Channels,
) -> Result<JoinHandle<()>> {
    let Channels {
        wanted,
        health,
        heartbeats,
        compiled,
        requests,
    } = channels;
    let reported = health.subscribe();
    let follower = Follower {
        context: context.clone(),
        matches: Arc::new(matches.clone()),
        decapsulation: decapsulation::Subscription::open()?,
        wanted,
        health,
        heartbeats,
        config_file: WatchedFile::since((*context.file.path).into(), context.file.seen),
        lists: WatchedLists::new(context.list_files()),
        cluster: WatchedLists::of_cluster(context.list_files()),
        has_config: context.file.errors.is_empty(),
        known: compiled.map_or_else(
            KnownPolicy::default,
            |Compiled {
                 node,
                 cluster,
                 wall_minus_boot,
             }| KnownPolicy {
                node: Some(node),
                cluster: Some(cluster),
                wall_minus_boot,
                ..KnownPolicy::default()
            },
        ),
        open: None,
        dirty: true,
        not_before: None,
        blocked: None,
        hold_after_rollback: false,
        last_trial: None,
        interfaces_pending: false,
        reload_requested: false,
        files_changed: false,
        alerts: Alerts::default(),
        warned: BTreeSet::new(),
        ranges: node::RangeWarnings::default(),
        acknowledged: WatchedFile::new(AcknowledgedStore::new(&context.config.state_dir).path()),
        warnings_due: false,
        report: Report::new(StateFile::new(&context.global.runtime_dir), reported),
    };
    thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || follower.run(&requests))
        .context("start thread")
}

impl Follower {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        // Every interface is tried before any slow step.
        loop {
            match requests.recv() {
                Ok(Request::Tried) => break,
                Ok(Request::Stop) | Err(_) => return,
                Ok(_) => {}
            }
        }
        if !self.has_config {
            self.report_broken_config();
        }
        let mut tick = 0_u64;
        let mut next = Instant::now();
        let mut next_look = Instant::now();
        let mut stable: Option<Instant> = None;
        loop {
            let looks = self.names_cluster_files() || self.lists.has_directories();
            let look = looks.then_some(next_look);
            let events = [Some(next), look, stable].into_iter().flatten();
            let time = events.min().unwrap_or(next);
            match requests.recv_timeout(time.saturating_duration_since(Instant::now())) {
                Ok(Request::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(Request::Reload(answer)) => {
                    self.reload();
                    // The process may be ending.
                    let _ = answer.send(());
                }
                Ok(Request::Addresses) => stable = Some(Instant::now() + ADDRESS_SETTLE_TIME),
                Ok(Request::Tried | Request::Guarded) => self.summarize(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if stable.is_some_and(|time| now >= time) {
                stable = None;
                self.reconcile(true);
            }
            if look.is_some_and(|time| now >= time) {
                self.follow_cluster();
                if self.lists.renamed() {
                    next = now;
                }
                next_look = Instant::now()
                    + match self.cluster.is_changing() {
                        true => CHANGING_PERIOD,
                        false => CLUSTER_PERIOD,
                    };
            }
            if now >= next {
                self.reconcile(tick % THOROUGH == THOROUGH - 1);
                if self.acknowledged.changed() {
                    self.acknowledged.mark_read();
                    self.warnings_due = true;
                }
                if tick.is_multiple_of(MINUTE) || self.warnings_due {
                    self.warnings_due = false;
                    self.warn();
                }
                tick += 1;
                // A file that is being written is checked again soon, until it is stable.
                let is_changing = self.config_file.is_changing() || self.lists.is_changing();
                next = Instant::now() + if is_changing { CHANGING_PERIOD } else { PERIOD };
            }
            self.report();
        }
    }

    /// Whether the policy in force depends on files of the cluster, as far as that is known.
    fn names_cluster_files(&self) -> bool {
        let known = self.known.policy.as_ref();
        let settings = known.and_then(|known| known.settings.as_ref());
        settings.is_none_or(|settings| !settings.cluster_files().is_empty())
    }

    /// Compares the policy with the files of the cluster if they changed.
    fn follow_cluster(&mut self) {
        if self.names_cluster_files() && self.cluster.changed() {
            self.cluster.mark_read();
            (self.dirty, self.not_before) = (true, None);
            self.reconcile(false);
        }
    }

    /// Reads both files again, changed or not.
    fn reload(&mut self) {
        self.reload_requested = true;
        self.config_file.mark_read();
        self.lists.mark_read();
        self.cluster.mark_read();
        self.follow_config();
        self.force_check();
        let before = self.known.generation;
        self.reconcile(true);
        let is_broken = self.alerts.has("config") || self.alerts.has("policy");
        if !is_broken && self.known.generation == before {
            eprint("note: reloaded: nothing to change");
        }
    }

    /// Checks the files at once, whatever the last result.
    fn force_check(&mut self) {
        self.dirty = true;
        self.not_before = None;
        self.hold_after_rollback = false;
        self.files_changed = true;
    }

    /// Checks for a difference and removes it. A `thorough` check also reads the node's addresses.
    fn reconcile(&mut self, thorough: bool) {
        self.heartbeats.beat(Loop::Follower);
        if self.config_file.changed() {
            self.config_file.mark_read();
            self.follow_config();
            self.force_check();
        }
        if self.lists.changed() {
            self.lists.mark_read();
            self.force_check();
        }
        if self.interfaces_pending && (self.files_changed || thorough) {
            self.offer_interfaces();
        }
        self.mark_dirty(thorough);
        if !self.dirty || self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        self.dirty = false;
        let outcome = self.follow_policy();
        if !matches!(outcome, Ok(Outcome::Later)) {
            self.blocked = None;
            self.alerts.clear(WRITER_LOCK, "the list can be changed");
        }
        match outcome {
            Ok(Outcome::Done) => {
                self.alerts.clear("policy", "the files are in force");
                self.hold_after_rollback = false;
                // If the config file cannot be read, the files are not in force completely.
                if !self.alerts.has("config") && !self.alerts.has(INTERFACES) {
                    let is_of_files = self.known.basis == Basis::Files;
                    let first = self.known.deferral.clone();
                    self.health.send_modify(|health| {
                        if is_of_files || first.is_some() {
                            health.fallback = first;
                        }
                        health.reloaded(None);
                    });
                }
            }
            // Another process is writing, or a change is on trial. A later check tries again.
            Ok(Outcome::Later) => {
                self.dirty = true;
                let since = *self.blocked.get_or_insert_with(Instant::now);
                if since.elapsed() > WRITER_TIMEOUT {
                    let error = UserError::failed(
                        "change list: another process has held the writer's lock for a long time",
                        "`fuser` on the lock shows the process; `apifence status` and `apifence ranges list` still work",
                    );
                    self.alerts.raise(WRITER_LOCK, &error);
                }
            }
            Ok(Outcome::NoList | Outcome::OnTrial) => {}
            Err(error) => {
                self.report_failure(&error);
                self.dirty = true;
                self.not_before = Some(Instant::now() + RETRY_PAUSE);
            }
        }
        self.summarize();
    }

    /// Reads the config file again.
    fn follow_config(&mut self) {
        let loaded = Cli::from_arg_matches(&self.matches)
            .context("read flags")
            .and_then(|cli| load::load(&cli, &self.matches, |_| ()));
        match loaded {
            Ok((config, file)) if file.errors.is_empty() => {
                let own = [
                    *config.bpffs != *self.context.config.bpffs,
                    *config.state_dir != *self.context.config.state_dir,
                    *config.ranges_file != *self.context.config.ranges_file,
                    *config.metrics_listen != *self.context.config.metrics_listen,
                ];
                if own.contains(&true) {
                    eprint(
                        "note: `bpffs`, `state_dir`, `ranges_file` and `metrics_listen` are read only at start: restart `run`",
                    );
                }
                (self.context.config, self.context.file) = (config, file);
                self.has_config = true;
                self.warnings_due = true;
                self.interfaces_pending = true;
                self.alerts.clear("config", "the config file is valid");
            }
            Ok((_, file)) => {
                self.context.file = file;
                self.report_broken_config();
            }
            Err(error) => self.report_config_error(&error),
        }
    }

    fn report_broken_config(&mut self) {
        let refusals = InputErrors::new(self.context.file.errors.clone());
        self.report_config_error(&refusals.into());
    }

    fn report_config_error(&mut self, error: &anyhow::Error) {
        self.alerts.raise("config", error);
        self.health
            .send_modify(|health| health.reloaded(Some(sentence(error))));
    }

    /// Reports each warning once, and publishes their counts for monitoring.
    fn warn(&mut self) {
        let health = self.health.borrow().clone();
        let context = &self.context;
        let found = node::all_warnings(context, &health, &mut self.ranges);
        let Ok(found) = found else { return };
        match node::acknowledged(&self.context).1 {
            Some(error) => self.alerts.raise(ACKNOWLEDGED, &error),
            None => self
                .alerts
                .clear(ACKNOWLEDGED, "the acknowledgements can be read"),
        }
        let mut counts = BTreeMap::new();
        let mut now = BTreeSet::new();
        for warning in found {
            *counts
                .entry((warning.code, warning.acknowledged))
                .or_insert(0) += 1;
            // These are reported with their reasons when they happen.
            let reported = [Code::UnguardedInterface, Code::PolicySource].contains(&warning.code);
            if warning.acknowledged || reported {
                continue;
            }
            if !self.warned.contains(&warning.key()) {
                eprint_fields(warning.code.severity().level(), &warning);
            }
            now.insert(warning.key());
        }
        self.warned = now;
        self.health.send_if_modified(|health| {
            let differs = health.warnings != counts;
            health.warnings = counts;
            differs
        });
    }

    /// Sends the service manager one line about the policy in force.
    fn summarize(&mut self) {
        let record = self
            .open_maps()
            .and_then(|maps| maps.read_consistent(|slot| maps.record(slot)).ok());
        let in_force = || record.map(|record| format!("generation {} in force", record.generation));
        let problem = self.alerts.first().map(str::to_owned);
        let summary = problem
            .or_else(|| self.health.borrow().drift.clone())
            .or_else(|| self.health.borrow().fallback.clone())
            .or_else(in_force)
            .unwrap_or_else(|| "nothing is in force".to_owned());
        let summary = visible_in_line(&summary).into_owned();
        self.health.send_if_modified(|health| {
            let differs = health.summary != summary;
            health.summary = summary;
            differs
        });
    }

    /// Reports that the files could not be put in force.
    fn report_failure(&mut self, error: &anyhow::Error) {
        let sentence = sentence(error);
        self.health
            .send_modify(|health| health.reloaded(Some(sentence)));
        self.alerts.raise("policy", error);
    }
}
