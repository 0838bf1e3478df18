//! `apifence ranges list`: the ranges in force, and their use.

use std::fmt;

use anyhow::Result;
use filter_common::{Mode, layout::Origin};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::{
    clock::{Clocks, to_second},
    config::join,
    context::Context,
    kernel::bpf::Maps,
    policy::entry,
    ranges::{Entry, List, ListName, Lists},
    ui::{
        error::UserError,
        output::{eprint, table},
    },
    view::policy::{origin_labels, report_trial},
};

/// The authorized ranges.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ListReport {
    /// `kernel`, or `file` where no filter is attached.
    source: &'static str,
    /// False if the list is the off switch.
    enforced: bool,
    /// The ranges.
    ranges: Vec<ListRow>,
}

/// An authorized range.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ListRow {
    /// The range.
    range: IpNet,
    /// Why it is authorized: `list`, `outbound`, `cluster`, `node`, ...
    origins: Vec<&'static str>,
    /// The lists that have it.
    lists: Vec<ListName>,
    /// The names in `cluster_cidrs` that stand for it.
    presets: Vec<&'static str>,
    /// The comment of its entry; null without one.
    comment: Option<String>,
    /// When the entry expires: RFC 3339, UTC; null if it does not.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    expires: Option<Timestamp>,
    /// When its packets stop passing: RFC 3339, UTC; null if they do not, or if no filter is
    /// attached. Later than `expires` inside a range that lives longer.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    in_force_until: Option<Timestamp>,
    /// Packets that passed because of it; null if they are not counted.
    packets: Option<u64>,
    /// The time of the last such packet: RFC 3339, UTC; null if there was none.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    last_seen: Option<Timestamp>,
    /// When the count of its packets began: RFC 3339, UTC; null if they are not counted.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    counted_since: Option<Timestamp>,
}

impl ListRow {
    /// Since when it is unused, as far as that is known.
    fn unused_since(&self) -> Option<Timestamp> {
        self.last_seen.or(self.counted_since)
    }
}

impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.enforced {
            writeln!(f, "enforcement is off: everyone passes")?;
        }
        let now = Timestamp::now();
        let mut names = self.ranges.iter().flat_map(|row| &row.lists);
        let is_default_alone = names.all(ListName::is_default);
        let rows = self.ranges.iter().map(|row| {
            vec![
                row.range.to_string(),
                origins(row, !is_default_alone),
                expiry(row, now),
                row.packets
                    .map_or_else(String::new, |packets| packets.to_string()),
                match (row.last_seen, row.packets) {
                    (Some(time), _) => time.to_string(),
                    (None, Some(_)) => "never".to_owned(),
                    (None, None) => String::new(),
                },
                row.comment.clone().unwrap_or_default(),
            ]
        });
        let header = [
            "range",
            "origin",
            "expires",
            "packets",
            "last seen",
            "comment",
        ];
        f.write_str(&table(&header, rows))
    }
}

/// The origins of a range, with the names of its presets, and with those of its lists if `lists`.
fn origins(row: &ListRow, lists: bool) -> String {
    let with_names = row.origins.iter().map(|origin| {
        if lists && *origin == Origin::List.label() {
            format!("{origin} {}", join(&row.lists))
        } else if *origin == Origin::Cluster.label() && !row.presets.is_empty() {
            format!("{origin} {}", join(&row.presets))
        } else {
            (*origin).to_owned()
        }
    });
    join(with_names)
}

fn expiry(row: &ListRow, now: Timestamp) -> String {
    match (row.expires, row.in_force_until) {
        (None, _) => String::new(),
        (Some(time), Some(until)) if until <= now => format!("{time} (expired)"),
        (Some(time), until) if until.is_none_or(|until| until > time) => {
            format!("{time} (inside a range that stays)")
        }
        (Some(time), _) => time.to_string(),
    }
}

/// Shows the ranges in the kernel, or those in the file if no filter is attached. With `unused_for`
/// it shows only the user's entries that were unused for that long.
/// Entries of other lists than `of` are left out.
pub(super) fn run(
    context: &Context,
    of: Option<&ListName>,
    unused_for: Option<SignedDuration>,
) -> Result<u8> {
    let maps = context.maps()?;
    let lists = lists_for(context, maps.as_ref())?;
    let list = lists.as_ref().map(Lists::union);
    let entries = list.as_ref().map_or(&[][..], List::entries);
    let mut ranges = match &maps {
        Some(maps) => in_force(maps, entries)?,
        None => {
            eprint("note: no filter is attached; this is the ranges file");
            in_file(list.as_ref() != Some(&List::Off), entries)
        }
    };
    if let Some(lists) = &lists {
        let names = lists.names();
        for row in &mut ranges.ranges {
            row.lists = names.get(&row.range).cloned().unwrap_or_default();
        }
    }
    if let Some(maps) = &maps {
        let settings = maps.settings(maps.active_slot()?)?;
        let files = context.read_cluster(settings.cluster_files()).lists;
        let presets = settings.presets(&files);
        let cluster = Origin::Cluster.label();
        let rows = ranges.ranges.iter_mut();
        for row in rows.filter(|row| row.origins.contains(&cluster)) {
            row.presets = presets.get(&row.range).cloned().unwrap_or_default();
        }
    }
    if let Some(name) = of {
        ranges.ranges.retain(|row| row.lists.contains(name));
    }
    if let Some(time) = unused_for {
        if maps.is_none() {
            return Err(UserError::failed(
                "find unused ranges: no filter is attached, so nothing is counted",
                "`apifence attach`, and wait as long as you ask for",
            ));
        }
        keep_unused(&mut ranges.ranges, Timestamp::now() - time);
    }
    context.global.output.write(&ranges)?;
    maps.as_ref().map_or(Ok(()), report_trial)?;
    Ok(0)
}

/// The lists to compare with, if they are known. Without a filter a fault is an error; with one it
/// is a warning, since the kernel has the ranges, and only comments may be missing.
fn lists_for(context: &Context, maps: Option<&Maps>) -> Result<Option<Lists>> {
    let read = context
        .lists_in_force(maps)
        .and_then(|mut read| match (maps, read.faults.pop()) {
            (None, Some((_, error))) => Err(error),
            (_, last) => {
                for (_, error) in read.faults.drain(..).chain(last) {
                    eprint(format_args!("warning: {error:#}"));
                }
                Ok(read.lists)
            }
        });
    match (maps, read) {
        (_, Ok(lists)) => Ok(Some(lists).filter(|lists| !lists.is_empty())),
        (Some(_), Err(error)) => {
            eprint(format_args!("warning: {error:#}"));
            Ok(None)
        }
        (None, Err(error)) => Err(error),
    }
}

fn in_force(maps: &Maps, entries: &[Entry]) -> Result<ListReport> {
    let now = Clocks::now()?;
    let mut rows = Vec::new();
    let (enforced, used) = maps.read_consistent(|slot| {
        let enforced = maps.record(slot)?.mode != Mode::Off as u8;
        Ok((enforced, maps.used(slot, &now)?))
    })?;
    for used in used {
        let prefix = used.prefix;
        let entry = entry(entries, &prefix.range);
        rows.push(ListRow {
            range: prefix.range,
            origins: origin_labels(prefix.origins),
            lists: Vec::new(),
            presets: Vec::new(),
            comment: entry.and_then(|entry| entry.comment.clone()),
            expires: match entry {
                Some(entry) => entry.expires,
                None => prefix.expires.map(to_second),
            },
            in_force_until: prefix.expires.map(to_second),
            packets: used.packets,
            last_seen: used.last_seen.map(to_second),
            counted_since: Some(to_second(used.counted_since)),
        });
    }
    Ok(ListReport {
        source: "kernel",
        enforced,
        ranges: rows,
    })
}

fn in_file(enforced: bool, entries: &[Entry]) -> ListReport {
    let rows = entries.iter().map(|entry| ListRow {
        range: entry.range,
        origins: vec![Origin::List.label()],
        lists: Vec::new(),
        presets: Vec::new(),
        comment: entry.comment.clone(),
        expires: entry.expires,
        in_force_until: entry.expires,
        packets: None,
        last_seen: None,
        counted_since: None,
    });
    ListReport {
        source: "file",
        enforced,
        ranges: rows.collect(),
    }
}

/// Keeps the user's entries unused since `time`; reports how many were not counted that long.
fn keep_unused(rows: &mut Vec<ListRow>, time: Timestamp) {
    rows.retain(|row| row.origins.contains(&Origin::List.label()));
    let unknown = rows
        .iter()
        .filter(|row| match (row.last_seen, row.counted_since) {
            (Some(_), _) => false,
            (None, Some(since)) => since > time,
            (None, None) => true,
        })
        .count();
    if unknown > 0 {
        eprint(format_args!(
            "note: {unknown} entries were not seen, and are not counted that long yet: they are left out"
        ));
    }
    rows.retain(|row| row.unused_since().is_some_and(|since| since <= time));
}
