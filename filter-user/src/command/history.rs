//! `apifence ranges history`: the former lists.

use std::fmt;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::to_second,
    context::Context,
    policy::{Difference, author::Author},
    ranges::{List, ListName},
    store::{History, read_ranges, written},
    ui::output::table,
    view::policy::report_trial,
};

/// The versions of a list.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HistoryReport {
    /// The versions of the list, the newest first.
    lists: Vec<HistoryRow>,
}

/// A version of a list.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HistoryRow {
    /// 0 for the list in the file; from 1 on, the number that `rollback` takes.
    number: usize,
    /// When it was written: RFC 3339, UTC; null if there is no file.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    written: Option<Timestamp>,
    /// The number of its ranges, expired ones included; null if the file holds no list.
    ranges: Option<usize>,
    /// False if it is the off switch.
    enforced: bool,
    /// Its author and command; null if it never was in force, or the author is unknown.
    by: Option<Author>,
    /// Its difference from the list before; null if that is unknown.
    change: Option<Difference>,
}

impl fmt::Display for HistoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.lists.iter().map(|row| {
            let ranges = match row.ranges {
                None => "not a list".to_owned(),
                Some(_) if !row.enforced => "off".to_owned(),
                Some(ranges) => ranges.to_string(),
            };
            let change = row.change.as_ref().map(ToString::to_string);
            let by = row.by.as_ref().map(Author::short);
            vec![
                row.number.to_string(),
                row.written
                    .map_or_else(String::new, |time| time.to_string()),
                ranges,
                by.unwrap_or_default(),
                change.unwrap_or_default(),
            ]
        });
        f.write_str(&table(
            &["number", "written", "ranges", "by", "change"],
            rows,
        ))
    }
}

pub(super) fn run(context: &Context, name: &ListName) -> Result<u8> {
    let path = &context.list_files().file(name);
    let history = History::of(path);
    let current = history.current();
    let at = current
        .as_ref()
        .map_or_else(|| written(path), |kept| kept.written);
    let by = current.and_then(|kept| kept.by);
    let mut versions = vec![(at, by, read_ranges(path).ok().flatten())];
    for kept in history.before()? {
        versions.push((kept.written, kept.by.clone(), kept.read().ok()));
    }
    let lists: Vec<(Option<Timestamp>, Option<Author>, Option<List>)> = versions
        .into_iter()
        .map(|(written, by, file)| (written, by, file.map(|file| file.list())))
        .collect();
    let rows = lists
        .iter()
        .enumerate()
        .map(|(number, (written, by, list))| {
            let before = lists.get(number + 1).and_then(|(.., list)| list.as_ref());
            HistoryRow {
                number,
                written: written.map(to_second),
                ranges: list.as_ref().map(|list| list.entries().len()),
                enforced: list.as_ref() != Some(&List::Off),
                by: by.clone(),
                change: list
                    .as_ref()
                    .zip(before)
                    .map(|(list, before)| Difference::new(before.entries(), list.entries())),
            }
        });
    let report = HistoryReport {
        lists: rows.collect(),
    };
    context.global.output.write(&report)?;
    // The lists are in files, so they can be shown without a filter.
    if let Ok(Some(maps)) = context.maps() {
        let _ = report_trial(&maps);
    }
    Ok(0)
}
