//! The maps as a process holds them: they outlive their pins, and can be pinned again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, MapError};
use filter_common::layout::{POLICY, PolicyRecord, SETTINGS};

use super::{
    object::{PER_SLOT, SHARED},
    slot::{PerSlot, Place, Slot, open, open_data},
};
use crate::{kernel::pins::make_private, ui::explain::explain};

/// Descriptors of all maps.
pub struct HeldMaps {
    shared: Vec<(&'static str, MapData)>,
    records: Array<MapData, Record>,
    inner: Vec<HeldInner>,
    /// The records of both slots when the inner maps were opened.
    seen: Option<[Record; Slot::BOTH.len()]>,
}

/// A [`PolicyRecord`] as aya moves it.
type Record = [u8; size_of::<PolicyRecord>()];

/// The inner maps of a map of maps.
struct HeldInner {
    name: &'static str,
    maps: PerSlot,
    /// The map at each place, with its id.
    held: Vec<(Place, Option<(u32, MapData)>)>,
}

impl HeldMaps {
    /// Opens the maps pinned in `directory`.
    ///
    /// # Errors
    /// If one is missing, or the kernel refuses.
    pub fn open(directory: &Path) -> Result<Self> {
        let names = SHARED.iter().chain([&SETTINGS]);
        let open_shared = |name: &&'static str| Ok((*name, open_data(directory, name)?));
        let inner = PER_SLOT.iter().map(|name| {
            Ok(HeldInner {
                name,
                maps: PerSlot::open(directory, name)?,
                held: Place::all().map(|place| (place, None)).collect(),
            })
        });
        let mut held = Self {
            shared: names.map(open_shared).collect::<Result<_>>()?,
            records: open(directory, POLICY, Map::Array)?,
            inner: inner.collect::<Result<_>>()?,
            seen: None,
        };
        held.follow();
        Ok(held)
    }

    /// Opens the inner maps that a writer put into the slots since the last call. A writer changes
    /// a slot's record after its maps. A map whose pin is being replaced follows at the next call.
    pub fn follow(&mut self) {
        let records = self.records();
        if records.is_ok() && records.as_ref().ok() == self.seen.as_ref() {
            return;
        }
        self.seen = records.ok();
        for inner in &mut self.inner {
            for (place, held) in &mut inner.held {
                let place = *place;
                let have = held.as_ref().map(|(id, _)| *id);
                let Ok(want) = inner.maps.id(place) else {
                    continue;
                };
                if want == have {
                    continue;
                }
                match (want, inner.maps.inner(place)) {
                    // A group that the new policy does not have.
                    (None, _) => *held = None,
                    (Some(id), Ok(Some(map))) => *held = Some((id, map)),
                    _ => self.seen = None,
                }
            }
        }
    }

    fn records(&self) -> Result<[Record; Slot::BOTH.len()], MapError> {
        let [first, second] = Slot::BOTH.map(|slot| self.records.get(&slot.0, 0));
        Ok([first?, second?])
    }

    /// Whether all maps have their pins in `directory`. One that a writer took out of its place has
    /// none any more, and needs none.
    pub fn are_pinned(&self, directory: &Path) -> bool {
        let mut shared = self.shared.iter().map(|(name, _)| directory.join(name));
        let is_pinned = |inner: &HeldInner, place: Place, id: u32| {
            let is_gone = || inner.maps.id(place).is_ok_and(|now| now != Some(id));
            place.pin(inner.name, directory).exists() || is_gone()
        };
        let mut inner = self.inner.iter();
        shared.all(|pin| pin.exists())
            && inner.all(|inner| {
                let mut held = inner.held.iter();
                held.all(|(place, held)| {
                    let held = held.as_ref();
                    held.is_none_or(|(id, _)| is_pinned(inner, *place, *id))
                })
            })
    }

    /// Pins all maps in `directory`, which must be empty.
    ///
    /// An inner map that is not the one in its slot is left out: it would show another list than
    /// the one in force.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn pin(&self, directory: &Path) -> Result<()> {
        let pin = |map: &MapData, path: PathBuf| {
            map.pin(path).map_err(|error| explain("pin maps", &error))
        };
        for (name, map) in &self.shared {
            pin(map, directory.join(name))?;
        }
        for slot in Slot::BOTH {
            make_private(&slot.pins(directory)).context("pin maps")?;
        }
        for inner in &self.inner {
            for (place, held) in &inner.held {
                if let Some((id, map)) = held
                    && inner.maps.id(*place)? == Some(*id)
                {
                    pin(map, place.pin(inner.name, directory))?;
                }
            }
        }
        Ok(())
    }
}
