//! `apifence confirm`: keeps a provisional change.

use anyhow::Result;
use serde::Serialize;

use super::{
    Context,
    change::clear_up,
    policy::keep_in_force,
    settle::{Waiting, settle},
};
use crate::{
    datapath::Maps,
    output::say,
    problem::Problem,
    state::{History, WriterLock, read_ranges},
};

#[derive(Serialize)]
struct Confirmed {
    /// The number of the generation that stays in force.
    generation: u64,
    /// How many ranges its list has.
    ranges: usize,
}

/// Runs the command.
pub(super) fn run(context: &Context) -> Result<u8> {
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    let mut maps = context.attached_maps()?;
    let Some(waiting) = settle(context, &mut maps)? else {
        return Err(Problem::failed(
            "confirm change: none waits for a confirmation",
            "`apifence status` shows what is in force, `apifence ranges history` the lists before",
        ));
    };
    let confirmed = confirm(context, &mut maps, &waiting)?;
    say(format_args!("confirmed: {} in the list", confirmed.ranges));
    let answered = context.global.output.result(&confirmed);
    keep_in_force(context, &maps);
    History::of(&context.global.ranges_file).record();
    clear_up(&mut maps);
    answered.map(|()| 0)
}

/// The generation is marked as confirmed, its list goes from pending to the file, then the kernel is told: in this order, so that
/// `settle` can do the last step for a confirmation that died before it.
fn confirm(context: &Context, maps: &mut Maps, waiting: &Waiting) -> Result<Confirmed> {
    let record = maps.record(waiting.slot)?;
    let file = waiting.pending.read()?;
    let confirmed = Confirmed {
        generation: record.generation,
        ranges: file.list().entries().len(),
    };
    if file.list().digest() != record.list {
        return Err(Problem::failed(
            "confirm change: the list that waits is not the one in force: somebody changed it",
            "make the change again after `apifence ranges rollback`",
        ));
    }
    maps.mark(waiting.slot, true)?;
    if read_ranges(&context.global.ranges_file).is_ok_and(|now| now.as_ref() == Some(&file)) {
        // The change was one of settings alone.
        waiting.pending.remove();
        maps.select(waiting.slot)?;
        return Ok(confirmed);
    }
    let committed = waiting
        .pending
        .commit()
        .inspect_err(|_| unmark(maps, waiting))?;
    if let Err(error) = maps.select(waiting.slot) {
        waiting.pending.take_back(committed)?;
        unmark(maps, waiting);
        return Err(error);
    }
    Ok(confirmed)
}

/// A confirmation that failed has not been: the change still waits for one.
fn unmark(maps: &mut Maps, waiting: &Waiting) {
    // The failure that brought us here is the one to tell; as long as the list is pending, the mark alone says nothing.
    let _ = maps.mark(waiting.slot, false);
}
