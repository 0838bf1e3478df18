//! Recovery: the next command completes or undoes what a dead writer or a passed deadline left.

use anyhow::Result;
use filter_common::layout::{PolicyRecord, Trial};

use crate::{
    clock::Clocks,
    context::Context,
    kernel::bpf::{Maps, PolicyState, Slot},
    ranges::{ListName, Lists},
    store::Pending,
    ui::{error::UserError, output::eprint},
};

/// A provisional change.
pub(crate) struct Waiting {
    /// The slot of its generation, which is in force.
    pub(crate) slot: Slot,
    /// The list that it changes, if it changes one.
    pub(crate) name: ListName,
    pub(crate) pending: Pending,
    /// Its deadline, on the boot clock in nanoseconds.
    pub(crate) until: u64,
}

impl Waiting {
    /// The refusal of another change.
    pub(crate) fn problem(&self) -> Result<anyhow::Error> {
        let now = Clocks::now()?;
        Ok(UserError::failed(
            format!(
                "another change is on trial for {} s more",
                self.until.saturating_sub(now.boot).div_ceil(1_000_000_000)
            ),
            "`apifence confirm` keeps it, `apifence ranges rollback` undoes it; then try again",
        ))
    }
}

/// Makes file and kernel agree again; returns the change that waits for confirmation. The caller
/// must hold the writer's lock.
///
/// A writer marks its staged generation, replaces the file, and selects the generation, in this
/// order; so does a confirmation. A marked generation with the file's list lacks only the last
/// step. Without the mark the file's content does not matter.
pub(crate) fn recover(context: &Context, maps: &mut Maps) -> Result<Option<Waiting>> {
    let standing = maps.standing()?;
    let pending = context.list_files().pending();
    let slot = standing.slot();
    match (standing, pending) {
        (PolicyState::Provisional { .. }, None) if committed(context, &maps.record(slot)?) => {
            eprint("note: completed an interrupted confirmation");
            maps.select(slot)?;
        }
        // Its list may be pending next to another ranges file. Its deadline or `rollback` ends it.
        (PolicyState::Provisional { until, .. }, pending) => {
            let (name, pending) = pending.unwrap_or_else(|| {
                let pending = Pending::of(&context.list_files().file(&ListName::default()));
                (ListName::default(), pending)
            });
            return Ok(Some(Waiting {
                slot,
                name,
                pending,
                until,
            }));
        }
        (PolicyState::RolledBack { .. }, pending) => {
            let refused = slot.other();
            if pending.is_none() && committed(context, &maps.record(refused)?) {
                eprint("note: completed an interrupted confirmation");
                maps.select(refused)?;
            } else {
                eprint(
                    "note: the last change was not confirmed in time and reverted: the previous policy is in force",
                );
                maps.mark(refused, false)?;
                maps.note_trial(refused, Trial::Lapsed)?;
                maps.select(slot)?;
            }
            if let Some((_, pending)) = pending {
                pending.remove();
            }
        }
        (PolicyState::Active(_), pending) => {
            let (have, staged) = (maps.record(slot)?, maps.record(slot.other())?);
            if staged.generation > have.generation && staged.commits != 0 {
                if pending.is_none() && committed(context, &staged) {
                    eprint("note: completed an interrupted change");
                    maps.select(slot.other())?;
                } else {
                    maps.mark(slot.other(), false)?;
                }
            }
            if let Some((_, pending)) = pending {
                pending.remove();
            }
        }
    }
    Ok(None)
}

/// Whether `record` is marked and its list is that of the files.
fn committed(context: &Context, record: &PolicyRecord) -> bool {
    let is_in_files = || {
        let Ok(read) = context.read_lists() else {
            return false;
        };
        let is_it = |lists: &Lists| lists.digest() == record.list;
        // Another list may have changed since; the saved policy has it as it was.
        let saved = context.last_good();
        let mut one = read.lists.iter();
        is_it(&read.lists) || one.any(|(name, file)| is_it(&saved.with(name, file.clone())))
    };
    record.commits != 0 && is_in_files()
}
