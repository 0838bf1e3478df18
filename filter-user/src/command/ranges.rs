//! `apifence ranges`: changes of the list. The steps common to all changes are in `change`.

use std::{panic::resume_unwind, path::PathBuf, thread};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use jiff::Timestamp;
use nix::unistd::geteuid;
use serde::Serialize;

use super::{edit, feed, history, list, lists};
use crate::{
    change::{
        addition::Addition,
        build::{typed_list, typed_ranges},
        list_editor::ListEditor,
        proposal::exit_status,
    },
    cli::{ChangeArgs, RangesCommand},
    config,
    context::Context,
    ranges::{List, ListName, RangesFile, Size, join},
    store::{History, HistoryEntry, Input},
    ui::{
        error::UserError,
        output::{eprint, print},
        progress::Progress,
    },
};

pub(super) fn run(
    context: &Context,
    list: Option<&ListName>,
    command: RangesCommand,
) -> Result<u8> {
    let name = &list.cloned().unwrap_or_default();
    match command {
        RangesCommand::List(shown) => list::run(context, list, shown.unused_for),
        RangesCommand::Lists => lists::run(context),
        RangesCommand::Delete { dry_run, force } => delete(context, name, dry_run, force),
        RangesCommand::History => history::run(context, name),
        RangesCommand::Set {
            ranges,
            from_file,
            join,
            max_change,
            change,
        } => {
            let source = Source {
                typed: ranges,
                file: from_file,
                join,
                max_change,
            };
            set(context, name, &source, &change)
        }
        RangesCommand::Clear { change } => {
            let editor = ListEditor::new(context, name)?;
            editor.change(&RangesFile::new(&List::Off), &change)
        }
        RangesCommand::Add {
            ranges,
            comment,
            expires,
            change,
        } => {
            let addition = Addition::typed(&ranges, expires.as_deref(), comment.as_deref())?;
            addition.make(ListEditor::new(context, name)?, &change)
        }
        RangesCommand::Remove { ranges, change } => {
            let ranges = typed_ranges(&ranges)?;
            let mut editor = ListEditor::new(context, name)?;
            let file = remove(context, name, editor.file()?, &ranges)?;
            editor.change(&file, &change)
        }
        RangesCommand::Edit(args) => edit::run(context, name, &args),
        RangesCommand::Prune { change } => {
            let now = Timestamp::now();
            rewrite(context, name, "prune", &change, |file| file.prune(now))
        }
        RangesCommand::Reload { change } => rewrite(context, name, "reload", &change, |_| ()),
        RangesCommand::Rollback { number, change } => roll_back(context, name, number, &change),
    }
}

/// Puts the file of a list in force, after `edit`; `verb` is the command, for the error.
fn rewrite(
    context: &Context,
    name: &ListName,
    verb: &str,
    change: &ChangeArgs,
    edit: impl FnOnce(&mut RangesFile),
) -> Result<u8> {
    let mut editor = ListEditor::new(context, name)?;
    let file = editor.file()?;
    let mut file = file.ok_or_else(|| no_file(context, name, verb))?;
    edit(&mut file);
    editor.change(&file, change)
}

/// Takes a list away.
fn delete(context: &Context, name: &ListName, dry_run: bool, force: bool) -> Result<u8> {
    if name.is_default() {
        return Err(UserError::input(
            "delete list: the list `default` cannot be deleted",
            "choose another list with `--list NAME`; to switch enforcement off, run `apifence ranges clear`; nothing changed",
        ));
    }
    let guards = lists::guarded_by(&lists::known_guards(context), name);
    if !guards.is_empty() {
        return Err(UserError::input(
            format!(
                "delete list `{name}`: the guard of TCP {} uses it",
                config::join(&guards)
            ),
            format!(
                "first remove it from `[[guard]]` in the config file; `apifence ranges set --list {name} 0.0.0.0/32` allows only this node; nothing changed"
            ),
        ));
    }
    let mut editor = ListEditor::new(context, name)?;
    if !editor.is_known()? {
        return Err(no_file(context, name, "delete"));
    }
    editor.delete(&ChangeArgs {
        dry_run,
        force,
        confirm_within: None,
    })
}

/// The list that `ranges set` makes.
struct Source {
    typed: Vec<String>,
    /// The file to read it from, in place of what was typed.
    file: Option<PathBuf>,
    join: bool,
    /// By how many percent its size may differ from the one before.
    max_change: Option<u32>,
}

fn set(context: &Context, name: &ListName, source: &Source, change: &ChangeArgs) -> Result<u8> {
    let progress = Progress::start();
    if !name.is_default() && !geteuid().is_root() {
        let file = source.read(change)?;
        let (_lock, before) = feed::open(context, name)?;
        source.check(&file, before.as_ref(), change)?;
        return feed::write(context, name, (before.as_ref(), &file), change);
    }
    let (file, mut editor) = match &source.file {
        Some(_) => thread::scope(|scope| {
            // Read before the lock: a slow writer to the pipe must block no other change.
            let input = source.input()?;
            let parsing = scope.spawn(|| source.parse(input));
            let editor = ListEditor::new(context, name);
            let file = parsing
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))?;
            anyhow::Ok((file, editor?))
        })?,
        None => (source.read(change)?, ListEditor::new(context, name)?),
    };
    source.check(&file, editor.last_good()?.as_ref(), change)?;
    editor.with_progress(progress).change(&file, change)
}

impl Source {
    /// The bytes of the file.
    fn input(&self) -> Result<Input> {
        Input::read(
            self.file
                .as_deref()
                .context("read list: no file is named")?,
        )
    }

    fn parse(&self, input: Input) -> Result<RangesFile> {
        let file = input.parse()?;
        Ok(if self.join { file.joined() } else { file })
    }

    /// The list.
    fn read(&self, change: &ChangeArgs) -> Result<RangesFile> {
        if self.file.is_some() {
            return self.parse(self.input()?);
        }
        let file = RangesFile::new(&typed_list(&join(&self.typed), change.force)?);
        Ok(if self.join { file.joined() } else { file })
    }

    /// Refuses a list whose size differs too much from that of `before`; remarks on a large one.
    fn check(
        &self,
        file: &RangesFile,
        before: Option<&RangesFile>,
        change: &ChangeArgs,
    ) -> Result<()> {
        let size = |file: &RangesFile| Size::of(file.list().entries());
        if let Some(most) = self.max_change.filter(|_| !change.force)
            && let Some(before) = before
            && let Some(cause) = size(file).changed_too_much(size(before), most)
        {
            return Err(UserError::input(
                format!("set ranges: the list changed too much: {cause}"),
                "check its source; use `--force` if the list is right; nothing changed",
            ));
        }
        if self.file.is_some() {
            size(file).remark().iter().for_each(eprint);
        }
        Ok(())
    }
}

/// Takes back the provisional change, or without one returns to a list of the history.
fn roll_back(
    context: &Context,
    name: &ListName,
    number: Option<usize>,
    change: &ChangeArgs,
) -> Result<u8> {
    let mut editor = ListEditor::new(context, name)?;
    let output = context.global.output;
    if number.is_none() {
        if change.dry_run && editor.has_pending() {
            if output.is_text() {
                print(
                    "the change on trial would be undone: the previous policy would be in force",
                )?;
            }
            eprint("dry run: nothing changed");
            return Ok(0);
        }
        if editor.roll_back()? {
            eprint("undone: the previous policy is in force again");
            let done = exit_status(output.result(&RolledBack { taken_back: true }));
            editor.clean_up();
            return Ok(done);
        }
        if let Some(since) = editor.lapsed()? {
            eprint(format_args!(
                "nothing to undo: the last change was not confirmed and reverted at {since}\nhint: `apifence ranges rollback 1` restores the list before"
            ));
            output.result(&RolledBack { taken_back: false })?;
            return Ok(0);
        }
    }
    let (file, words) = former_list(context, name, number)?;
    editor.with_words(words).change(&file, change)
}

/// The result of taking back a provisional change.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RolledBack {
    /// False if it was rolled back before.
    taken_back: bool,
}

/// The list that returns, in words.
fn describe_former(number: usize, kept: &HistoryEntry) -> String {
    let at = kept.written.map(|time| format!("{time:.0}"));
    let by = kept.by.as_ref().map(ToString::to_string);
    let facts: Vec<String> = at.into_iter().chain(by).collect();
    match facts.is_empty() {
        true => format!("back to list {number}:"),
        false => format!("back to list {number} ({}):", facts.join(", ")),
    }
}

/// The list with this `number` in the history, and its description. Without a number it is the
/// newest valid list: the history also keeps broken files.
fn former_list(
    context: &Context,
    name: &ListName,
    number: Option<usize>,
) -> Result<(RangesFile, Vec<String>)> {
    let lists = History::of(&context.list_files().file(name)).before()?;
    let Some(number) = number else {
        let mut words = Vec::new();
        for (number, kept) in (1..).zip(&lists) {
            match kept.read() {
                Ok(file) => {
                    words.push(describe_former(number, kept));
                    return Ok((file, words));
                }
                Err(_) => words.push(format!(
                    "note: number {number} in the history is not a list"
                )),
            }
        }
        return Err(UserError::input(
            format!(
                "roll back: none of the {} kept files is a list",
                lists.len()
            ),
            "`apifence ranges set CIDR,...` makes one; nothing changed",
        ));
    };
    match number.checked_sub(1).and_then(|index| lists.get(index)) {
        Some(kept) => {
            let file = kept.read()?;
            Ok((file, vec![describe_former(number, kept)]))
        }
        None => Err(UserError::input(
            format!(
                "roll back to list {number}: the history has {} lists",
                lists.len()
            ),
            "`apifence ranges history` shows them; nothing changed",
        )),
    }
}

/// The failure of a verb that needs a ranges file.
fn no_file(context: &Context, name: &ListName, verb: &str) -> anyhow::Error {
    let path = context.list_files().path(name);
    if !name.is_default() {
        return UserError::input(
            format!("{verb} list `{name}`: no such file: `{}`", path.display()),
            "`apifence ranges lists` shows all lists; `apifence ranges set --list NAME CIDR,...` makes one",
        );
    }
    UserError::input(
        format!(
            "{verb} ranges: there is no ranges file `{}`",
            path.display()
        ),
        "`apifence ranges set CIDR,...` writes one",
    )
}

fn remove(
    context: &Context,
    name: &ListName,
    file: Option<RangesFile>,
    ranges: &[IpNet],
) -> Result<RangesFile> {
    let mut file = file.ok_or_else(|| no_file(context, name, "remove"))?;
    for range in ranges {
        if !file.remove(*range) {
            let covers: Vec<String> = file
                .list()
                .entries()
                .iter()
                .filter(|entry| entry.range.contains(range) || range.contains(&entry.range))
                .map(|entry| format!("`{}`", entry.range))
                .collect();
            let hint = if covers.is_empty() {
                "`apifence ranges list` shows the entries; nothing changed".to_owned()
            } else {
                format!("the list has {}; nothing changed", covers.join(", "))
            };
            return Err(UserError::input(
                format!("remove range `{range}`: it is not in the list"),
                hint,
            ));
        }
    }
    if !name.is_default() {
        file.mark_empty();
    } else if file.list().entries().is_empty() {
        return Err(UserError::input(
            "remove ranges: no range would be left",
            "`apifence ranges set 0.0.0.0/32` allows only the implicit sources; `apifence ranges clear` switches enforcement off; nothing changed",
        ));
    }
    Ok(file)
}
