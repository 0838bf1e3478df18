//! Tells other programs what is in force: `state.json` in the runtime directory. `run` itself never
//! reads it.

use std::{
    process,
    time::{Duration, Instant},
};

use anyhow::Result;
use filter_common::{Mode, layout::PolicyRecord};
use jiff::Timestamp;

use super::{
    node_state::{InterfaceState, ListState, NodeState, SCHEMA},
    seen::{SeenList, SeenLists},
    state::Follower,
};
use crate::{
    clock::{Clocks, to_second},
    config::Settings,
    daemon::alerts::sentence,
    kernel::{
        bpf::{Maps, PolicyState},
        links::protected::{ProtectedInterface, protected_interfaces},
        net::rtnetlink,
    },
    metrics::Health,
    ranges::{ListName, Lists},
    store::ReadLists,
    ui::output::eprint,
    view::policy::{Provisional, state},
};

/// How often it is written where nothing changes: its reader tells by its time whether `run` lives.
const PERIOD: Duration = Duration::from_secs(9);
/// What the kernel says about the policy in force.
struct PolicyInForce {
    record: PolicyRecord,
    settings: Option<Settings>,
    standing: PolicyState,
}

impl PolicyInForce {
    fn read(maps: &Maps) -> Result<Self> {
        maps.read_consistent(|slot| {
            Ok(Self {
                record: maps.record(slot)?,
                settings: maps.settings(slot).ok(),
                standing: maps.standing()?,
            })
        })
    }
}

impl Follower {
    /// Notes which of the lists `seen`, and of the files of the `cluster`, are in force now.
    pub(super) fn note_seen(
        &mut self,
        maps: &Maps,
        seen: Result<SeenLists, String>,
        cluster: &ReadLists,
    ) {
        let Ok(now) = PolicyInForce::read(maps) else {
            return;
        };
        let mut lists = match seen {
            Ok(seen) if seen.digest == now.record.list => seen.lists,
            Ok(_) => self.compare_lists(&now),
            Err(fault) => {
                let mut lists = std::mem::take(&mut self.report.lists);
                lists.retain(|list| !list.name.is_of_cluster());
                lists.iter_mut().for_each(|list| list.is_not_used(&fault));
                lists
            }
        };
        if now.record.mode == Mode::Off as u8 {
            let others = lists.iter_mut().filter(|list| !list.name.is_default());
            others.for_each(|list| list.is_not_used("the list `default` switches enforcement off"));
        }
        lists.extend(self.cluster_files(&now, cluster));
        self.report.lists = lists;
        self.report.generation = now.record.generation;
        self.report.is_due = true;
    }

    /// The lists, read once more, of which some are not in force.
    fn compare_lists(&self, now: &PolicyInForce) -> Vec<SeenList> {
        let Ok(read) = self.context.read_lists() else {
            return Vec::new();
        };
        let is_it = |lists: &Lists| lists.digest() == now.record.list;
        let saved = Some(self.context.last_good()).filter(is_it);
        let in_force = saved.or_else(|| {
            let (name, pending) = self.context.list_files().pending()?;
            Some(read.lists.with(&name, pending.read().ok()?)).filter(is_it)
        });
        let digest = |lists: &Lists, name: &ListName| Some(lists.get(name)?.list().digest());
        let cause = self.why_not(now.standing);
        let mut lists = SeenLists::of(&read).lists;
        for list in &mut lists {
            let in_force = in_force
                .as_ref()
                .and_then(|lists| digest(lists, &list.name));
            if in_force.is_none() || in_force != digest(&read.lists, &list.name) {
                list.is_not_used(&cause);
            }
        }
        lists
    }

    /// The files of the cluster that the settings in force name.
    fn cluster_files(&self, now: &PolicyInForce, cluster: &ReadLists) -> Vec<SeenList> {
        let names = now.settings.as_ref().map(Settings::cluster_files);
        let names = names.unwrap_or_default();
        let mut files = SeenLists::of(cluster).lists;
        files.retain(|file| names.contains(&file.name));
        if self.known.cluster != Some(cluster.lists.only(&names).ranges()) {
            let cause = self.why_not(now.standing);
            files.iter_mut().for_each(|file| file.is_not_used(&cause));
        }
        files
    }

    /// Why files that can be used are not in force.
    fn why_not(&self, standing: PolicyState) -> String {
        let error = self.health.borrow().reload_error.clone();
        match standing {
            PolicyState::Provisional { .. } => {
                "the file is applied after the end of a trial".to_owned()
            }
            _ => error.unwrap_or_else(|| "it is not in force yet".to_owned()),
        }
    }

    /// Writes the state if it changed, or was written long ago.
    pub(super) fn report(&mut self) {
        let has_changed = self.report.health.has_changed().unwrap_or(false);
        let is_old = |time: Instant| time.elapsed() >= PERIOD;
        let is_old = self.report.written.is_none_or(is_old);
        if !(self.report.is_due || has_changed || is_old) {
            return;
        }
        let policy = self
            .open_maps()
            .and_then(|maps| PolicyInForce::read(maps).ok());
        let generation = policy.as_ref().map_or(0, |now| now.record.generation);
        let is_compared = generation == self.report.generation;
        if !is_compared && !is_old {
            // Another process changed the policy: the lists are compared with it soon.
            self.report.is_due = true;
            return;
        }
        let health = self.report.health.borrow_and_update().clone();
        let state = self.node_state(policy.as_ref(), &health, is_compared);
        let text = serde_json::to_vec(&state).unwrap_or_default();
        let written = self.report.file.write(&text);
        (self.report.is_due, self.report.written) = (false, Some(Instant::now()));
        if let (Err(error), false) = (&written, self.report.has_failed) {
            eprint(format_args!(
                "warning: {}: `apifence-kube` and other readers of this file do not see the policy in force",
                sentence(error)
            ));
        }
        self.report.has_failed = written.is_err();
    }

    fn node_state(
        &self,
        policy: Option<&PolicyInForce>,
        health: &Health,
        is_compared: bool,
    ) -> NodeState<'_> {
        let interfaces = self.interfaces(health);
        let is_guarded = interfaces.iter().any(|interface| interface.guarded);
        let now = Timestamp::now();
        let settings = policy.and_then(|now| now.settings.as_ref());
        let trial = policy.and_then(|now| Provisional::of(now.standing, &Clocks::now().ok()?));
        let warnings = health.warnings.keys();
        let open = warnings.filter(|(_, acknowledged)| !acknowledged);
        NodeState {
            schema: SCHEMA,
            written: to_second(now),
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION"),
            state: match policy {
                _ if !is_guarded => "detached",
                None => "unknown",
                Some(policy) => state(&policy.record),
            },
            ports: settings.map(Settings::protected).unwrap_or_default(),
            interfaces,
            trial_until: trial.map(|trial| trial.until),
            lists: self
                .report
                .lists
                .iter()
                .map(|list| ListState {
                    name: &list.name,
                    sha256: list.sha256.as_deref().filter(|_| is_compared),
                    ranges: list.ranges,
                    expired: list.expires.iter().filter(|time| **time <= now).count(),
                    fault: list.fault.as_deref(),
                })
                .collect(),
            warnings: open.map(|(code, _)| *code).collect(),
        }
    }

    /// The interfaces that are guarded, and those that should be.
    fn interfaces(&self, health: &Health) -> Vec<InterfaceState> {
        let here = rtnetlink::interfaces().unwrap_or_default();
        let pinned = protected_interfaces(&self.context.pins, &here).unwrap_or_default();
        let is_pinned = |ifindex: u32| pinned.iter().any(|guard| guard.ifindex == ifindex);
        let held = here
            .iter()
            .filter(|found| health.guarded.contains(&found.ifindex) && !is_pinned(found.ifindex))
            .map(ProtectedInterface::held);
        // The pins of an interface that is gone wait for `detach`.
        let is_here = |guard: &&ProtectedInterface| {
            let mut here = here.iter();
            here.any(|interface| interface.ifindex == guard.ifindex)
        };
        let guards = pinned.iter().filter(is_here).cloned().chain(held);
        let mut states: Vec<InterfaceState> = guards
            .map(|guard| InterfaceState {
                name: guard.interface,
                hook: guard.xdp_mode,
                guarded: guard.guarded,
            })
            .collect();
        for name in &health.interfaces {
            if states.iter().all(|state| state.name != *name) {
                states.push(InterfaceState {
                    name: name.clone(),
                    hook: None,
                    guarded: false,
                });
            }
        }
        states
    }
}
