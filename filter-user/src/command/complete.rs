//! Completions: `apifence completions SHELL` prints a script that asks this program for the words
//! that fit. It changes nothing, prints no error, and takes 200 ms at most.

mod shells;
mod typed;
mod values;

use std::{env, ffi::OsString, fs::File, sync::Arc};

use anyhow::Result;
use clap::{Arg, ValueHint};
use clap_complete::{
    Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
};
use nix::unistd::dup2_stderr;

use self::{typed::Typed, values::Source};
use crate::{cli, ui::output::print_unescaped};

/// The variable that the scripts set: the name of the shell.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks for completions, instead of running a command. Returns whether one
/// asked: with `COMPLETE=SHELL`, and all words after `--`. In any other command line the variable
/// has no meaning, so that it cannot keep a filter from being attached.
pub fn answer() -> bool {
    let Some(shell) = env::var_os(VARIABLE) else {
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

/// The candidates for the word number `index` of `words`, with the program's name first.
fn candidates(mut words: Vec<OsString>, index: usize) -> Vec<CompletionCandidate> {
    words.resize(words.len().max(index + 1), OsString::new());
    let is_empty = words[index].is_empty();
    let mut command = described(&Arc::new(Typed::new(&words)));
    let directory = env::current_dir().ok();
    let found = clap_complete::engine::complete(&mut command, words, index, directory.as_deref());
    let mut found = found.unwrap_or_default();
    let is_option =
        |one: &CompletionCandidate| one.get_id().is_some_and(|id| id.starts_with("arg::"));
    // Options come with the first `-`: they would hide what else fits.
    if is_empty && !found.iter().all(is_option) {
        found.retain(|one| !is_option(one));
    }
    found
}

/// The command line with the values that fit each argument, from this node.
fn described(typed: &Arc<Typed>) -> clap::Command {
    with_values(cli::command(), "", typed)
}

fn with_values(command: clap::Command, path: &str, typed: &Arc<Typed>) -> clap::Command {
    let command = command.mut_args(|argument| with_value(argument, path, typed));
    command.mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        with_values(inner, path.trim_start(), typed)
    })
}

fn with_value(argument: Arg, path: &str, typed: &Arc<Typed>) -> Arg {
    let sources = Source::of(path, argument.get_id().as_str());
    if !sources.is_empty() {
        let typed = Arc::clone(typed);
        return argument.add(ArgValueCompleter::new(move |word: &std::ffi::OsStr| {
            values::matching(sources, &typed, &word.to_string_lossy())
        }));
    }
    let name = argument.get_value_names().and_then(<[_]>::first);
    match name.map(|name| name.as_str()) {
        Some("FILE") => argument.value_hint(ValueHint::FilePath),
        Some("DIR") => argument.value_hint(ValueHint::DirPath),
        _ => argument,
    }
}

#[cfg(test)]
mod tests;
