//! Completions: `apifence completions SHELL` prints a script that asks this program for the words
//! that fit. It changes nothing, prints no error, and takes 200 ms at most.

mod engine;
mod shells;
mod typed;
mod values;

use std::{env, ffi::OsString, fs::File};

use anyhow::Result;
use clap_complete::Shell;
use nix::unistd::dup2_stderr;

use crate::ui::output::print_unescaped;

/// Answers a shell that asks for completions, instead of running a command. Returns whether one
/// asked: with `COMPLETE=SHELL`, and all words after `--`. In any other command line the variable
/// has no meaning, so that it cannot keep a filter from being attached.
pub fn answer() -> bool {
    let Some(shell) = env::var_os(shells::VARIABLE) else {
        return false;
    };
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != "--") {
        return false;
    }
    // The shell shows the errors of a completion in the middle of a line.
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        let _ = dup2_stderr(nowhere);
    }
    let words: Vec<OsString> = arguments.collect();
    let index = env::var("_CLAP_COMPLETE_INDEX").ok();
    let index = index.and_then(|index| index.parse().ok());
    let text = shells::answer(&shell.to_string_lossy(), words, index);
    let _ = print_unescaped(&text);
    true
}

/// Writes the script for `shell` to stdout.
pub(super) fn script(shell: Shell) -> Result<u8> {
    print_unescaped(&shells::registration(shell)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests;
