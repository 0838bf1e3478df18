//! An edit of the files that would cut cluster nodes or administrators of this node. It comes into
//! force on trial, unless the settings say otherwise.

use std::time::Duration;

use anyhow::Result;
use filter_common::layout::Trial;

use crate::{
    change::{impact::Impact, recovery::Waiting},
    config::{Config, OnCut, Settings},
    kernel::bpf::Maps,
    ranges::Lists,
    store::{PolicyMark, TrialStore},
    ui::{error::UserError, output::eprint},
};

/// How long an edit with this `mark` and `impact` is on trial; `None` to apply it permanently.
///
/// # Errors
/// If it is refused.
pub(crate) fn trial_time(
    config: &Config,
    impact: &Impact,
    mark: &PolicyMark,
) -> Result<Option<Duration>> {
    let Some(reason) = impact.lockout() else {
        return Ok(None);
    };
    if TrialStore::new(&config.state_dir).is_confirmed(mark) {
        eprint(format_args!(
            "warning: {reason}; this edit was confirmed before, so it stays in force"
        ));
        return Ok(None);
    }
    match *config.on_cut {
        OnCut::Apply => {
            eprint(format_args!("warning: {reason}"));
            Ok(None)
        }
        OnCut::Trial => {
            eprint(format_args!(
                "warning: {reason}: the edit is on trial for {}; it reverts unless you run `apifence confirm`",
                *config.on_cut_within
            ));
            Ok(Some(config.on_cut_within.0))
        }
        OnCut::Refuse => Err(UserError::failed(
            format!("follow files: {reason}"),
            "fix the file; or set `on_cut = \"trial\"` in the config file to try such edits; the policy stays in force",
        )),
    }
}

/// Whether the files, with `lists` and `settings`, were edited again while an edit was on trial.
pub(crate) fn is_edited_again(
    maps: &Maps,
    waiting: &Waiting,
    lists: &Lists,
    settings: &Settings,
) -> Result<bool> {
    let record = maps.record(waiting.slot)?;
    if Trial::of(record.trial) != Trial::Edited {
        return Ok(false);
    }
    let on_trial = maps.settings(waiting.slot)?;
    let same = record.list == lists.digest() && settings.changes_from(&on_trial).is_empty();
    Ok(!same)
}

/// Records that an edit is on trial. A restart does not apply it before it is confirmed.
pub(crate) fn record(config: &Config, mark: &PolicyMark) {
    if let Err(error) = TrialStore::new(&config.state_dir).begin(mark) {
        eprint(format_args!(
            "warning: {error:#}: a reboot would make the edit permanent"
        ));
    }
}

/// Records that the files are in force permanently; the last trial was of another edit.
pub(crate) fn close(config: &Config) {
    if let Err(error) = TrialStore::new(&config.state_dir).close() {
        eprint(format_args!("warning: {error:#}"));
    }
}
