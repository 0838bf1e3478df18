//! What each shell is told: the script that it loads, and the form of an answer.

use std::{ffi::OsString, fmt::Write as _};

use anyhow::{Context as _, Result};
use clap_complete::{
    Shell,
    engine::CompletionCandidate,
    env::{Elvish, EnvCompleter, Powershell},
};

use super::{
    engine::{candidates, described},
    typed::Typed,
};
use crate::ui::visible::visible_in_line;

/// The variable that the scripts set: the name of the shell.
pub(super) const VARIABLE: &str = "COMPLETE";

const BASH: &str = include_str!("apifence.bash");
const FISH: &str = include_str!("apifence.fish");
const ZSH: &str = include_str!("apifence.zsh");

/// The script that registers the completions of `apifence` in `shell`.
pub(super) fn registration(shell: Shell) -> Result<String> {
    let other = |completer: &dyn EnvCompleter| {
        let mut script = Vec::new();
        completer
            .write_registration(VARIABLE, "apifence", "apifence", "apifence", &mut script)
            .context("write completions")?;
        Ok(String::from_utf8_lossy(&script).into_owned())
    };
    match shell {
        Shell::Bash => Ok(BASH.to_owned()),
        Shell::Fish => Ok(FISH.to_owned()),
        Shell::Zsh => Ok(ZSH.to_owned()),
        Shell::Elvish => other(&Elvish),
        _ => other(&Powershell),
    }
}

/// The answer to the shell called `shell`, for the word number `index` of `words`: the last one if
/// it is none. It is empty for an unknown shell.
pub(super) fn answer(shell: &str, words: Vec<OsString>, index: Option<usize>) -> String {
    let index = index.unwrap_or(words.len().saturating_sub(1));
    let other = |completer: &dyn EnvCompleter, words: Vec<OsString>| {
        let mut command = described(&Typed::new(&words).into());
        let mut answer = Vec::new();
        let written = completer.write_complete(&mut command, words, None, &mut answer);
        written.map_or_else(
            |_| String::new(),
            |()| String::from_utf8_lossy(&answer).into_owned(),
        )
    };
    match shell {
        "bash" | "fish" => lines(&candidates(words, index), str::to_owned, "\t"),
        "zsh" => lines(&candidates(words, index), escaped, ":"),
        "elvish" => other(&Elvish, words),
        "powershell" | "pwsh" => other(&Powershell, words),
        _ => String::new(),
    }
}

/// A line for each candidate: its value, and its note after `between`.
fn lines(
    candidates: &[CompletionCandidate],
    value: impl Fn(&str) -> String,
    between: &str,
) -> String {
    let mut text = String::new();
    for candidate in candidates {
        let own = candidate.get_value().to_string_lossy();
        // The name of a file must not make a line of its own.
        let own = own.replace(char::is_control, " ");
        text.push_str(&value(&own));
        if let Some(note) = candidate.get_help() {
            let note = note.to_string();
            let note = note.lines().next().unwrap_or_default();
            let _ = write!(text, "{between}{}", visible_in_line(note));
        }
        text.push('\n');
    }
    text
}

/// A value for zsh's `_describe`, which ends it at the first colon.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}
