//! Ports with lists of their own, as they are shown.

use std::{collections::BTreeSet, fmt};

use anyhow::Result;
use filter_common::layout::Origin;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::Clocks,
    config::{Guard, Settings, join, named},
    kernel::bpf::{Group, Maps, Slot},
    policy::Prefixes,
    ranges::ListName,
};

/// Ports with lists of their own.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GuardStatus {
    /// Its TCP ports.
    ports: BTreeSet<u16>,
    /// The names of its lists.
    lists: BTreeSet<ListName>,
    /// The ranges of the lists that authorize now.
    ranges: usize,
}

impl GuardStatus {
    /// The guards of the policy with `settings` in `slot`.
    pub(crate) fn read(
        maps: &Maps,
        slot: Slot,
        settings: &Settings,
        now: &Clocks,
    ) -> Result<Vec<Self>> {
        let guards = settings.guards.iter().enumerate();
        let guards = guards.map(|(number, guard)| {
            let sources = maps.sources_of(slot, Group::guard(number), now)?;
            Ok(Self::new(guard, &sources, now.wall))
        });
        guards.collect()
    }

    fn new(guard: &Guard, sources: &Prefixes, now: Timestamp) -> Self {
        let listed = sources
            .iter()
            .filter(|prefix| prefix.origins & Origin::List as u8 != 0 && prefix.lives(now));
        Self {
            ports: guard.ports.clone(),
            lists: guard.lists.clone(),
            ranges: listed.count(),
        }
    }
}

impl fmt::Display for GuardStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TCP {}: {}, ranges: {}",
            join(&self.ports),
            named(&self.lists),
            self.ranges
        )?;
        match self.ranges {
            0 => f.write_str("; closed to all but this node"),
            _ => Ok(()),
        }
    }
}
