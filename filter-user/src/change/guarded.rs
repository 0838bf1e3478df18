//! The change of the sources of guards: a range that moves from one list to another changes no
//! other port.

use anyhow::Result;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::words::listed;
use crate::{
    clock::Clocks,
    config::Guard,
    kernel::bpf::{Group, Maps},
    policy::{Difference, Policy, Prefixes},
};

/// How many ranges one line names.
const MAX_NAMED: usize = 5;

/// A guard whose listed sources change.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GuardChange {
    #[serde(flatten)]
    guard: Guard,
    /// Its new ranges.
    added: Vec<IpNet>,
    /// Its removed ranges.
    removed: Vec<IpNet>,
}

impl GuardChange {
    /// In one line: ``TCP 2379 (list `a`): +192.0.2.1/32, -192.0.2.2/32``; `would`: the change is
    /// not made.
    pub(crate) fn line(&self, would: bool) -> String {
        let added = self.added.iter().map(|range| format!("+{range}"));
        let removed = self.removed.iter().map(|range| format!("-{range}"));
        let mut words: Vec<String> = added.chain(removed).collect();
        if let more @ 1.. = words.len().saturating_sub(MAX_NAMED) {
            words.truncate(MAX_NAMED);
            words.push(format!("and {more} more"));
        }
        let would = if would { "would be: " } else { "" };
        format!("{would}{}: {}", self.guard, words.join(", "))
    }
}

/// The guards of `policy` whose listed sources differ from those in force in `maps`. A guard with
/// other ports than before is told as a change of settings.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn guard_changes(maps: &Maps, policy: &Policy) -> Result<Vec<GuardChange>> {
    let guards = &policy.settings.guards;
    if guards.is_empty() {
        return Ok(Vec::new());
    }
    let slot = maps.active_slot()?;
    let Ok(have) = maps.settings(slot) else {
        return Ok(Vec::new());
    };
    let (clocks, now) = (Clocks::now()?, Timestamp::now());
    let mut changes = Vec::new();
    for (guard, want) in guards.iter().zip(policy.guards()) {
        let mut before = have.guards.iter();
        let Some(number) = before.position(|before| before.ports == guard.ports) else {
            continue;
        };
        let before = maps.sources_of(slot, Group::guard(number), &clocks)?;
        let live = |sources: &Prefixes| {
            let live = sources.iter().filter(|prefix| prefix.lives(now));
            let ranges = listed(live, now).map(|(range, _)| (range, None));
            ranges.collect::<Vec<_>>().into_iter()
        };
        let Difference { added, removed, .. } = Difference::between(live(&before), live(want));
        if !(added.is_empty() && removed.is_empty()) {
            let guard = guard.clone();
            changes.push(GuardChange {
                guard,
                added,
                removed,
            });
        }
    }
    Ok(changes)
}
