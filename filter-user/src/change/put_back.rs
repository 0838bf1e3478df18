//! Before a trial: the files say what is in force.

use anyhow::Result;

use super::build::{former_lists, known_lists};
use crate::{
    context::Context,
    kernel::bpf::Maps,
    ranges::{List, ListName, Lists, RangesFile},
    store::{History, Staged, read_ranges},
    ui::{error::UserError, output::eprint},
};

/// Before a trial, replaces edited files that are not in force by the lists in force, so that these
/// return after a reboot, too. The edited files are in the history.
pub(crate) fn put_back_edited(context: &Context, maps: &Maps) -> Result<()> {
    let list = maps.record(maps.active_slot()?)?.list;
    let files = context.list_files();
    let read = context.read_lists()?;
    let now = read.lists;
    if read.faults.is_empty() && now.union().digest() == list {
        // These copies show whether a file is edited during the trial.
        for (name, _) in now.iter() {
            let _ = History::of(&files.path(name)).keep();
        }
        return Ok(());
    }
    let is_off = list == List::Off.digest();
    let is_it = |lists: &Lists| lists.union().digest() == list;
    let mut former = former_lists(context, &now).filter(|_| !is_off);
    let Some(lists) = former.find(is_it).or_else(|| known_lists(context, list)) else {
        if is_off {
            // An unconfirmed first attach went back to no filter, which no file ever held.
            return Ok(());
        }
        return Err(UserError::failed(
            "change policy provisionally: the list in force is in no file, to which a reboot could go back",
            "leave `--confirm-within` out; nothing changed",
        ));
    };
    let report = |name| {
        eprint(format_args!(
            "note: the {} was edited, and is not in force: during the trial it holds the list in force again; the edit is number 1 in `apifence ranges history`",
            files.describe(name)
        ));
    };
    // The last good entries of another list stay in force after a boot, too, and its file is its
    // owner's.
    let is_others = |name: &ListName| {
        !name.is_default() && read.faults.iter().any(|(faulty, _)| faulty == name)
    };
    for (name, _) in now.iter().filter(|(name, _)| lists.get(name).is_none()) {
        Staged::removal(&files.path(name))?.commit()?;
        report(name);
    }
    for (name, file) in lists.iter().filter(|(name, _)| !is_others(name)) {
        let path = files.path(name);
        let says = |now: &RangesFile| now.list().digest() == file.list().digest();
        if read_ranges(&path).is_ok_and(|now| now.as_ref().is_some_and(says)) {
            let _ = History::of(&path).keep();
            continue;
        }
        let history = History::of(&path);
        let mut kept = history.before()?.into_iter();
        let kept = kept.find(|kept| kept.read().is_ok_and(|kept| says(&kept)));
        let by = kept.and_then(|kept| kept.by);
        Staged::write(&path, file)?.commit()?;
        if let Some(by) = by {
            history.record(&by);
        }
        report(name);
    }
    Ok(())
}
