//! A new generation, made beside the one in force.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytemuck::Zeroable as _;
use filter_common::map::{PolicyRecord, PortSet, SETTINGS_LEN};

use super::{
    maps::{Ahead, Maps, Policy, Slot, Standing},
    table, tries,
    usage::{Identity, identify},
};
use crate::{
    clock::Moment,
    explain::explain,
    problem::Problem,
    ranges::{Prefix, Prefixes, Table},
};

impl Maps {
    /// Fills the slot that is not in force with `policy`. No packet is judged by it yet. With `provisional` it will be in force for
    /// that long, counted from now, if nobody confirms it. `commits` tells whether its list goes into the ranges file with it. `done` hears how many more prefixes are in.
    ///
    /// # Errors
    /// If the kernel refuses: no memory, no capability. The slot in force is untouched.
    pub fn stage(
        &mut self,
        policy: &Policy,
        provisional: Option<Duration>,
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

        // Two waits in all, however many maps there are: one before the slot is written, one for all that is put there.
        if self.ahead.is_none() {
            self.expect_change()?;
        }
        let Ahead { known, quiet } = self.ahead.take().expect("it was put there just now");
        let known = ended(known.join())?;
        let (have, spare) = (self.record(current)?, self.record(slot)?);
        // A generation that was taken back has given ids away, too.
        let mut next_id = have.next_id.max(spare.next_id);
        let identities = identify(&policy.sources, &known, &mut next_id, &now);
        let sources = || policy.sources.iter().zip(identities.iter().copied());
        let anonymous = || {
            destinations
                .iter()
                .map(|prefix| (prefix, Identity::default()))
        };
        let (v4, v6, table, lines, destinations_v4, destinations_v6) = thread::scope(|scope| {
            let v6 = spawn(scope, || tries::build::<16, 20>(sources(), &now, done))?;
            let v4 = tries::build::<4, 8>(sources(), &now, done);
            let table = Table::new(&policy.sources);
            let lines = table::build(&table);
            let destinations_v4 = tries::build::<4, 8>(anonymous(), &now, |_| ());
            let destinations_v6 = tries::build::<16, 20>(anonymous(), &now, |_| ());
            anyhow::Ok((
                v4?,
                join(v6)?,
                table,
                lines?,
                destinations_v4?,
                destinations_v6?,
            ))
        })?;
        ended(quiet.join())?;
        self.replaced
            .extend(tries::replaceable(&self.sources_v4, slot));
        self.replaced
            .extend(tries::replaceable(&self.sources_v6, slot));
        self.replaced.extend(tries::replaceable(&self.tables, slot));
        thread::scope(|scope| {
            let puts = [
                spawn(scope, || tries::put(&mut self.sources_v4, slot, &v4)),
                spawn(scope, || tries::put(&mut self.sources_v6, slot, &v6)),
                spawn(scope, || {
                    table::put(&self.table_roots, &mut self.tables, slot, &table, &lines)
                }),
                spawn(scope, || {
                    tries::put(&mut self.destinations_v4, slot, &destinations_v4)
                }),
                spawn(scope, || {
                    tries::put(&mut self.destinations_v6, slot, &destinations_v6)
                }),
            ];
            puts.into_iter().try_for_each(|put| join(put?))
        })?;

        self.settings
            .set(slot.0, settings, 0)
            .map_err(|error| explain("write settings", &error))?;
        // The record comes last: with its number the generation is complete.
        let now = Moment::now()?;
        let record = PolicyRecord {
            generation: have.generation + 1,
            applied_at: now.wall.as_nanosecond() as u64,
            fallback_at: provisional.map_or(0, |time| now.boot + time.as_nanos() as u64),
            list: policy.list,
            next_id,
            mode: policy.mode() as u8,
            commits: u8::from(commits),
            has_destinations: u8::from(!policy.settings.destinations.is_empty()),
            ports: policy.settings.ports.iter().copied().collect::<PortSet>(),
            ..PolicyRecord::zeroed()
        };
        self.write_record(slot, &record)?;
        Ok(slot)
    }
}

/// A thread that ends with `scope`.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T>>> {
    thread::Builder::new()
        .spawn_scoped(scope, work)
        .context("start thread")
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    ended(handle.join())
}

/// What a thread came to.
fn ended<T>(end: thread::Result<Result<T>>) -> Result<T> {
    match end {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The settings of `policy` as the kernel keeps them.
fn settings_bytes(policy: &Policy) -> Result<[u8; SETTINGS_LEN]> {
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
                "name fewer ports, destinations, outbound addresses or cluster CIDRs, or wider ones",
            ));
        }
    }
    Ok(bytes)
}
