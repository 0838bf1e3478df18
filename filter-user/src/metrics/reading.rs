//! The kernel's state, read for one request.

use std::collections::BTreeSet;

use anyhow::Result;
use filter_common::{Mode, layout::Basis};

use super::Health;
use crate::{
    clock::Clocks,
    kernel::{
        bpf::{CounterRow, Counters, Maps, PolicyState, ReportReader, StartAt},
        links::protected::{ProtectedInterface, protected_interfaces},
        net::interface::Interface,
        pins::Pins,
    },
    policy::author::Author,
};

/// The kernel's state at one moment.
pub(super) struct Reading {
    /// The interfaces that exist and have a pinned link.
    pub(super) guards: Vec<ProtectedInterface>,
    /// The counters of these interfaces, by name.
    pub(super) counters: Vec<(String, Vec<CounterRow>)>,
    /// Dropped packets that the kernel did not report; `None` without a filter.
    pub(super) suppressed_reports: Option<u64>,
    pub(super) policy: Option<PolicyReading>,
    /// The failures to read.
    pub(super) failures: Vec<String>,
}

/// The generation in force.
pub(super) struct PolicyReading {
    /// A [`Mode`] as a number.
    pub(super) mode: u8,
    pub(super) generation: u64,
    /// In nanoseconds since 1970-01-01 UTC.
    pub(super) applied_at: u64,
    /// Its basis: the files, or another source.
    pub(super) basis: Basis,
    /// Nanoseconds until it is rolled back, if it is on trial.
    pub(super) trial_left: Option<u64>,
    /// The digest of its lists, without the ranges of the cluster's files.
    pub(super) lists: [u8; 32],
    /// The most ranges that the lists may have together.
    pub(super) max_ranges: u32,
    /// The command that put it in force, and the user.
    pub(super) by: Option<(String, String)>,
}

impl Reading {
    /// Reads the state. `held` are the interfaces that this process guards, pinned or not.
    pub(super) fn read(pins: &Pins, interfaces: &[Interface], held: &BTreeSet<u32>) -> Self {
        let mut failures = Vec::new();
        let mut note = |error: anyhow::Error| failures.push(format!("{error:#}"));
        let mut guards = protected_interfaces(pins, interfaces).unwrap_or_else(|error| {
            note(error);
            Vec::new()
        });
        // The pins of an interface that is gone wait for `detach`; it has no name to show.
        guards.retain(|guard| {
            interfaces
                .iter()
                .any(|interface| interface.ifindex == guard.ifindex)
        });
        let is_pinned = |ifindex: u32| guards.iter().any(|guard| guard.ifindex == ifindex);
        let unpinned: Vec<ProtectedInterface> = interfaces
            .iter()
            .filter(|found| held.contains(&found.ifindex) && !is_pinned(found.ifindex))
            .map(ProtectedInterface::held)
            .collect();
        guards.extend(unpinned);
        let mut counters = Vec::new();
        let mut suppressed_reports = None;
        if !guards.is_empty() {
            match read_counters(pins, &guards) {
                Ok(read) => counters = read,
                Err(error) => note(error),
            }
            match ReportReader::open(&pins.maps(), StartAt::Now) {
                Ok(reports) => suppressed_reports = Some(reports.suppressed()),
                Err(error) => note(error),
            }
        }
        let policy = Maps::in_use(pins)
            .and_then(|maps| maps.as_ref().map(PolicyReading::read).transpose())
            .unwrap_or_else(|error| {
                note(error);
                None
            });
        Self {
            guards,
            counters,
            suppressed_reports,
            policy,
            failures,
        }
    }

    /// Whether packets from unauthorized sources are dropped on at least one interface.
    pub(super) fn enforces(&self) -> bool {
        let mode = self.policy.as_ref().map(|policy| policy.mode);
        mode == Some(Mode::Enforce as u8) && self.guards.iter().any(|guard| guard.guarded)
    }

    /// The interfaces to guard that are unguarded.
    pub(super) fn unguarded<'a>(&self, health: &'a Health) -> impl Iterator<Item = &'a String> {
        health.interfaces.iter().filter(|name| {
            !self
                .guards
                .iter()
                .any(|guard| guard.guarded && guard.interface == **name)
        })
    }

    /// Why the node may not be guarded as its files say; empty if it is.
    pub(super) fn problems(&self, health: &Health) -> Vec<String> {
        let mut problems = health.problems();
        problems.extend(self.unguarded(health).map(|name| {
            let why = health.refused.get(name);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("`{name}` is not guarded{why}")
        }));
        problems.extend(self.failures.iter().cloned());
        problems
    }
}

/// The counters of each of `guards` that has some, by name.
fn read_counters(
    pins: &Pins,
    guards: &[ProtectedInterface],
) -> Result<Vec<(String, Vec<CounterRow>)>> {
    let counters = Counters::open(&pins.maps())?;
    let mut read = Vec::new();
    for guard in guards {
        if let Some(rows) = counters.read(guard.ifindex)? {
            read.push((guard.interface.clone(), rows));
        }
    }
    Ok(read)
}

impl PolicyReading {
    fn read(maps: &Maps) -> Result<Self> {
        let (record, by, settings) = maps.read_consistent(|slot| {
            Ok((maps.record(slot)?, maps.author(slot)?, maps.settings(slot)?))
        })?;
        let now = Clocks::now()?;
        let trial_left = match maps.standing()? {
            PolicyState::Provisional { until, .. } => Some(until.saturating_sub(now.boot)),
            _ => None,
        };
        let user = |by: &Author| match (&by.user, by.uid) {
            (Some(user), _) => user.clone(),
            (None, uid) => uid.map_or_else(String::new, |uid| uid.to_string()),
        };
        Ok(Self {
            trial_left,
            by: by.map(|by| (by.verb(), user(&by))),
            lists: record.list,
            max_ranges: settings.max_ranges,
            mode: record.mode,
            generation: record.generation,
            applied_at: record.applied_at,
            basis: Basis::of(record.basis),
        })
    }
}
