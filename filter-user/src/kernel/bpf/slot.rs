//! The two slots of a policy, and the maps that have one entry or inner map for each.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, MapError};
use filter_common::layout::{ALL_SOURCES, COMMON_SOURCES, FIRST_GUARD, GROUPS, SLOTS, source_map};

use super::sys::remove_element;
use crate::{
    config::Settings,
    ui::{error::UserError, explain::explain},
};

/// One of the two places for a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The other slot.
    pub const fn other(self) -> Self {
        Self(1 - self.0)
    }

    /// Both slots.
    pub(super) const BOTH: [Self; SLOTS as usize] = [Self(0), Self(1)];

    /// The directory of the pins of its inner maps, among those of all maps in `directory`.
    pub(super) fn pins(self, directory: &Path) -> PathBuf {
        directory.join(format!("slot-{}", self.0))
    }
}

/// A group of sources: those of all lists, those for the ports of a guard, or those that all guards
/// have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

impl Group {
    /// The sources of all lists, and the implicit ones.
    pub const ALL: Self = Self(ALL_SOURCES);
    /// The sources for packets whose port cannot be read, if there are guards.
    pub const COMMON: Self = Self(COMMON_SOURCES);

    /// The sources for the ports of a guard, by its number.
    pub const fn guard(number: usize) -> Self {
        Self(FIRST_GUARD + number as u32)
    }

    /// The group of a port of `settings`.
    pub fn of(settings: &Settings, port: u16) -> Self {
        settings.guard_of(port).map_or(Self::ALL, Self::guard)
    }

    /// The group as a number in the kernel's maps.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// Those besides [`ALL`](Self::ALL), in order: [`COMMON`](Self::COMMON) is the first.
    pub(super) fn of_guards() -> impl DoubleEndedIterator<Item = Self> {
        (COMMON_SOURCES..GROUPS).map(Self)
    }
}

/// The place of an inner map: a slot, and a group in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    slot: Slot,
    group: Group,
}

impl Place {
    /// All places.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let groups = || [Group::ALL].into_iter().chain(Group::of_guards());
        let of = move |slot| groups().map(move |group| Self { slot, group });
        Slot::BOTH.into_iter().flat_map(of)
    }

    const fn index(self) -> u32 {
        source_map(self.slot.0, self.group.0)
    }

    /// The pin of the inner map here of the map `name`, among those of all maps in `directory`.
    pub(super) fn pin(self, name: &str, directory: &Path) -> PathBuf {
        let slot = self.slot.pins(directory);
        match self.group {
            Group::ALL => slot.join(name),
            Group(number) => slot.join(format!("{name}-{number}")),
        }
    }
}

impl From<Slot> for Place {
    fn from(slot: Slot) -> Self {
        (slot, Group::ALL).into()
    }
}

impl From<(Slot, Group)> for Place {
    fn from((slot, group): (Slot, Group)) -> Self {
        Self { slot, group }
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

/// A map of maps with an inner map for each slot, or for each [`Place`], and the pins of the inner
/// maps.
///
/// The kernel reads an element as the id of a map, and opens a map by its id for CAP_SYS_ADMIN
/// alone (`bpf_map_get_fd_by_id`, Linux 6.18). So each inner map has a pin of its own, and the id
/// only says whether the pin is the right one.
pub(super) struct PerSlot {
    /// Elements are written as descriptors, and read as ids.
    maps: Array<MapData, u32>,
    name: &'static str,
    /// The directory of the pins of all maps.
    directory: PathBuf,
}

impl PerSlot {
    /// Opens the map `name` that is pinned in `directory`.
    pub(super) fn open(directory: &Path, name: &'static str) -> Result<Self> {
        Ok(Self {
            maps: open(directory, name, Map::Array)?,
            name,
            directory: directory.to_owned(),
        })
    }

    /// The id of the inner map at `place`; `None` if there is none: no generation was ever in the
    /// slot, or the one there has no such group.
    pub(super) fn id(&self, place: impl Into<Place>) -> Result<Option<u32>> {
        match self.maps.get(&place.into().index(), 0) {
            Ok(id) => Ok(Some(id)),
            // Without groups.
            Err(MapError::KeyNotFound | MapError::OutOfBounds { .. }) => Ok(None),
            Err(error) => Err(explain("read policy", &error)),
        }
    }

    /// Opens the inner map at `place`; `None` if there is none, as for [`id`](Self::id).
    ///
    /// # Errors
    /// If its pin is gone or of another map, as while a writer replaces it.
    pub(super) fn inner(&self, place: impl Into<Place>) -> Result<Option<MapData>> {
        let place = place.into();
        let Some(id) = self.id(place)? else {
            return Ok(None);
        };
        let pin = self.pin_of(place);
        let map = MapData::from_pin(&pin).map_err(|error| explain("read policy", &error))?;
        let info = map.info().map_err(|error| explain("read policy", &error))?;
        if info.id() == id {
            return Ok(Some(map));
        }
        Err(UserError::failed(
            format!("read policy: `{}` is the pin of another map", pin.display()),
            "the pins do not match: `apifence detach`, then `apifence attach`; the port is unfiltered in between",
        ))
    }

    /// Pins `map` and puts it at `place`; returns once no program reads the previous map.
    ///
    /// The pin is replaced in one step. A writer that dies here leaves a slot that is not in force
    /// and not marked as empty, so the next writer replaces all of its maps.
    ///
    /// The kernel waits for running programs at the end of every update of a map of maps
    /// (`maybe_wait_bpf_programs`, Linux 4.20, commit 1ae80cf31938c8f77c37a29bbe29e7f1cd492be8).
    pub(super) fn put(&mut self, place: impl Into<Place>, map: &MapData) -> Result<()> {
        let place = place.into();
        let pin = self.pin_of(place);
        // bpffs takes no dot in a name.
        let aside = pin.with_file_name(format!("{}-new", self.name));
        // A writer that died may have left it.
        let _ = fs::remove_file(&aside);
        map.pin(&aside)
            .map_err(|error| explain("pin maps", &error))?;
        fs::rename(&aside, &pin).with_context(|| format!("pin map at `{}`", pin.display()))?;
        self.set(place, map)
    }

    /// Takes the inner map at `place` out, if there is one, with its pin. No packet reads the slot.
    ///
    /// A writer that dies here leaves a pin without a map, which the next one replaces or removes.
    pub(super) fn remove(&mut self, place: impl Into<Place>) -> Result<()> {
        let place = place.into();
        if self.id(place)?.is_some() {
            let maps = open_data(&self.directory, self.name)?;
            remove_element(maps.fd().as_fd(), place.index())
                .map_err(|error| explain("write policy", &error))?;
        }
        match fs::remove_file(self.pin_of(place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove pin")
            }
            _ => Ok(()),
        }
    }

    /// Waits for all packets that read the selector before its last change: they may still read
    /// the slot that is about to be rewritten. Every update waits, so this puts the map in force
    /// into its own slot again. No other writer may put one there meanwhile.
    pub(super) fn wait_for_packets(&mut self, current: Slot) -> Result<()> {
        match self.inner(current)? {
            Some(map) => self.set(current.into(), &map),
            // No generation was ever activated.
            None => Ok(()),
        }
    }

    fn set(&mut self, place: Place, map: &MapData) -> Result<()> {
        let descriptor = map.fd().as_fd().as_raw_fd() as u32;
        self.maps
            .set(place.index(), descriptor, 0)
            .map_err(|error| explain("write policy", &error))
    }

    fn pin_of(&self, place: Place) -> PathBuf {
        place.pin(self.name, &self.directory)
    }
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
