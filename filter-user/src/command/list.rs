//! `apifence ranges list`: the ranges in force, and their use.

mod shown;

use anyhow::Result;
use filter_common::{Mode, layout::Origin};
use jiff::Timestamp;

pub(super) use self::shown::ListReport;
use self::shown::ListRow;
use crate::{
    cli::ListArgs,
    clock::{Clocks, to_second},
    context::Context,
    kernel::bpf::Maps,
    policy::entry,
    ranges::{Entry, List, ListName, Lists},
    ui::{error::UserError, output::eprint},
    view::policy::{Trial, origin_labels},
};

/// Shows the ranges in the kernel, or those in the file if no filter is attached. Entries of other
/// lists than `of` are left out.
pub(super) fn run(context: &Context, of: Option<&ListName>, args: &ListArgs) -> Result<u8> {
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
    if let Some(time) = args.unused_for {
        if maps.is_none() {
            return Err(UserError::failed(
                "find unused ranges: no filter is attached, so nothing is counted",
                "`apifence attach`, and wait as long as you ask for",
            ));
        }
        keep_unused(&mut ranges, Timestamp::now() - time);
    }
    ranges.all = args.all;
    ranges.arrange(args, Timestamp::now());
    context.global.output.screen(&ranges)?;
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
    let trial = Trial::read(maps)?;
    Ok(ListReport {
        source: "kernel",
        enforced,
        provisional: trial.as_ref().map(|trial| trial.provisional),
        trial,
        ranges: rows,
        all: false,
        left_out: 0,
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
        provisional: None,
        trial: None,
        ranges: rows.collect(),
        all: false,
        left_out: 0,
    }
}

/// Keeps the user's entries unused since `time`; reports how many were not counted that long.
fn keep_unused(report: &mut ListReport, time: Timestamp) {
    report.ranges.retain(ListRow::is_listed);
    let before = report.ranges.len();
    let unknown = report
        .ranges
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
    let is_unused = |row: &ListRow| row.unused_since().is_some_and(|since| since <= time);
    report.ranges.retain(is_unused);
    report.left_out = before - report.ranges.len();
}
