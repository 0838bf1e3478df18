//! What `attach`, `enforce` and `monitor` would change: settings, the list, connections. It is said before it is done, shown by a dry run,
//! and refused where it does harm that nobody insists on.

use anyhow::{Error, Result};
use serde::Serialize;

use super::{change::first_lines, leap::Leap};
use crate::{
    config::SettingChange,
    output::{Output, print, say},
    problem::Problem,
    ranges::{Difference, List},
};

/// A change, before it is made.
#[derive(Debug, Serialize)]
pub(super) struct Proposal {
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
    /// What becomes of connections.
    #[serde(flatten)]
    leap: Leap,
    /// Whether this is only what would be.
    dry_run: bool,
    /// Why it is not made without `--force`.
    refused: Option<String>,
}

/// Whether a change is made, or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Is,
    WouldBe,
}

impl Proposal {
    /// Of `list`, which differs by `difference` from one that was the off switch if `was_off`.
    pub(super) fn new(
        settings: Vec<SettingChange>,
        (list, was_off, difference): (&List, bool, Difference),
        leap: Leap,
    ) -> Self {
        Self {
            settings,
            difference,
            enforced: *list != List::Off,
            was_off,
            leap,
            dry_run: false,
            refused: None,
        }
    }

    /// No change, of a list that is the off switch unless `enforced`.
    pub(super) fn nothing(enforced: bool) -> Self {
        let list = if enforced {
            List::Ranges(Vec::new())
        } else {
            List::Off
        };
        let same = (&list, !enforced, Difference::default());
        Self::new(Vec::new(), same, Leap::default())
    }

    /// Why the change is refused unless somebody insists; every check of what a change of settings does to others is here.
    /// `connections` is false where nobody can know who is kept out already.
    fn harm(&self, connections: bool) -> Result<()> {
        insist(&self.settings)?;
        if connections {
            self.leap.insist(false)?;
        }
        Ok(())
    }

    /// Refuses the change if it does harm, with what it would do; `force` insists on it.
    pub(super) fn judge(&mut self, force: bool, connections: bool) -> Result<()> {
        if force {
            return Ok(());
        }
        self.harm(connections).map_err(|error| {
            self.refused = Some(format!("{error:#}"));
            match error.downcast::<Problem>() {
                Ok(problem) => Problem {
                    refused: true,
                    details: self.lines(Telling::WouldBe),
                    ..problem
                }
                .into(),
                Err(error) => error,
            }
        })
    }

    /// Shows what `judged` would be made of, as a dry run does: where the change would be refused, so is this.
    pub(super) fn show<T: Serialize>(
        mut self,
        output: Output,
        judged: Result<()>,
        with: impl FnOnce(Self) -> T,
    ) -> Result<u8> {
        self.dry_run = true;
        if output == Output::Text && judged.is_ok() {
            // This is what was asked for: data.
            let mut lines = self.lines(Telling::WouldBe);
            if lines.is_empty() {
                lines.push("nothing would change".to_owned());
            }
            print(lines.join("\n"))?;
        }
        output.result(&with(self))?;
        judged?;
        say("dry run: nothing changed");
        Ok(0)
    }

    /// Says what changes, before it is done.
    pub(super) fn tell(&self) {
        self.lines(Telling::Is).iter().for_each(say);
    }

    /// What changes, a line each.
    fn lines(&self, telling: Telling) -> Vec<String> {
        let mut lines: Vec<String> = self
            .settings
            .iter()
            .map(|change| match telling {
                Telling::Is => change.to_string(),
                Telling::WouldBe => change.would(),
            })
            .collect();
        let difference = &self.difference;
        if !difference.is_none() {
            let [added, removed, changed] =
                [&difference.added, &difference.removed, &difference.changed].map(Vec::len);
            lines.extend(first_lines(difference.signed(), added + removed + changed));
            let would = match telling {
                Telling::Is => "",
                Telling::WouldBe => " would be",
            };
            let expiry = match changed {
                0 => String::new(),
                changed => format!(", {changed} with another expiry"),
            };
            lines.push(format!(
                "{added}{would} added, {removed} removed, {} unchanged{expiry}",
                difference.unchanged
            ));
        }
        match (self.was_off, self.enforced, telling) {
            (false, false, Telling::Is) => {
                lines
                    .push("warning: enforcement is off with this list: everyone passes".to_owned());
            }
            (false, false, Telling::WouldBe) => lines.push(
                "warning: enforcement would be off with this list: everyone would pass".to_owned(),
            ),
            (true, true, Telling::Is) => lines.push(
                "warning: enforcement was off; with this list everyone else is dropped".to_owned(),
            ),
            (true, true, Telling::WouldBe) => lines.push(
                "warning: enforcement is off; with this list everyone else would be dropped"
                    .to_owned(),
            ),
            (true, false, _) | (false, true, _) => {}
        }
        lines.extend(self.leap.lines().into_iter().map(|line| {
            match telling {
                Telling::Is => line,
                Telling::WouldBe => line
                    .replace(" are cut at", " would be cut at")
                    .replace(" is shut out", " would be shut out")
                    .replace("this cuts", "this would cut"),
            }
        }));
        lines
    }
}

/// Refuses settings that open, or keep out, more than a list does.
fn insist(changes: &[SettingChange]) -> Result<()> {
    let dangers: Vec<String> = changes.iter().filter_map(SettingChange::danger).collect();
    if dangers.is_empty() {
        return Ok(());
    }
    Err(Problem::refused(
        format!("change settings: {}", dangers.join("; ")),
        "a setting holds all of its values, and not those to add; add `--force` if that is meant; nothing changed",
        Vec::new(),
    ))
}

/// The exit status of a change that is in force: it says what became of that, and not whether the answer could be written.
pub(super) fn made(told: Result<()>) -> u8 {
    if let Err(error) = told {
        say(format_args!(
            "warning: {}: the change is made all the same, and in force; `apifence status` shows it",
            cause(&error)
        ));
    }
    0
}

fn cause(error: &Error) -> String {
    let causes = error.chain().map(|cause| {
        cause
            .downcast_ref()
            .map_or_else(|| cause.to_string(), crate::problem::errno)
    });
    causes.collect::<Vec<_>>().join(": ")
}
