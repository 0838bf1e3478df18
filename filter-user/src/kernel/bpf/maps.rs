//! The policy in the kernel: the active generation, and its content.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use filter_common::layout::{
    BITMAPS_V4, BITMAPS_V6, DESTINATIONS_V4, DESTINATIONS_V6, POLICY, POLICY_HEADERS, PREFILTER,
    PROVISIONAL, PolicyRecord, SELECTOR, SETTINGS, SETTINGS_LEN, SLOTS, SOURCES_V4, SOURCES_V6,
    Trial, USAGE,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    slot::{Group, PerSlot, PolicyState, Slot, open, open_data},
    tries,
};
use crate::{
    clock::Clocks,
    config::Settings,
    kernel::pins::Pins,
    policy::{Prefix, Prefixes, author::Author},
    ui::{error::UserError, explain::explain},
};

/// The settings as they are stored with a generation.
#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    by: Option<Author>,
}

/// The shared maps, opened from their pins.
pub struct Maps {
    pub(super) directory: PathBuf,
    selector: Array<MapData, u32>,
    policy: Array<MapData, [u8; size_of::<PolicyRecord>()]>,
    pub(super) settings: Array<MapData, [u8; SETTINGS_LEN]>,
    pub(super) sources_v4: PerSlot,
    pub(super) sources_v6: PerSlot,
    pub(super) headers: MapData,
    pub(super) lines: PerSlot,
    /// The bitmaps of IPv4 and of IPv6.
    pub(super) bitmaps: [PerSlot; 2],
    pub(super) destinations_v4: PerSlot,
    pub(super) destinations_v6: PerSlot,
    pub(super) usage: MapData,
}

impl Maps {
    /// Opens the maps pinned in `directory`.
    ///
    /// # Errors
    /// If one is missing, or the kernel refuses.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            selector: open(directory, SELECTOR, Map::Array)?,
            policy: open(directory, POLICY, Map::Array)?,
            settings: open(directory, SETTINGS, Map::Array)?,
            sources_v4: PerSlot::open(directory, SOURCES_V4)?,
            sources_v6: PerSlot::open(directory, SOURCES_V6)?,
            headers: open_data(directory, POLICY_HEADERS)?,
            lines: PerSlot::open(directory, PREFILTER)?,
            bitmaps: [
                PerSlot::open(directory, BITMAPS_V4)?,
                PerSlot::open(directory, BITMAPS_V6)?,
            ],
            destinations_v4: PerSlot::open(directory, DESTINATIONS_V4)?,
            destinations_v6: PerSlot::open(directory, DESTINATIONS_V6)?,
            usage: open_data(directory, USAGE)?,
        })
    }

    /// Renames the directory of these maps, which hold a policy now, to `directory`.
    ///
    /// # Errors
    /// If bpffs refuses, or there is such a directory.
    pub fn publish(&mut self, directory: &Path) -> Result<()> {
        fs::rename(&self.directory, directory).context("pin maps")?;
        *self = Self::open(directory)?;
        Ok(())
    }

    /// Opens the maps in use: those under `pins`, if a filter is attached or was prepared.
    ///
    /// # Errors
    /// If the maps of an attached filter are gone.
    pub fn in_use(pins: &Pins) -> Result<Option<Self>> {
        let interfaces = pins.interfaces()?;
        let directory = pins.maps();
        if directory.exists() {
            return Self::open(&directory).map(Some);
        }
        if interfaces.is_empty() {
            return Ok(None);
        }
        Err(UserError::failed(
            format!(
                "open pins in `{}`: the maps of the attached filter are gone",
                pins.root().display()
            ),
            "the filter keeps its last policy; `apifence attach` gives it new maps",
        ))
    }

    /// The state that the selector encodes, read as the program reads it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn standing(&self) -> Result<PolicyState> {
        let word = self
            .selector
            .get(&0, 0)
            .map_err(|error| explain("read policy", &error))?;
        let slot = Slot(word & (SLOTS - 1));
        if word & PROVISIONAL == 0 {
            return Ok(PolicyState::Active(slot));
        }
        let until = self.record(slot)?.fallback_at;
        Ok(if Clocks::now()?.boot >= until {
            PolicyState::RolledBack {
                slot: slot.other(),
                since: until,
            }
        } else {
            PolicyState::Provisional { slot, until }
        })
    }

    /// The active slot.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn active_slot(&self) -> Result<Slot> {
        Ok(self.standing()?.slot())
    }

    /// The result of `read` on the active slot, all of one generation. If another writer replaced
    /// the generation meanwhile, the slot is read again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read_consistent<T>(&self, read: impl Fn(Slot) -> Result<T>) -> Result<T> {
        loop {
            let slot = self.active_slot()?;
            let generation = self.record(slot)?.generation;
            // Also fails while a writer replaces a map and its pin.
            let found = read(slot);
            if self.active_slot()? == slot && self.record(slot)?.generation == generation {
                return found;
            }
        }
    }

    /// The record of the generation in `slot`: everything except its prefixes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn record(&self, slot: Slot) -> Result<PolicyRecord> {
        let bytes = self
            .policy
            .get(&slot.0, 0)
            .map_err(|error| explain("read policy", &error))?;
        Ok(bytemuck::pod_read_unaligned(&bytes))
    }

    /// The settings that the generation in `slot` was compiled from.
    ///
    /// # Errors
    /// If the kernel refuses, or the settings cannot be parsed.
    pub fn settings(&self, slot: Slot) -> Result<Settings> {
        self.read_settings(slot)
    }

    /// The author of the generation in `slot`; `None` if not known.
    ///
    /// # Errors
    /// As of [`Maps::settings`].
    pub fn author(&self, slot: Slot) -> Result<Option<Author>> {
        let signed: Signed = self.read_settings(slot)?;
        Ok(signed.by)
    }

    fn read_settings<T: DeserializeOwned>(&self, slot: Slot) -> Result<T> {
        let bytes = self
            .settings
            .get(&slot.0, 0)
            .map_err(|error| explain("read settings", &error))?;
        let json = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        serde_json::from_slice(json).map_err(|error| {
            UserError::failed(
                format!("read settings in `{}`: {error}", self.directory.display()),
                "`apifence attach` writes them again",
            )
        })
    }

    /// The active settings in the maps of another layout that are pinned in `directory`, if they
    /// can be read. The selector and the settings have been the same since layout 2.
    pub fn settings_of_layout(directory: &Path) -> Option<Settings> {
        let selector: Array<MapData, u32> = open(directory, SELECTOR, Map::Array).ok()?;
        let settings: Array<MapData, [u8; SETTINGS_LEN]> =
            open(directory, SETTINGS, Map::Array).ok()?;
        let slot = selector.get(&0, 0).ok()? & (SLOTS - 1);
        let bytes = settings.get(&slot, 0).ok()?;
        serde_json::from_slice(bytes.split(|byte| *byte == 0).next()?).ok()
    }

    /// Activates the generation in `slot` for good: one write, after which every packet is judged
    /// by it.
    ///
    /// # Errors
    /// If the kernel refuses; the active generation stays.
    pub fn select(&mut self, slot: Slot) -> Result<()> {
        self.write_selector(slot.0)
    }

    /// Activates the generation in `slot` provisionally for `time`, counted from now. The program
    /// then goes back to the other slot by itself.
    ///
    /// Returns the deadline, on the boot clock.
    ///
    /// # Errors
    /// If the kernel refuses; the active generation stays.
    pub fn select_provisionally(&mut self, slot: Slot, time: Duration) -> Result<u64> {
        let record = self.record(slot)?;
        let until = Clocks::now()?.boot + time.as_nanos() as u64;
        // No packet reads this slot yet. A deadline that was written with the policy would include
        // the time that attaching takes.
        let deadline = PolicyRecord {
            fallback_at: until,
            ..record
        };
        self.write_record(slot, &deadline)?;
        self.write_selector(slot.0 | PROVISIONAL)?;
        Ok(until)
    }

    fn write_selector(&mut self, word: u32) -> Result<()> {
        // Traffic is affected from here on.
        self.selector
            .set(0, word, 0)
            .map_err(|error| explain("select policy", &error))
    }

    /// Records whether the list of the generation in `slot` is being put into the ranges file.
    /// Recovery after a crash never activates an inactive generation without this mark.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mark(&mut self, slot: Slot, commits: bool) -> Result<()> {
        let mut record = self.record(slot)?;
        record.commits = u8::from(commits);
        self.write_record(slot, &record)
    }

    /// Records the outcome of the provisional generation in `slot`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn note_trial(&mut self, slot: Slot, trial: Trial) -> Result<()> {
        let mut record = self.record(slot)?;
        record.trial = trial as u8;
        self.write_record(slot, &record)
    }

    /// The time, on the boot clock, when the last change rolled back; `None` if it did not.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lapsed(&self) -> Result<Option<u64>> {
        let current = self.active_slot()?;
        let (have, last) = (self.record(current)?, self.record(current.other())?);
        let is_last = last.generation > have.generation;
        Ok((is_last && Trial::of(last.trial) == Trial::Lapsed).then_some(last.fallback_at))
    }

    pub(super) fn write_record(&mut self, slot: Slot, record: &PolicyRecord) -> Result<()> {
        let mut bytes = [0; size_of::<PolicyRecord>()];
        bytes.copy_from_slice(bytemuck::bytes_of(record));
        self.policy
            .set(slot.0, bytes, 0)
            .map_err(|error| explain("write policy", &error))
    }

    /// The prefixes around `address` in a group of `slot`, the longest first, from the kernel's own
    /// trie. The longest decides.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn around(
        &self,
        slot: Slot,
        group: Group,
        address: IpAddr,
        now: &Clocks,
    ) -> Result<Vec<Prefix>> {
        let place = (slot, group);
        match address {
            IpAddr::V4(address) => tries::around(&self.sources_v4, place, address.octets(), now),
            IpAddr::V6(address) => tries::around(&self.sources_v6, place, address.octets(), now),
        }
    }

    /// Whether `address` is authorized in a group of `slot`, by the kernel's own trie.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn authorizes(
        &self,
        slot: Slot,
        group: Group,
        address: IpAddr,
        now: &Clocks,
    ) -> Result<bool> {
        let around = self.around(slot, group, address, now)?;
        Ok(around.first().is_some_and(|prefix| prefix.lives(now.wall)))
    }

    /// Every prefix that authorizes a source in `slot`, from the kernel's own tries.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sources(&self, slot: Slot, now: &Clocks) -> Result<Prefixes> {
        self.sources_of(slot, Group::ALL, now)
    }

    /// Every prefix that authorizes a source in a group of `slot`, from the kernel's own tries.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sources_of(&self, slot: Slot, group: Group, now: &Clocks) -> Result<Prefixes> {
        let mut prefixes = tries::all::<4>(&self.sources_v4, (slot, group), now)?;
        prefixes.extend(tries::all::<16>(&self.sources_v6, (slot, group), now)?);
        Ok(prefixes.into_iter().map(|(prefix, _)| prefix).collect())
    }
}
