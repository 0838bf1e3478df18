//! `apifence confirm`: keeps a provisional change.

use anyhow::Result;
use filter_common::{
    Mode,
    layout::{Origin, Trial},
};
use serde::Serialize;

use crate::{
    change::{
        build::{record_history, save_policy_in_force},
        proposal::cause,
        recovery::{Waiting, recover},
        transaction::clean_up,
    },
    clock::Clocks,
    context::Context,
    kernel::bpf::Maps,
    policy::{Prefix, author::Author},
    store::{Draft, History, PolicyMark, TrialStore, WriterLock},
    ui::{error::UserError, output::eprint},
};

/// The change that was confirmed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Confirmed {
    /// The number of the generation that stays in force.
    generation: u64,
    /// The number of ranges in its list.
    ranges: usize,
}

pub(super) fn run(context: &Context) -> Result<u8> {
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    let mut maps = context.attached_maps()?;
    let Some(waiting) = recover(context, &mut maps)? else {
        return Err(UserError::failed(
            "nothing to confirm",
            "`apifence status` shows what is in force, `apifence ranges history` the lists before",
        ));
    };
    let slots = [waiting.slot, waiting.slot.other()];
    let [record, before] = [maps.record(slots[0])?, maps.record(slots[1])?];
    let settings_alone = Trial::of(record.trial) == Trial::Settings;
    let confirmed = if settings_alone {
        let listed = |prefix: &&Prefix| prefix.origins & Origin::List as u8 != 0;
        let sources = maps.sources(waiting.slot, &Clocks::now()?)?;
        maps.select(waiting.slot)?;
        Confirmed {
            generation: record.generation,
            ranges: sources.iter().filter(listed).count(),
        }
    } else {
        confirm(context, &mut maps, &waiting)?
    };
    eprint(format_args!("confirmed: {} in the list", confirmed.ranges));
    if record.mode != before.mode {
        eprint(match record.mode {
            mode if mode == Mode::Enforce as u8 => "the mode is enforce",
            mode if mode == Mode::Monitor as u8 => crate::change::words::MONITOR,
            _ => "warning: the list is switched off (`disabled`): everyone passes",
        });
    }
    if let Err(error) = context.global.output.result(&confirmed) {
        eprint(format_args!(
            "warning: {}: the change is confirmed",
            cause(&error)
        ));
    }
    save_policy_in_force(context, &maps);
    if !settings_alone {
        let (files, lists) = (context.list_files(), context.read_lists()?.lists);
        record_history(context, &lists, &Author::of_this_process());
        for (name, file) in lists.iter() {
            let path = files.path(name);
            Draft::delete_applied(&context.config.state_dir, &path, file);
        }
    }
    clean_up(&mut maps);
    Ok(0)
}

/// Marks the generation as confirmed, moves its list from pending to the file, then selects the
/// generation. In this order, recovery can do the last step after a crash.
fn confirm(context: &Context, maps: &mut Maps, waiting: &Waiting) -> Result<Confirmed> {
    let record = maps.record(waiting.slot)?;
    let is_edit = Trial::of(record.trial) == Trial::Edited;
    let now = context.read_lists()?.lists;
    let own = match is_edit {
        true => None,
        false => Some(waiting.pending.read()?),
    };
    // A feed may have changed another list during the trial; the policy has it as it was before.
    let mut all = [now.clone(), context.last_good()]
        .into_iter()
        .map(|all| match &own {
            Some(own) => all.with(&waiting.name, own.clone()),
            None => all,
        });
    let Some(lists) = all.find(|lists| lists.digest() == record.list) else {
        return Err(UserError::failed(
            "confirm change: another process changed the list that is on trial",
            "run `apifence ranges rollback`, then make the change again",
        ));
    };
    let confirmed = Confirmed {
        generation: record.generation,
        ranges: lists.union().entries().len(),
    };
    let mark = PolicyMark::new(record.list, &maps.settings(waiting.slot)?);
    if is_edit || now.get(&waiting.name) == own.as_ref() {
        // The file has the list already, so one step makes the change final.
        maps.select(waiting.slot)?;
        waiting.pending.remove();
        if is_edit {
            record_confirmed(context, &mark);
        }
        return Ok(confirmed);
    }
    maps.mark(waiting.slot, true)?;
    let edited = History::of(&context.list_files().file(&waiting.name)).is_edited();
    let committed = waiting
        .pending
        .commit()
        .inspect_err(|_| clear_confirmed(maps, waiting))?;
    if let Err(error) = maps.select(waiting.slot) {
        waiting.pending.take_back(committed)?;
        clear_confirmed(maps, waiting);
        return Err(error);
    }
    if edited {
        eprint(
            "warning: the file of the list was edited during the trial, and the confirmed list replaces it: the edit is number 1 in `apifence ranges history`",
        );
    }
    Ok(confirmed)
}

/// Records that the operator confirmed the edit: `run` does not put it on trial again.
fn record_confirmed(context: &Context, mark: &PolicyMark) {
    if let Err(error) = TrialStore::new(&context.config.state_dir).confirm(mark) {
        eprint(format_args!(
            "warning: {error:#}: after a reboot the edit would be on trial again"
        ));
    }
}

/// Undoes the mark after a failure: the change still waits for its confirmation.
fn clear_confirmed(maps: &mut Maps, waiting: &Waiting) {
    // The first failure is the one to report. While the list is pending, the mark has no effect.
    let _ = maps.mark(waiting.slot, false);
}
