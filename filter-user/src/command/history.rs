//! `apifence ranges history`: the former lists.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::to_second,
    context::Context,
    policy::{Difference, author::Author},
    ranges::{List, ListName},
    store::{History, read_ranges, written},
    ui::{
        line::Line,
        number::count,
        page::{Page, Records, Screen},
        style::Ink,
        table::{Column, Table},
    },
    view::policy::{Provisional, Trial},
};

/// The versions of a list.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HistoryReport {
    /// The change on trial; null if there is none.
    provisional: Option<Provisional>,
    /// The same, with its author.
    #[serde(skip)]
    trial: Option<Trial>,
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

impl HistoryRow {
    /// The number of ranges, or what the list is in place of ranges.
    fn size(&self) -> Line {
        match self.ranges {
            None => Line::inked(Ink::Bad, "not a list"),
            Some(_) if !self.enforced => Line::inked(Ink::Bad, "off"),
            Some(ranges) => count(ranges as u64).into(),
        }
    }
}

impl Screen for HistoryReport {
    fn show(&self, page: &mut Page) {
        if let Some(trial) = &self.trial {
            page.line(trial.line());
        }
        let mut table = Table::new([
            Column::number("number"),
            Column::text("written"),
            Column::number("ranges"),
            Column::text("by"),
            Column::wrapped("change"),
        ]);
        for row in &self.lists {
            let written = row.written.map(|time| page.when(time));
            let change = row.change.as_ref().map(ToString::to_string);
            table.row([
                row.number.into(),
                written.unwrap_or_default().into(),
                row.size(),
                row.by
                    .as_ref()
                    .map(Author::short)
                    .unwrap_or_default()
                    .into(),
                change.unwrap_or_default().into(),
            ]);
        }
        page.table(&table);
    }

    fn records(&self) -> Option<Records> {
        let rows = self.lists.iter().map(|row| {
            let text = |value: Option<String>| value.unwrap_or_default();
            vec![
                row.number.to_string(),
                text(row.written.map(|time| time.to_string())),
                text(row.ranges.map(|ranges| ranges.to_string())),
                row.enforced.to_string(),
                text(row.by.as_ref().map(|by| by.command.clone())),
                text(row.by.as_ref().and_then(Author::person)),
                text(row.change.as_ref().map(ToString::to_string)),
            ]
        });
        Some(Records {
            names: &[
                "number", "written", "ranges", "enforced", "command", "user", "change",
            ],
            rows: rows.collect(),
        })
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
    // The lists are in files, so they are shown without a filter, too.
    let maps = context.maps().ok().flatten();
    let trial = maps.and_then(|maps| Trial::read(&maps).ok().flatten());
    let report = HistoryReport {
        provisional: trial.as_ref().map(|trial| trial.provisional),
        trial,
        lists: rows.collect(),
    };
    context.global.output.screen(&report)?;
    Ok(0)
}
