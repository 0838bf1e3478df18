//! `apifence ranges lists`: all lists, their owners and their state.

use std::{collections::BTreeSet, fmt, fs, os::unix::fs::MetadataExt as _};

use anyhow::Result;
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::Serialize;

use crate::{
    clock::to_second,
    config::{Bounds, Guard, join},
    context::Context,
    policy::author::Author,
    ranges::{ListName, distinct},
    store::{History, written},
    ui::output::{eprint, table},
};

/// All lists.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ListsReport {
    /// The lists.
    lists: Vec<ListState>,
    /// Files in the directory of the lists whose names no list can have.
    ignored: Vec<String>,
}

/// A list and its file.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ListState {
    /// Its name.
    name: ListName,
    /// The path of its file.
    file: String,
    /// The owner of its file; null without a file.
    owner: Option<String>,
    /// The ranges that count: those of the file, or the last good ones.
    ranges: usize,
    /// The expired entries among them.
    expired: usize,
    /// What the config file allows it; null if nothing bounds it.
    bounds: Option<Bounds>,
    /// The ports of guards that name it, in force or in the config file.
    guards: BTreeSet<u16>,
    /// Why its file cannot be used, so that the last good entries count; null if it can be used.
    fault: Option<String>,
    /// When the file came into force, or was written: RFC 3339, UTC; null if that is unknown.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    changed: Option<Timestamp>,
    /// The user and the command that put it in force; null if that is unknown.
    by: Option<Author>,
}

impl fmt::Display for ListsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.lists.iter().map(|list| {
            vec![
                list.name.to_string(),
                list.owner.clone().unwrap_or_default(),
                list.ranges.to_string(),
                list.expired.to_string(),
                list.bounds
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                join(&list.guards),
                match list.fault {
                    None => "ok".to_owned(),
                    Some(_) => "last good".to_owned(),
                },
                list.changed
                    .map_or_else(String::new, |time| time.to_string()),
                list.by.as_ref().map(Author::short).unwrap_or_default(),
            ]
        });
        let header = [
            "list", "owner", "ranges", "expired", "bounds", "guards", "state", "changed", "by",
        ];
        f.write_str(&table(&header, rows))
    }
}

pub(super) fn run(context: &Context) -> Result<u8> {
    let files = context.list_files();
    let ignored = files.names()?.ignored;
    let read = context.read_lists()?;
    let fault = |name: &ListName| {
        let found = read.faults.iter().find(|(faulty, _)| faulty == name);
        found.map(|(_, error)| format!("{error:#}"))
    };
    let mut names: Vec<&ListName> = read.lists.iter().map(|(name, _)| name).collect();
    names.extend(read.faults.iter().map(|(name, _)| name));
    names.sort_unstable();
    names.dedup();
    let now = Timestamp::now();
    let guards = known_guards(context);
    let lists = names.into_iter().map(|name| {
        let path = files.file(name);
        let list = read.lists.get(name).map(|file| file.list());
        let entries = list.as_ref().map_or(&[][..], |list| list.entries());
        let expired = |time: Timestamp| time <= now;
        let current = History::of(&path).current();
        let at = current.as_ref().and_then(|kept| kept.written);
        ListState {
            name: name.clone(),
            file: path.display().to_string(),
            owner: fs::metadata(&path).ok().map(|found| owner(found.uid())),
            ranges: distinct(entries),
            expired: entries
                .iter()
                .filter(|entry| entry.expires.is_some_and(expired))
                .count(),
            bounds: files.bounds(name),
            guards: guarded_by(&guards, name),
            fault: fault(name),
            changed: at.or_else(|| written(&path)).map(to_second),
            by: current.and_then(|kept| kept.by),
        }
    });
    let report = ListsReport {
        lists: lists.collect(),
        ignored,
    };
    context.global.output.write(&report)?;
    for list in report.lists.iter().filter(|list| list.fault.is_some()) {
        eprint(format_args!(
            "warning: list `{}`: its last good entries stay in force: {}",
            list.name,
            list.fault.as_deref().unwrap_or_default()
        ));
    }
    for name in &report.ignored {
        eprint(format_args!(
            "note: `{}` is ignored: a list name has letters, digits, `-` and `_`",
            files.directory().join(name).display()
        ));
    }
    Ok(0)
}

/// The guards in force, and those of the config file.
pub(super) fn known_guards(context: &Context) -> Vec<Guard> {
    let maps = context.maps().ok().flatten();
    let have = maps.and_then(|maps| maps.read_consistent(|slot| maps.settings(slot)).ok());
    let have = have.map_or_else(Vec::new, |settings| settings.guards);
    have.into_iter()
        .chain(context.config.guard.iter().cloned())
        .collect()
}

/// The ports of those `guards` that name a list.
pub(super) fn guarded_by(guards: &[Guard], name: &ListName) -> BTreeSet<u16> {
    let own = guards.iter().filter(|guard| guard.lists.contains(name));
    own.flat_map(|guard| &guard.ports).copied().collect()
}

/// The name of a user, or the number of one without a name.
fn owner(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
