//! `apifence ranges set --list NAME` by a user who may write the file of that list, and nothing
//! else: the file alone is written, and `run` puts it in force.

use anyhow::Result;
use nix::unistd::geteuid;
use serde::Serialize;

use crate::{
    change::proposal::exit_status,
    cli::{ChangeArgs, Command, RangesCommand},
    context::Context,
    ranges::{ListName, RangesFile, in_ranges},
    store::{Staged, WriterLock},
    ui::{error::UserError, output::eprint},
};

/// The result of a change.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Written {
    /// The entries of the list.
    ranges: usize,
    /// Whether the file was written; false if it held the list already.
    written: bool,
}

/// Whether `command` only writes the file of a list: its user is not root.
pub(super) fn is_feed(command: &Command) -> bool {
    let is_named = |name: &ListName| !name.is_default();
    let is_set = |command: &RangesCommand| matches!(command, RangesCommand::Set { .. });
    match command {
        Command::Ranges {
            list: Some(name),
            command,
        } => is_named(name) && is_set(command) && !geteuid().is_root(),
        _ => false,
    }
}

/// Makes `file` the list `name`, whose file is `before`.
pub(super) fn write(
    context: &Context,
    name: &ListName,
    (before, file): (Option<&RangesFile>, &RangesFile),
    change: &ChangeArgs,
) -> Result<u8> {
    if change.dry_run || change.confirm_within.is_some() {
        return Err(UserError::input(
            "set ranges: a user other than root can only write the file of the list",
            "leave `--dry-run` and `--confirm-within` out; nothing changed",
        ));
    }
    let files = context.list_files();
    files.examine(name, file)?;
    let path = files.file(name);
    let ranges = file.list().entries().len();
    let words = in_ranges(ranges);
    let written = before != Some(file);
    if written {
        Staged::write(&path, file)?.commit_unkept()?;
        eprint(format_args!(
            "wrote list `{name}`: {words}; `apifence run` applies it"
        ));
    } else {
        eprint(format_args!("nothing changed: list `{name}` has {words}"));
    }
    let output = context.global.output;
    Ok(exit_status(output.result(&Written { ranges, written })))
}

/// The file of the list `name` before the change, under the lock of its writers.
pub(super) fn open(context: &Context, name: &ListName) -> Result<(WriterLock, Option<RangesFile>)> {
    let files = context.list_files();
    let lock = WriterLock::take_list(&files.path(name))?;
    let before = files.read_list(name)?;
    Ok((lock, before))
}
