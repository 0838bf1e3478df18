//! The effects of `attach`, `enforce` and `monitor` on settings, list and connections. They are
//! reported before the change. A dry run shows them. A harmful change is refused without `--force`.

use anyhow::{Error, Result};
use serde::Serialize;

use super::{guarded::GuardChange, impact::Impact, words::Words};
use crate::{
    cli::ChangeArgs,
    config::SettingChange,
    policy::Difference,
    ranges::{List, distinct},
    ui::{
        error::UserError,
        output::{Output, eprint, print},
    },
};

/// A change, and its effect on connections.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Proposal {
    /// The settings that change, each with its old value.
    settings: Vec<SettingChange>,
    #[serde(flatten)]
    difference: Difference,
    /// The guards whose sources change; missing if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guards: Vec<GuardChange>,
    /// False if the list is the off switch.
    enforced: bool,
    /// Whether the previous list was the off switch.
    #[serde(skip)]
    was_off: bool,
    /// The entries that change, in words.
    #[serde(skip)]
    words: Words,
    /// The effect on connections.
    #[serde(flatten)]
    impact: Impact,
    /// Whether the change is only shown.
    dry_run: bool,
    /// Why the change is refused without `--force`; null if it is not refused.
    refused: Option<String>,
}

pub(crate) struct ListChange<'a> {
    pub(crate) list: &'a List,
    /// Whether the previous list was the off switch.
    pub(crate) was_off: bool,
    /// The difference from the previous list.
    pub(crate) difference: Difference,
    /// The same in words, one line each.
    pub(crate) words: Words,
    /// The guards whose sources change.
    pub(crate) guards: Vec<GuardChange>,
}

impl<'a> ListChange<'a> {
    /// The list stays as it is.
    pub(crate) fn none(list: &'a List) -> Self {
        Self {
            list,
            was_off: *list == List::Off,
            difference: Difference::none(distinct(list.entries())),
            words: Words::default(),
            guards: Vec::new(),
        }
    }
}

impl Proposal {
    /// A change of `settings` and of the list, with its `impact` on connections.
    pub(crate) fn new(settings: Vec<SettingChange>, list: ListChange<'_>, impact: Impact) -> Self {
        Self {
            settings,
            difference: list.difference,
            guards: list.guards,
            enforced: *list.list != List::Off,
            was_off: list.was_off,
            words: list.words,
            impact,
            dry_run: false,
            refused: None,
        }
    }

    /// Why the change is refused without `--force`: all checks of its effect on others are here.
    /// `connections` is false if the sources that are already blocked are unknown.
    fn check_harm(&self, connections: bool) -> Result<()> {
        refuse_dangerous(&self.settings)?;
        if connections {
            self.impact.refuse_harm(false)?;
        }
        Ok(())
    }

    /// Reports the coming change; returns whether to make it. A dry run only shows it: false.
    /// `connections` is as in [`Self::check_harm`]. `with` makes the JSON answer.
    ///
    /// # Errors
    /// If the change is harmful and not forced.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        change: &ChangeArgs,
        connections: bool,
        output: Output,
        with: impl FnOnce(Self) -> T,
    ) -> Result<bool> {
        self.dry_run = change.dry_run;
        if !change.force
            && let Err(error) = self.check_harm(connections)
        {
            self.refused = Some(format!("{error:#}"));
            let would = self.lines(true);
            output.result(&with(self.clone()))?;
            return Err(match error.downcast::<UserError>() {
                Ok(mut problem) => {
                    problem.refused = true;
                    problem.details.extend(would);
                    problem.into()
                }
                Err(error) => error,
            });
        }
        let lines = self.lines(change.dry_run);
        if !change.dry_run {
            lines.iter().for_each(eprint);
            return Ok(true);
        }
        if output.is_text() {
            // A dry run's result is data, so it goes to stdout.
            print(if lines.is_empty() {
                "nothing would change".to_owned()
            } else {
                lines.join("\n")
            })?;
        }
        output.result(&with(self.clone()))?;
        eprint("dry run: nothing changed");
        Ok(false)
    }

    /// The changes, one line each. `would`: the change is not made.
    fn lines(&self, would: bool) -> Vec<String> {
        let settings = self.settings.iter();
        let mut lines: Vec<String> = settings
            .map(|change| match would {
                false => change.to_string(),
                true => change.would(),
            })
            .collect();
        lines.extend(self.words.lines(would));
        lines.extend(self.guards.iter().map(|guard| guard.line(would)));
        if !self.difference.is_none() && !self.enforced {
            lines.push(if would {
                "warning: this list would switch enforcement off: every source would pass"
                    .to_owned()
            } else {
                "warning: this list switches enforcement off: every source passes".to_owned()
            });
        } else if self.was_off && self.enforced {
            lines.push(if would {
                "warning: this list would switch enforcement on: other sources would be dropped"
                    .to_owned()
            } else {
                "warning: this list switches enforcement on: other sources are dropped".to_owned()
            });
        }
        lines.extend(self.impact.lines(would));
        lines
    }
}

/// Refuses settings that admit or block more than a list does.
fn refuse_dangerous(changes: &[SettingChange]) -> Result<()> {
    let risks: Vec<String> = changes.iter().filter_map(SettingChange::risk).collect();
    if risks.is_empty() {
        return Ok(());
    }
    Err(UserError::refused(
        risks.join("; "),
        "a setting replaces its previous values; add `--force` if you want this; nothing changed",
        Vec::new(),
    ))
}

/// The exit status of a change that is in force. It is 0 even if the answer could not be written.
pub(crate) fn exit_status(written: Result<()>) -> u8 {
    if let Err(error) = written {
        eprint(format_args!(
            "warning: {}: the change is made and in force; `apifence status` shows it",
            cause(&error)
        ));
    }
    0
}

/// The causes of an error, in the words of error messages.
pub(crate) fn cause(error: &Error) -> String {
    let causes = error.chain().map(|cause| {
        cause
            .downcast_ref()
            .map_or_else(|| cause.to_string(), crate::ui::error::errno)
    });
    causes.collect::<Vec<_>>().join(": ")
}
