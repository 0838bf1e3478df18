//! What `attach`, `enforce` and `monitor` would change: settings, the list, connections. It is said
//! before it is done, shown by a dry run, and refused where it does harm that nobody insists on.

use anyhow::{Error, Result};
use serde::Serialize;

use super::{impact::Impact, words::Words};
use crate::{
    cli::ChangeArgs,
    config::SettingChange,
    policy::Difference,
    ranges::{List, distinct},
    ui::{
        error::UserError,
        output::{Output, print, say},
    },
};

/// A change, before it is made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Proposal {
    /// Which settings change, each with what it was.
    settings: Vec<SettingChange>,
    /// How the list changes.
    #[serde(flatten)]
    difference: Difference,
    /// False if the list is the off switch.
    enforced: bool,
    /// Whether the one before was.
    #[serde(skip)]
    was_off: bool,
    /// What becomes of which entry.
    #[serde(skip)]
    words: Words,
    /// What becomes of connections.
    #[serde(flatten)]
    impact: Impact,
    /// Whether this is only what would be.
    dry_run: bool,
    /// Why it is not made without `--force`.
    refused: Option<String>,
}

/// How the list changes.
pub(crate) struct ListChange<'a> {
    /// The new one.
    pub(crate) list: &'a List,
    /// Whether the one before was the off switch.
    pub(crate) was_off: bool,
    /// What sets them apart.
    pub(crate) difference: Difference,
    /// The same in words, a line each.
    pub(crate) words: Words,
}

impl<'a> ListChange<'a> {
    /// None: the list stays as it is.
    pub(crate) fn none(list: &'a List) -> Self {
        Self {
            list,
            was_off: *list == List::Off,
            difference: Difference::none(distinct(list.entries())),
            words: Words::default(),
        }
    }
}

impl Proposal {
    /// A change of `settings` and of the list, which does to connections what `impact` says.
    pub(crate) fn new(settings: Vec<SettingChange>, list: ListChange<'_>, impact: Impact) -> Self {
        Self {
            settings,
            difference: list.difference,
            enforced: *list.list != List::Off,
            was_off: list.was_off,
            words: list.words,
            impact,
            dry_run: false,
            refused: None,
        }
    }

    /// Why the change is refused unless somebody insists; every check of what a change of settings
    /// does to others is here. `connections` is false where nobody can know who is kept out
    /// already.
    fn harm(&self, connections: bool) -> Result<()> {
        insist(&self.settings)?;
        if connections {
            self.impact.insist(false)?;
        }
        Ok(())
    }

    /// Says what is about to be done, and whether it is to be: false for a dry run, which shows it
    /// and no more. `connections` as of [`Self::harm`]; `with` makes the answer for programs of it.
    ///
    /// # Errors
    /// If it does harm that nobody insists on.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        change: &ChangeArgs,
        connections: bool,
        output: Output,
        with: impl FnOnce(Self) -> T,
    ) -> Result<bool> {
        self.dry_run = change.dry_run;
        if !change.force
            && let Err(error) = self.harm(connections)
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
            lines.iter().for_each(say);
            return Ok(true);
        }
        if output == Output::Text {
            // This is what was asked for: data.
            print(if lines.is_empty() {
                "nothing would change".to_owned()
            } else {
                lines.join("\n")
            })?;
        }
        output.result(&with(self.clone()))?;
        say("dry run: nothing changed");
        Ok(false)
    }

    /// What changes, a line each; in place of a change that `would` do it.
    fn lines(&self, would: bool) -> Vec<String> {
        let settings = self.settings.iter();
        let mut lines: Vec<String> = settings
            .map(|change| match would {
                false => change.to_string(),
                true => change.would(),
            })
            .collect();
        lines.extend(self.words.lines(would));
        if !self.difference.is_none() && !self.enforced {
            lines.push(if would {
                "warning: enforcement would be off with this list: everyone would pass".to_owned()
            } else {
                "warning: enforcement is off with this list: everyone passes".to_owned()
            });
        } else if self.was_off && self.enforced {
            lines.push(if would {
                "warning: enforcement is off; with this list everyone else would be dropped"
                    .to_owned()
            } else {
                "warning: enforcement was off; with this list everyone else is dropped".to_owned()
            });
        }
        lines.extend(self.impact.lines(would));
        lines
    }
}

/// Refuses settings that open, or keep out, more than a list does.
fn insist(changes: &[SettingChange]) -> Result<()> {
    let dangers: Vec<String> = changes.iter().filter_map(SettingChange::danger).collect();
    if dangers.is_empty() {
        return Ok(());
    }
    Err(UserError::refused(
        format!("change settings: {}", dangers.join("; ")),
        "a setting holds all of its values, and not those to add; add `--force` if that is meant; nothing changed",
        Vec::new(),
    ))
}

/// The exit status of a change that is in force: it says what became of that, and not whether the
/// answer could be written.
pub(crate) fn made(told: Result<()>) -> u8 {
    if let Err(error) = told {
        say(format_args!(
            "warning: {}: the change is made all the same, and in force; `apifence status` shows it",
            cause(&error)
        ));
    }
    0
}

/// Why something failed, in the words of errors.
pub(crate) fn cause(error: &Error) -> String {
    let causes = error.chain().map(|cause| {
        cause
            .downcast_ref()
            .map_or_else(|| cause.to_string(), crate::ui::error::errno)
    });
    causes.collect::<Vec<_>>().join(": ")
}
