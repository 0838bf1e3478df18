//! The candidates for a word, from the command line's own description.

use std::{
    env,
    ffi::{OsStr, OsString},
    sync::Arc,
};

use clap::{Arg, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};

use super::{
    typed::Typed,
    values::{self, Source},
};
use crate::cli;

/// The candidates for the word number `index` of `words`, with the program's name first.
pub(super) fn candidates(mut words: Vec<OsString>, index: usize) -> Vec<CompletionCandidate> {
    words.resize(words.len().max(index + 1), OsString::new());
    let is_empty = words[index].is_empty();
    let mut command = described(&Arc::new(Typed::new(&words)));
    let directory = env::current_dir().ok();
    let found = complete(&mut command, words, index, directory.as_deref());
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
pub(super) fn described(typed: &Arc<Typed>) -> clap::Command {
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
        return argument.add(ArgValueCompleter::new(move |word: &OsStr| {
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
