//! A new generation, built in the inactive slot.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use bytemuck::{Zeroable as _, zeroed_box};
use filter_common::{
    layout::{PolicyHeader, PolicyRecord, PortSet, SETTINGS_LEN, SOURCES_V4, SOURCES_V6},
    prefilter::{Block, Line},
};
use serde::Serialize;

use super::{
    batch::Batch,
    maps::Maps,
    slot::{Group, PerSlot, PolicyState, Slot},
    table,
    tries::{self, RangeId},
    usage::{self, Known, assign_ids},
};
use crate::{
    clock::Clocks,
    config::Settings,
    policy::{Policy, Prefix, author::Author},
    ui::{error::UserError, explain::explain},
};

/// A change in progress. Nothing is written before [`fill`](Self::fill).
pub struct Staging {
    current: Slot,
    /// The thread that reads the active prefixes.
    reading: Option<JoinHandle<Result<Known>>>,
    known: Known,
}

impl Maps {
    /// Begins a change. The active ranges are read while the caller parses the new list. No other
    /// writer may select a slot until the change ends.
    ///
    /// # Errors
    /// If a provisional change is pending, or the kernel refuses.
    pub fn begin(&self) -> Result<Staging> {
        // The program may return to the other slot at any time, so it is not free.
        let PolicyState::Active(current) = self.standing()? else {
            bail!("write policy: a change is on trial");
        };
        let now = Clocks::now()?;
        let open = |name| PerSlot::open(&self.directory, name);
        let (v4, v6) = (open(SOURCES_V4)?, open(SOURCES_V6)?);
        let reading = thread::Builder::new()
            .spawn(move || usage::known(&v4, &v6, current, &now))
            .context("start thread")?;
        Ok(Staging {
            current,
            reading: Some(reading),
            known: Known::new(),
        })
    }

    /// Empties the inactive slot, unless a provisional change may roll back to it. That frees its
    /// memory, and the next change does not wait for packets. No other writer may select a slot
    /// meanwhile.
    ///
    /// # Errors
    /// If the kernel refuses; the slot in force is untouched, and the next change tries again.
    pub fn free_previous(&mut self) -> Result<()> {
        let PolicyState::Active(current) = self.standing()? else {
            return Ok(());
        };
        let slot = current.other();
        let mut record = self.record(slot)?;
        if record.is_empty == 1 {
            return Ok(());
        }
        self.sources_v4.wait_for_packets(current)?;
        // It is not to be selected from here on.
        record.commits = 0;
        self.write_record(slot, &record)?;
        let [bitmap_v4, bitmap_v6] = &mut self.bitmaps;
        side_by_side([
            Box::new(|| clear_sources::<8>(&mut self.sources_v4, slot)),
            Box::new(|| clear_sources::<20>(&mut self.sources_v6, slot)),
            Box::new(|| tries::clear::<8>(&mut self.destinations_v4, slot)),
            Box::new(|| tries::clear::<20>(&mut self.destinations_v6, slot)),
            Box::new(|| table::put_array::<Line>(&mut self.lines, slot, &[])),
            Box::new(|| table::put_array::<Block>(bitmap_v4, slot, &[])),
            Box::new(|| table::put_array::<Block>(bitmap_v6, slot, &[])),
        ])?;
        record.is_empty = 1;
        self.write_record(slot, &record)
    }

    /// Fills the maps in `slot`, which is empty, with the prefixes of `policy`, and its table.
    fn fill_inner_maps(
        &mut self,
        slot: Slot,
        policy: &Policy,
        ids: &[RangeId],
        now: &Clocks,
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<()> {
        let sources = Sources {
            slot,
            policy,
            ids,
            now,
            done,
        };
        let (v4, v6) = (&mut self.sources_v4, &mut self.sources_v6);
        let [bitmap_v4, bitmap_v6] = &mut self.bitmaps;
        side_by_side([
            Box::new(|| sources.fill::<4, 8>(v4)),
            Box::new(|| sources.fill::<16, 20>(v6)),
            Box::new(|| table::fill(&mut self.lines, slot, &policy.table().lines)),
            Box::new(|| table::fill(bitmap_v4, slot, &policy.table().bitmaps[0])),
            Box::new(|| table::fill(bitmap_v6, slot, &policy.table().bitmaps[1])),
        ])?;
        let destinations: Vec<Prefix> = policy
            .settings
            .destinations
            .iter()
            .map(|range| Prefix {
                range: *range,
                origins: 0,
                expires: None,
            })
            .collect();
        let destinations = || destinations.iter().map(|one| (one, RangeId::default()));
        let (v4, v6) = (&self.destinations_v4, &self.destinations_v6);
        tries::fill::<4, 8>(v4, slot, destinations(), now, |_| ())?;
        tries::fill::<16, 20>(v6, slot, destinations(), now, |_| ())
    }
}

/// Empties the tries in `slot`: that of all sources, and then those of groups, which are gone after
/// that. The first of them goes last, so that there are no others without it.
fn clear_sources<const K: usize>(tries: &mut PerSlot, slot: Slot) -> Result<()> {
    tries::clear::<K>(tries, slot)?;
    if tries.id((slot, Group::COMMON))?.is_none() {
        return Ok(());
    }
    let mut groups = Group::of_guards().rev();
    groups.try_for_each(|group| tries.remove((slot, group)))
}

/// The sources of a policy, to fill the tries of a slot with.
struct Sources<'a> {
    slot: Slot,
    policy: &'a Policy,
    /// The ids of all sources, in order.
    ids: &'a [RangeId],
    now: &'a Clocks,
    done: &'a (dyn Fn(usize) + Sync),
}

impl Sources<'_> {
    /// Fills the tries of one family, with addresses of `N` bytes and keys of `K`.
    fn fill<const N: usize, const K: usize>(&self, tries: &mut PerSlot) -> Result<()> {
        let (slot, policy, now) = (self.slot, self.policy, self.now);
        let all = || policy.sources().iter().zip(self.ids.iter().copied());
        tries::fill::<N, K>(tries, slot, all(), now, self.done)?;
        let guards = policy.guards().iter().enumerate();
        let guards = guards.map(|(number, sources)| (Group::guard(number), sources));
        let common = (!policy.guards().is_empty()).then_some((Group::COMMON, policy.common()));
        for (group, sources) in common.into_iter().chain(guards) {
            let place = (slot, group);
            tries::clear::<K>(tries, place)?;
            // A range counts its packets in one place, whatever their ports: both are in order.
            let mut all = all().peekable();
            let own = sources.iter().filter_map(|prefix| {
                while all
                    .next_if(|(other, _)| other.range < prefix.range)
                    .is_some()
                {}
                let (_, id) = all
                    .peek()
                    .filter(|(other, _)| other.range == prefix.range)?;
                Some((prefix, *id))
            });
            tries::fill::<N, K>(tries, place, own, now, |_| ())?;
        }
        Ok(())
    }
}

/// What is done to one map.
type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Runs all of `work` in parallel threads, so that their waits for running programs overlap
/// (`PerSlot::put`).
fn side_by_side<const N: usize>(work: [Work<'_>; N]) -> Result<()> {
    thread::scope(|scope| {
        let threads = work.map(|work| thread::Builder::new().spawn_scoped(scope, work));
        let ends = threads
            .into_iter()
            .map(|thread| join(thread.context("start thread")?.join()));
        ends.fold(Ok(()), Result::and)
    })
}

impl Staging {
    /// The active prefixes when the change began, in the order of their ranges.
    ///
    /// # Errors
    /// If the kernel refused. Later calls do not report it again.
    pub fn active_ranges(&mut self) -> Result<impl Iterator<Item = &Prefix>> {
        Ok(self.known()?.iter().map(|(prefix, _)| prefix))
    }

    fn known(&mut self) -> Result<&Known> {
        if let Some(reading) = self.reading.take() {
            self.known = join(reading.join())?;
        }
        Ok(&self.known)
    }

    /// Fills the inactive slot with `policy`. No packet is judged by it yet.
    ///
    /// `commits` tells whether its list goes into the ranges file with it. `done` gets the number
    /// of new prefixes, repeatedly.
    ///
    /// # Errors
    /// If the kernel refuses: no memory, or no capability. The active slot is untouched.
    pub fn fill(
        mut self,
        maps: &mut Maps,
        policy: &Policy,
        commits: bool,
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<Slot> {
        let (current, slot) = (self.current, self.current.other());
        let settings = settings_bytes(policy)?;
        let now = Clocks::now()?;
        let (have, spare) = (maps.record(current)?, maps.record(slot)?);
        // A generation that was rolled back has used up ids and its number, too.
        let mut next_id = have.next_id.max(spare.next_id);
        let ids = assign_ids(policy.sources(), self.known()?, &mut next_id, &now);
        // A writer that died may have left it filled, or half filled.
        maps.free_previous()?;
        let begun = PolicyRecord {
            is_empty: 0,
            commits: 0,
            ..spare
        };
        maps.write_record(slot, &begun)?;
        maps.fill_inner_maps(slot, policy, &ids, &now, done)?;

        maps.settings
            .set(slot.0, settings, 0)
            .map_err(|error| explain("write settings", &error))?;
        let header = header(policy);
        Batch::of(&maps.headers)?
            .fill(
                [(slot.0.to_ne_bytes(), bytemuck::bytes_of(&*header))],
                |_| (),
            )
            .map_err(|error| explain("write policy", &error))?;
        // The record comes last: its number marks the generation as complete.
        let now = Clocks::now()?;
        // Implicit sources may differ, as after a change of the node's addresses. That is not a
        // change that an operator asked for.
        let same = (have.list, have.mode, have.basis)
            == (policy.list, policy.mode() as u8, policy.basis as u8)
            && maps
                .settings(current)
                .is_ok_and(|settings| settings == policy.settings);
        let record = PolicyRecord {
            generation: have.generation.max(spare.generation) + 1,
            applied_at: if same {
                have.applied_at
            } else {
                now.wall.as_nanosecond() as u64
            },
            basis: policy.basis as u8,
            list: policy.list,
            next_id,
            mode: policy.mode() as u8,
            decapsulates: policy.decapsulation.bits(),
            commits: u8::from(commits),
            ..PolicyRecord::zeroed()
        };
        maps.write_record(slot, &record)?;
        Ok(slot)
    }
}

/// The result of a thread; its panic goes on here.
fn join<T>(end: thread::Result<Result<T>>) -> Result<T> {
    match end {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The header of `policy`.
fn header(policy: &Policy) -> Box<PolicyHeader> {
    let settings = &policy.settings;
    let mut header: Box<PolicyHeader> = zeroed_box();
    header.filled = 1;
    header.mode = policy.mode() as u8;
    header.decapsulates = policy.decapsulation.bits();
    header.has_destinations = u8::from(!settings.destinations.is_empty());
    header.ports = settings.protected().into_iter().collect::<PortSet>();
    header.prefilter = *policy.table().start;
    header.has_groups = u8::from(!settings.guards.is_empty());
    for (number, guard) in settings.guards.iter().enumerate() {
        for port in &guard.ports {
            header.groups.put(*port, Group::guard(number).number());
        }
    }
    header
}

/// The stored form of a generation's settings and author.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    settings: &'a Settings,
    by: &'a Author,
}

/// The settings of `policy` in the kernel's form.
fn settings_bytes(policy: &Policy) -> Result<[u8; SETTINGS_LEN]> {
    let stored = Stored {
        settings: &policy.settings,
        by: &policy.by,
    };
    let json = serde_json::to_vec(&stored).context("write settings")?;
    let mut bytes = [0; SETTINGS_LEN];
    match bytes.get_mut(..json.len()) {
        Some(room) => room.copy_from_slice(&json),
        None => {
            return Err(UserError::input(
                format!(
                    "write settings: they need {} bytes; the maximum is {SETTINGS_LEN}",
                    json.len()
                ),
                "use fewer ports, destinations, outbound addresses or cluster CIDRs, or wider CIDRs",
            ));
        }
    }
    Ok(bytes)
}
