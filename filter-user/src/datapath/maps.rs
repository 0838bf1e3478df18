//! The policy in the kernel: reading it, and putting a new generation in force.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key};
use bytemuck::Zeroable as _;
use filter_common::{
    Mode, REASON_SLOTS, Verdict,
    map::{
        Counter, DESTINATIONS_V4, DESTINATIONS_V6, POLICY, PolicyRecord, PortSet, PrefixValue,
        SELECTOR, SETTINGS, SETTINGS_LEN, SOURCES_V4, SOURCES_V6,
    },
};
use ipnet::IpNet;

use crate::{config::Settings, explain::explain, problem::Problem, ranges::Prefixes};

/// A policy as it is compiled into a generation.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it is compiled from besides the list.
    pub settings: Settings,
    /// False if the list is the off switch.
    pub enforced: bool,
    /// The authorized sources.
    pub sources: Prefixes,
}

impl Policy {
    /// The mode that packets meet.
    pub fn mode(&self) -> Mode {
        if self.enforced {
            self.settings.mode.mode()
        } else {
            Mode::Off
        }
    }
}

/// One of the two places for a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    const fn other(self) -> Self {
        Self(1 - self.0)
    }
}

type Trie<const N: usize> = LpmTrie<MapData, [u8; N], [u8; size_of::<PrefixValue>()]>;
type Tries<const N: usize> = ArrayOfMaps<MapData, Trie<N>>;

/// The shared maps, opened from their pins.
pub struct Maps {
    directory: PathBuf,
    selector: Array<MapData, u32>,
    policy: Array<MapData, [u8; size_of::<PolicyRecord>()]>,
    settings: Array<MapData, [u8; SETTINGS_LEN]>,
    sources_v4: Tries<4>,
    sources_v6: Tries<16>,
    destinations_v4: Tries<4>,
    destinations_v6: Tries<16>,
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
            sources_v4: open(directory, SOURCES_V4, Map::ArrayOfMaps)?,
            sources_v6: open(directory, SOURCES_V6, Map::ArrayOfMaps)?,
            destinations_v4: open(directory, DESTINATIONS_V4, Map::ArrayOfMaps)?,
            destinations_v6: open(directory, DESTINATIONS_V6, Map::ArrayOfMaps)?,
        })
    }

    /// The slot in force.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn in_force(&self) -> Result<Slot> {
        let slot = self
            .selector
            .get(&0, 0)
            .map_err(|error| explain("read policy", &error))?;
        Ok(Slot(slot & 1))
    }

    /// What the generation in `slot` says besides its prefixes.
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
    /// If the kernel refuses, or they cannot be understood.
    pub fn settings(&self, slot: Slot) -> Result<Settings> {
        let bytes = self
            .settings
            .get(&slot.0, 0)
            .map_err(|error| explain("read settings", &error))?;
        let json = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        serde_json::from_slice(json).map_err(|error| {
            Problem::failed(
                format!("read settings in `{}`: {error}", self.directory.display()),
                "`apifence attach` writes them anew",
            )
        })
    }

    /// Fills the slot that is not in force with `policy`. No packet is judged by it yet.
    ///
    /// # Errors
    /// If the kernel refuses: no memory, no capability. The slot in force is untouched.
    pub fn stage(&mut self, policy: &Policy) -> Result<Slot> {
        let current = self.in_force()?;
        let slot = current.other();
        self.wait_for_packets(current)?;

        let destinations: Prefixes = policy
            .settings
            .destinations
            .iter()
            .map(|range| (*range, 0))
            .collect();
        put(&mut self.sources_v4, slot, &trie::<4>(&policy.sources)?)?;
        put(&mut self.sources_v6, slot, &trie::<16>(&policy.sources)?)?;
        put(&mut self.destinations_v4, slot, &trie::<4>(&destinations)?)?;
        put(&mut self.destinations_v6, slot, &trie::<16>(&destinations)?)?;

        let record = PolicyRecord {
            generation: self.record(current)?.generation + 1,
            applied_at: now(),
            mode: policy.mode() as u8,
            has_destinations: u8::from(!destinations.is_empty()),
            ports: policy.settings.ports.iter().copied().collect::<PortSet>(),
            ..PolicyRecord::zeroed()
        };
        let mut bytes = [0; size_of::<PolicyRecord>()];
        bytes.copy_from_slice(bytemuck::bytes_of(&record));
        self.policy
            .set(slot.0, bytes, 0)
            .map_err(|error| explain("write policy", &error))?;

        let json = serde_json::to_vec(&policy.settings).context("write settings")?;
        let mut bytes = [0; SETTINGS_LEN];
        match bytes.get_mut(..json.len()) {
            Some(room) => room.copy_from_slice(&json),
            None => {
                return Err(Problem::input(
                    format!(
                        "write settings: they take {} bytes, and there is room for {SETTINGS_LEN}",
                        json.len()
                    ),
                    "name fewer destinations, outbound addresses or cluster CIDRs, or wider ones",
                ));
            }
        }
        self.settings
            .set(slot.0, bytes, 0)
            .map_err(|error| explain("write settings", &error))?;
        Ok(slot)
    }

    /// Puts the generation in `slot` in force: one write, after which every packet is judged by it.
    ///
    /// # Errors
    /// If the kernel refuses; the other generation stays in force.
    pub fn select(&mut self, slot: Slot) -> Result<()> {
        // Traffic is affected from here on.
        self.selector
            .set(0, slot.0, 0)
            .map_err(|error| explain("select policy", &error))
    }

    /// Waits until no packet is under judgement that read the selector before its last change.
    ///
    /// Such a packet still reads the slot that is about to be rewritten. The kernel waits for running programs at the end of every
    /// update of a map of maps (`maybe_wait_bpf_programs`, Linux 4.20, commit 1ae80cf31938c8f77c37a29bbe29e7f1cd492be8); so the trie
    /// in force is put in its own place again.
    fn wait_for_packets(&mut self, current: Slot) -> Result<()> {
        match self.sources_v4.get(&current.0, 0) {
            Ok(trie) => put(&mut self.sources_v4, current, &trie),
            // Nothing was ever put in force.
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(explain("read policy", &error)),
        }
    }

    /// The prefix that authorizes `address` in `slot`, from the kernel's own trie.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn authorizing(&self, slot: Slot, address: IpAddr) -> Result<Option<(IpNet, PrefixValue)>> {
        let found = match address {
            IpAddr::V4(v4) => lookup(&self.sources_v4, slot, 32, v4.octets())?,
            IpAddr::V6(v6) => lookup(&self.sources_v6, slot, 128, v6.octets())?,
        };
        Ok(found.map(|value| (IpNet::new_assert(address, value.prefix_len).trunc(), value)))
    }

    /// Every prefix that authorizes a source in `slot`, from the kernel's own tries.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sources(&self, slot: Slot) -> Result<Prefixes> {
        let mut prefixes = Prefixes::new();
        collect(&self.sources_v4, slot, &mut prefixes)?;
        collect(&self.sources_v6, slot, &mut prefixes)?;
        Ok(prefixes)
    }
}

/// Adds every prefix of the trie in `slot` to `prefixes`.
fn collect<const N: usize>(tries: &Tries<N>, slot: Slot, prefixes: &mut Prefixes) -> Result<()>
where
    IpAddr: From<[u8; N]>,
{
    for item in trie_in(tries, slot)?.iter() {
        let (key, value) = item.map_err(|error| explain("read policy", &error))?;
        let value: PrefixValue = bytemuck::cast(value);
        // The kernel holds no prefix length beyond the key's own.
        if let Ok(range) = IpNet::new(IpAddr::from(key.data()), value.prefix_len) {
            prefixes.insert(range, value.origins);
        }
    }
    Ok(())
}

fn open<M>(directory: &Path, name: &str, kind: fn(MapData) -> Map) -> Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    let verb = || format!("open map `{name}`");
    let map = MapData::from_pin(directory.join(name)).map_err(|error| explain(&verb(), &error))?;
    M::try_from(kind(map)).map_err(|error| explain(&verb(), &error))
}

fn trie_in<const N: usize>(tries: &Tries<N>, slot: Slot) -> Result<Trie<N>> {
    tries
        .get(&slot.0, 0)
        .map_err(|error| explain("read policy", &error))
}

fn put<const N: usize>(tries: &mut Tries<N>, slot: Slot, trie: &Trie<N>) -> Result<()> {
    tries
        .set(slot.0, trie, 0)
        .map_err(|error| explain("write policy", &error))
}

fn lookup<const N: usize>(
    tries: &Tries<N>,
    slot: Slot,
    len: u32,
    octets: [u8; N],
) -> Result<Option<PrefixValue>> {
    match trie_in(tries, slot)?.get(&Key::new(len, octets), 0) {
        Ok(value) => Ok(Some(bytemuck::cast(value))),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(explain("read policy", &error)),
    }
}

/// A trie of the prefixes of one family, the one whose addresses have `N` bytes.
fn trie<const N: usize>(prefixes: &Prefixes) -> Result<Trie<N>> {
    let own: Vec<(u32, [u8; N], u8)> = prefixes
        .iter()
        .filter_map(|(range, origins)| {
            let octets = match range {
                IpNet::V4(range) => range.network().octets().as_slice().try_into(),
                IpNet::V6(range) => range.network().octets().as_slice().try_into(),
            };
            Some((u32::from(range.prefix_len()), octets.ok()?, *origins))
        })
        .collect();
    let mut trie = Trie::<N>::create(own.len().max(1) as u32, BPF_F_NO_PREALLOC)
        .map_err(|error| explain("create trie", &error))?;
    for (prefix_len, octets, origins) in own {
        let value = PrefixValue {
            prefix_len: prefix_len as u8,
            origins,
            reserved: [0; 2],
        };
        let bytes: [u8; size_of::<PrefixValue>()] = bytemuck::cast(value);
        trie.insert(&Key::new(prefix_len, octets), bytes, 0)
            .map_err(|error| explain("fill trie", &error))?;
    }
    Ok(trie)
}

/// The kernel takes no LPM trie without it (`trie_alloc` in `kernel/bpf/lpm_trie.c`).
const BPF_F_NO_PREALLOC: u32 = 1;

/// Nanoseconds since 1970-01-01 UTC.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// One counter of an interface.
#[derive(Clone, Copy, Debug)]
pub struct CounterRow {
    /// What it counts.
    pub verdict: Verdict,
    /// The sum over all CPUs.
    pub counter: Counter,
}

/// The counters pinned at `pin`, summed over the CPUs.
///
/// # Errors
/// If they are not there, or the kernel refuses.
pub fn read_counters(pin: &Path) -> Result<Vec<CounterRow>> {
    let verb = "read counters";
    let map = MapData::from_pin(pin).map_err(|error| explain(verb, &error))?;
    let counters: PerCpuArray<MapData, [u8; size_of::<Counter>()]> =
        PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(|error| explain(verb, &error))?;
    debug_assert_eq!(counters.len(), REASON_SLOTS);
    Verdict::all()
        .map(|verdict| {
            let values = counters
                .get(&verdict.slot(), 0)
                .map_err(|error| explain(verb, &error))?;
            let mut sum = Counter::default();
            for value in values.iter() {
                let counter: Counter = bytemuck::pod_read_unaligned(value);
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            Ok(CounterRow {
                verdict,
                counter: sum,
            })
        })
        .collect()
}
