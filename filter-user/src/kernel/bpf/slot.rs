//! The two slots of a policy, and the maps that have one entry or inner map for each.

use std::path::Path;

use anyhow::Result;
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};

use crate::ui::explain::explain;

/// One of the two places for a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The other slot.
    pub const fn other(self) -> Self {
        Self(1 - self.0)
    }
}

/// The generation that judges packets, and its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// The generation in this slot.
    Active(Slot),
    /// The generation in this slot until the deadline; then the other one, unless the operator
    /// confirms it.
    Provisional {
        /// The slot in force.
        slot: Slot,
        /// The deadline, on the boot clock.
        until: u64,
    },
    /// The generation in this slot, since the other one was not confirmed in time.
    RolledBack {
        /// The slot in force.
        slot: Slot,
        /// The deadline that passed, on the boot clock.
        since: u64,
    },
}

impl PolicyState {
    /// The slot of the active generation.
    pub const fn slot(self) -> Slot {
        match self {
            Self::Active(slot) | Self::Provisional { slot, .. } | Self::RolledBack { slot, .. } => {
                slot
            }
        }
    }
}

/// A map of maps with one inner map for each slot.
pub(super) type PerSlot = ArrayOfMaps<MapData, MapData>;

/// Puts `map` into `slot`; returns once no program reads the previous map.
///
/// The kernel waits for running programs at the end of every update of a map of maps
/// (`maybe_wait_bpf_programs`, Linux 4.20, commit 1ae80cf31938c8f77c37a29bbe29e7f1cd492be8).
pub(super) fn put(maps: &mut PerSlot, slot: Slot, map: &MapData) -> Result<()> {
    maps.set(slot.0, map, 0)
        .map_err(|error| explain("write policy", &error))
}

pub(super) fn open<M>(directory: &Path, name: &str, kind: fn(MapData) -> Map) -> Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = open_data(directory, name)?;
    M::try_from(kind(map)).map_err(|error| explain(&format!("open map `{name}`"), &error))
}

pub(super) fn open_data(directory: &Path, name: &str) -> Result<MapData> {
    MapData::from_pin(directory.join(name))
        .map_err(|error| explain(&format!("open map `{name}`"), &error))
}

pub(super) fn open_map_of_maps(directory: &Path, name: &str) -> Result<PerSlot> {
    open(directory, name, Map::ArrayOfMaps)
}
