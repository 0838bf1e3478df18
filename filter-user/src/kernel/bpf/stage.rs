//! A new generation, made beside the one in force.

use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use bytemuck::{Zeroable as _, zeroed_box};
use filter_common::map::{Gate, PolicyRecord, PortSet, SETTINGS_LEN};
use serde::Serialize;

use super::{
    batch::Batch,
    maps::{Maps, Slot, Standing, write_record},
    table::taken,
    tries,
    usage::{Identity, identify},
};
use crate::{
    clock::Moment,
    config::Settings,
    policy::{Policy, Prefix, Prefixes, author::Author},
    ui::{error::Problem, explain::explain},
};

impl Maps {
    /// Fills the slot that is not in force with `policy`. No packet is judged by it yet. `commits`
    /// tells whether its list goes into the ranges file with it. `done` hears how many more
    /// prefixes are in.
    ///
    /// # Errors
    /// If the kernel refuses: no memory, no capability. The slot in force is untouched.
    pub fn stage(
        &mut self,
        policy: &Policy,
        commits: bool,
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<Slot> {
        // Otherwise the other slot is not free: the program may go back to it at any time.
        let Standing::Settled(current) = self.standing()? else {
            bail!("write policy: the one in force is provisional");
        };
        let slot = current.other();
        let settings = settings_bytes(policy)?;
        let now = Moment::now()?;
        let destinations: Prefixes = policy
            .settings
            .destinations
            .iter()
            .map(|range| Prefix {
                range: *range,
                origins: 0,
                expires: None,
            })
            .collect();

        self.ahead()?;
        // Taken: whoever tries again after a failure begins anew.
        let mut ahead = self.ahead.take().context("a change that was not begun")?;
        ahead.blank.end()?;
        let known = ahead.known()?;
        let (have, spare) = (self.record(current)?, self.record(slot)?);
        ensure!(
            spare.blank == 1,
            "write policy: the other slot is not blank"
        );
        // Whoever dies from here on leaves a slot that is neither blank nor a generation.
        let mut begun = PolicyRecord { blank: 0, ..spare };
        self.write_record(slot, &begun)?;
        // A generation that was taken back has given ids away, too, and its number.
        let mut next_id = have.next_id.max(spare.next_id);
        let identities = identify(policy.sources(), known, &mut next_id, &now);
        let sources = || policy.sources().iter().zip(identities.iter().copied());
        let table = thread::scope(|scope| {
            let tries_v6 = &self.sources_v6;
            let v6 = spawn(scope, || {
                tries::fill::<16, 20>(tries_v6, slot, sources(), &now, done)
            })?;
            let tries_v4 = &self.sources_v4;
            let v4 = spawn(scope, || {
                tries::fill::<4, 8>(tries_v4, slot, sources(), &now, done)
            })?;
            let table = policy.table();
            let (line_chunks, block_chunks) = taken(table);
            begun.line_chunks = begun.line_chunks.max(line_chunks);
            begun.block_chunks = block_chunks;
            write_record(&mut self.policy, slot, &begun)?;
            self.chunks.fill(slot, table)?;
            join(v4).and(join(v6)).map(|()| table)
        })?;
        let destinations = || {
            destinations
                .iter()
                .map(|prefix| (prefix, Identity::default()))
        };
        tries::fill::<4, 8>(&self.destinations_v4, slot, destinations(), &now, |_| ())?;
        tries::fill::<16, 20>(&self.destinations_v6, slot, destinations(), &now, |_| ())?;

        self.settings
            .set(slot.0, settings, 0)
            .map_err(|error| explain("write settings", &error))?;
        let mut gate: Box<Gate> = zeroed_box();
        gate.filled = 1;
        gate.mode = policy.mode() as u8;
        gate.decapsulates = policy.decapsulation.bits();
        gate.has_destinations = u8::from(!policy.settings.destinations.is_empty());
        gate.ports = policy.settings.ports.iter().copied().collect::<PortSet>();
        gate.start = *table.start;
        Batch::of(&self.gates)?
            .fill([(slot.0.to_ne_bytes(), bytemuck::bytes_of(&*gate))], |_| ())
            .map_err(|error| explain("write policy", &error))?;
        // The record comes last: with its number the generation is complete.
        let now = Moment::now()?;
        // Other implicit sources, as after a change of the node's addresses, are not a change of what somebody asked for.
        let same = (have.list, have.mode, have.basis)
            == (policy.list, policy.mode() as u8, policy.basis as u8)
            && self
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
            lines: table.lines.len() as u32,
            line_chunks: begun.line_chunks,
            block_chunks: begun.block_chunks,
            ..PolicyRecord::zeroed()
        };
        self.write_record(slot, &record)?;
        Ok(slot)
    }
}

/// A thread that ends with `scope`.
pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T>>> {
    thread::Builder::new()
        .spawn_scoped(scope, work)
        .context("start thread")
}

pub(super) fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    ended(handle.join())
}

/// What a thread came to.
pub(super) fn ended<T>(end: thread::Result<Result<T>>) -> Result<T> {
    match end {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What is kept with each generation: its settings, and who wanted it.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    settings: &'a Settings,
    by: &'a Author,
}

/// The settings of `policy` as the kernel keeps them.
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
            return Err(Problem::input(
                format!(
                    "write settings: they take {} bytes, and there is room for {SETTINGS_LEN}",
                    json.len()
                ),
                "name fewer ports, destinations, outbound addresses or cluster CIDRs, or wider ones",
            ));
        }
    }
    Ok(bytes)
}
