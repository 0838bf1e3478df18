//! A policy is put in force, all of it or nothing, with the list that goes into the ranges file.

use std::time::Duration;

use anyhow::Result;
use filter_common::layout::Trial;
use jiff::Timestamp;

use super::build::report_unsaved;
use crate::{
    clock::{Clocks, to_second},
    kernel::bpf::{Maps, PolicyState, Slot, Staging},
    policy::Policy,
    store::{Committed, Pending, Staged, StagedPolicy},
    ui::{output::say, progress::Progress},
};

/// What is to be in force together.
pub(crate) struct Transaction<'a> {
    /// The change as it was begun.
    pub(crate) staging: Staging,
    pub(crate) policy: &'a Policy,
    /// Its list, if it goes into the ranges file with it.
    pub(crate) file: Option<Staged>,
    /// The same policy for the state directory; not with a provisional one, which a reboot ends.
    pub(crate) kept: Option<StagedPolicy>,
    /// Makes it provisional. Without a `file` the ranges file says its list already, or is none of
    /// its business: `trial` tells.
    pub(crate) within: Option<Duration>,
    /// What kind of trial that is.
    pub(crate) trial: Trial,
}

/// Puts all of `change` in force, or nothing; `between` is done while the policy lies in its slot, and nothing is
/// changed yet. Returns the deadline if it is provisional.
///
/// Whatever line this dies after: until `select` packets meet the old list; and what is then half
/// done, `settle` completes or takes back. Once it is told that the policy is in force,
/// [`clear_up`] and the history are to follow.
pub(crate) fn put_in_force<T>(
    maps: &mut Maps,
    change: Transaction<'_>,
    progress: &Progress,
    between: impl FnOnce(&mut Maps, Slot) -> Result<T>,
) -> Result<(T, Option<Timestamp>)> {
    let Transaction {
        staging,
        policy,
        file: staged,
        kept,
        within,
        trial,
    } = change;
    progress.expect(policy.sources().len());
    let done = |more| progress.advance(more);
    let Some(time) = within else {
        let slot = staging
            .fill(maps, policy, staged.is_some(), &done)
            .inspect_err(|_| forget(maps))?;
        let put = between(maps, slot).and_then(|between| {
            let committed = staged.map(Staged::commit).transpose()?;
            let kept = kept.and_then(|kept| report_unsaved(kept.commit()));
            if let Err(error) = maps.select(slot) {
                if let Some(kept) = kept {
                    kept.undo();
                }
                committed.map_or(Ok(()), Committed::undo)?;
                return Err(error);
            }
            Ok(between)
        });
        return Ok((put.inspect_err(|_| forget(maps))?, None));
    };
    let pending = staged.map(Staged::park).transpose()?;
    let put = staging.fill(maps, policy, false, &done).and_then(|slot| {
        let between = between(maps, slot)?;
        maps.note_trial(slot, trial)?;
        let now = Clocks::now()?;
        let until = maps.select_provisionally(slot, time)?;
        Ok((between, to_second(now.wall_at_boot(until))))
    });
    match put {
        Ok((between, until)) => Ok((between, Some(until))),
        Err(error) => {
            forget(maps);
            pending.iter().for_each(Pending::remove);
            Err(error)
        }
    }
}

/// A generation that failed on its way must not be taken for one that lacks the last step alone,
/// and gives back what it took.
fn forget(maps: &mut Maps) {
    // The failure that brought us here is the one to tell.
    if let Ok(PolicyState::Active(current)) = maps.standing() {
        let _ = maps.mark(current.other(), false);
        let _ = maps.free_previous();
    }
}

/// What comes once a policy is in force, and can wait: the one before gives back its memory, and the
/// usage of the ranges in force gets room. The policy does not depend on it.
pub(crate) fn clear_up(maps: &mut Maps) {
    if let Err(error) = maps.free_previous() {
        say(format_args!(
            "warning: clear up after the generation before: {error:#}: the next change does it"
        ));
    }
    if let Err(error) = maps.make_room_for_usage() {
        say(format_args!(
            "warning: {error:#}: what some ranges are used for is not counted"
        ));
    }
}
