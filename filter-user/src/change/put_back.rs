//! Before a trial: the file of the list says what is in force.

use anyhow::Result;

use crate::{
    context::Context,
    kernel::bpf::Maps,
    ranges::{List, ListName, RangesFile},
    store::{History, Staged},
    ui::{error::UserError, output::eprint},
};

/// Before a trial of the list `name`, replaces an edited file that is not in force by the list in
/// force, so that this list returns after a reboot, too. The edited file is in the history.
pub(crate) fn put_back_edited(context: &Context, maps: &Maps, name: &ListName) -> Result<()> {
    let list = maps.record(maps.active_slot()?)?.list;
    let files = context.list_files();
    let path = files.file(name);
    let history = History::of(&path);
    // Another list may have changed since, which is no matter of this one.
    let others = [context.read_lists()?.lists, context.last_good()];
    let is_in_force = |own: Option<&RangesFile>| {
        let mut all = others.iter().map(|others| others.with_own(name, own));
        all.any(|all| all.digest() == list)
    };
    let own = files.read_list(name);
    if own.as_ref().is_ok_and(|own| is_in_force(own.as_ref())) {
        // This copy shows whether the file is edited during the trial.
        let _ = history.keep();
        return Ok(());
    }
    let kept = history.before()?.into_iter();
    let kept = kept.filter_map(|kept| Some((kept.read().ok()?, kept.by)));
    let [_, last_good] = &others;
    let saved = last_good.get(name).map(|file| (file.clone(), None));
    let mut known = kept.chain(saved);
    if let Some((file, by)) = known.find(|(file, _)| is_in_force(Some(file))) {
        Staged::write(&path, &file)?.commit()?;
        if let Some(by) = by {
            history.record(&by);
        }
    } else if !name.is_default() && is_in_force(None) {
        Staged::removal(&path)?.commit()?;
    } else if list == List::Off.digest() {
        // An unconfirmed first attach went back to no filter, which no file ever held.
        return Ok(());
    } else {
        return Err(UserError::failed(
            "start trial: no file has the list in force, so a reboot could not restore it",
            "leave `--confirm-within` out; nothing changed",
        ));
    }
    eprint(format_args!(
        "note: the {} has an edit that is not in force; during the trial the file has the list in force; the edit is number 1 in `apifence ranges history`",
        files.describe(name)
    ));
    Ok(())
}
