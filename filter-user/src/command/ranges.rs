//! `apifence ranges`: the list, shown and changed.

use std::{collections::BTreeSet, fmt};

use anyhow::Result;
use filter_common::{Mode, map::Origin};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Context,
    policy::{examine, policy, put_in_force, refused, typed_list},
};
use crate::{
    cli::RangesCommand,
    config::DEFAULT_MAX_RANGES,
    net::Net,
    output::{say, table},
    problem::Problem,
    ranges::{Entry, List, RangesFile, parse_range},
    state::{WriterLock, read_ranges},
};

/// Runs the command.
pub(super) async fn run(context: &Context, command: RangesCommand) -> Result<u8> {
    match command {
        RangesCommand::List => show(context),
        RangesCommand::Set { ranges } => {
            let list = typed_list(&ranges)?;
            change(context, |_| Ok(RangesFile::new(&list))).await
        }
        RangesCommand::Clear => change(context, |_| Ok(RangesFile::new(&List::Off))).await,
        RangesCommand::Add { ranges, comment } => {
            let comment = one_line(comment)?;
            let ranges = typed_ranges(&ranges)?;
            change(context, |file| {
                let mut file = file?.unwrap_or_else(|| RangesFile::new(&List::Ranges(Vec::new())));
                if file.list() == List::Off {
                    say("warning: enforcement was off; with a range in the list it is on, and everyone else is dropped");
                }
                file.add(ranges.iter().map(|range| Entry {
                    range: *range,
                    comment: comment.clone(),
                }));
                Ok(file)
            })
            .await
        }
        RangesCommand::Remove { ranges } => {
            let ranges = typed_ranges(&ranges)?;
            change(context, |file| remove(context, file?, &ranges)).await
        }
    }
}

fn one_line(comment: Option<String>) -> Result<Option<String>> {
    match comment {
        Some(text) if text.contains(['\n', '\r']) => Err(Problem::input(
            "add ranges: the comment has more than one line",
            "a comment ends with its line",
        )),
        comment => Ok(comment
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())),
    }
}

fn typed_ranges(texts: &[String]) -> Result<Vec<IpNet>> {
    let mut ranges = Vec::new();
    let mut refusals = Vec::new();
    for text in texts {
        match parse_range(text.trim()) {
            Ok(range) => ranges.push(range),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() {
        Ok(ranges)
    } else {
        Err(refused(refusals))
    }
}

fn remove(context: &Context, file: Option<RangesFile>, ranges: &[IpNet]) -> Result<RangesFile> {
    let mut file = file.ok_or_else(|| {
        Problem::input(
            format!(
                "remove ranges: there is no ranges file `{}`",
                context.global.ranges_file.display()
            ),
            "`apifence ranges set CIDR,...` writes one",
        )
    })?;
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
                "`apifence ranges list` shows what is listed; nothing changed".to_owned()
            } else {
                format!("the list has {}; nothing changed", covers.join(", "))
            };
            return Err(Problem::input(
                format!("remove range `{range}`: it is not in the list"),
                hint,
            ));
        }
    }
    if file.list().entries().is_empty() {
        return Err(Problem::input(
            "remove ranges: no range would be left",
            "`apifence ranges set 0.0.0.0/32` lets nobody in but the implicit sources, `apifence ranges clear` switches enforcement off; nothing changed",
        ));
    }
    Ok(file)
}

/// Changes the list: file and kernel in one transaction.
async fn change(
    context: &Context,
    edit: impl FnOnce(Result<Option<RangesFile>>) -> Result<RangesFile>,
) -> Result<u8> {
    let net = Net::open()?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    let mut maps = context.maps()?;
    let settings = match &maps {
        Some(maps) => Some(maps.settings(maps.in_force()?)?),
        None => None,
    };
    let old = read_ranges(&context.global.ranges_file);
    // `set` and `clear` replace the file whatever it holds; the others need to read it.
    let before = old
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map(RangesFile::list);
    let old = match old {
        Ok(None) if maps.is_some() => Err(Problem::failed(
            format!(
                "read ranges file `{}`: no such file",
                context.global.ranges_file.display()
            ),
            "the list in force stays in force; `apifence ranges set CIDR,...` writes a new one",
        )),
        old => old,
    };
    let file = edit(old)?;
    let list = file.list();
    examine(
        &list,
        settings
            .as_ref()
            .map_or(DEFAULT_MAX_RANGES, |settings| settings.max_ranges),
    )?;
    match (&mut maps, &settings) {
        (Some(maps), Some(settings)) => {
            let policy = policy(&net, &list, settings).await?;
            put_in_force(context, &file, Some((maps, &policy))).await?;
        }
        _ => put_in_force(context, &file, None).await?,
    }
    let change = Change::new(before.as_ref(), &list, maps.is_some());
    change.report(before == Some(List::Off));
    context.global.output.result(&change)?;
    Ok(0)
}

/// What a change of the list came to.
#[derive(Serialize)]
struct Change {
    added: Vec<IpNet>,
    removed: Vec<IpNet>,
    /// How many ranges are in the list.
    ranges: usize,
    /// False if the list is the off switch.
    enforced: bool,
    /// Whether a filter is attached, and judges by the new list.
    attached: bool,
}

impl Change {
    fn new(before: Option<&List>, after: &List, attached: bool) -> Self {
        let set = |list: &List| -> BTreeSet<IpNet> {
            list.entries().iter().map(|entry| entry.range).collect()
        };
        let have = before.map(set).unwrap_or_default();
        let want = set(after);
        Self {
            added: want.difference(&have).copied().collect(),
            removed: have.difference(&want).copied().collect(),
            ranges: want.len(),
            enforced: *after != List::Off,
            attached,
        }
    }

    /// Says it.
    fn report(&self, was_off: bool) {
        say(format_args!(
            "{} added, {} removed, {} in the list",
            self.added.len(),
            self.removed.len(),
            self.ranges
        ));
        if !self.attached {
            say("no filter is attached: the list is in the file alone until `apifence attach`");
        } else if !self.enforced {
            say("warning: enforcement is off: everyone passes");
        } else if !self.removed.is_empty() || was_off {
            say("open connections from ranges that are no longer listed stop at their next packet");
        }
    }
}

#[derive(Serialize)]
struct Ranges {
    /// `kernel`, or `file` where no filter is attached.
    source: &'static str,
    /// False if the list is the off switch.
    enforced: bool,
    ranges: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    range: IpNet,
    origins: Vec<&'static str>,
    comment: Option<String>,
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.enforced {
            writeln!(f, "enforcement is off: everyone passes")?;
        }
        let rows = self.ranges.iter().map(|row| {
            vec![
                row.range.to_string(),
                row.origins.join(", "),
                row.comment.clone().unwrap_or_default(),
            ]
        });
        f.write_str(&table(&["range", "origin", "comment"], rows))
    }
}

/// The names of the origins in a set of their bits.
pub(super) fn origin_labels(origins: u8) -> Vec<&'static str> {
    Origin::ALL
        .into_iter()
        .filter(|origin| origins & *origin as u8 != 0)
        .map(Origin::label)
        .collect()
}

/// Shows what is in force, from the kernel; or, where no filter is attached, what the file says.
fn show(context: &Context) -> Result<u8> {
    let maps = context.maps()?;
    let file = read_ranges(&context.global.ranges_file);
    let list = match (&maps, file) {
        (_, Ok(file)) => file.map(|file| file.list()),
        // The kernel knows the ranges; only the comments are missing.
        (Some(_), Err(error)) => {
            say(format_args!("warning: {error:#}"));
            None
        }
        (None, Err(error)) => return Err(error),
    };
    let comment = |range: &IpNet| {
        let entries = list.as_ref().map_or(&[][..], List::entries);
        entries
            .iter()
            .find(|entry| entry.range == *range)
            .and_then(|entry| entry.comment.clone())
    };
    let ranges = match &maps {
        Some(maps) => {
            let slot = maps.in_force()?;
            Ranges {
                source: "kernel",
                enforced: maps.record(slot)?.mode != Mode::Off as u8,
                ranges: maps
                    .sources(slot)?
                    .into_iter()
                    .map(|(range, origins)| Row {
                        range,
                        origins: origin_labels(origins),
                        comment: comment(&range),
                    })
                    .collect(),
            }
        }
        None => {
            say("note: no filter is attached; this is the ranges file");
            Ranges {
                source: "file",
                enforced: list.as_ref() != Some(&List::Off),
                ranges: list
                    .as_ref()
                    .map_or(&[][..], List::entries)
                    .iter()
                    .map(|entry| Row {
                        range: entry.range,
                        origins: vec![Origin::List.label()],
                        comment: entry.comment.clone(),
                    })
                    .collect(),
            }
        }
    };
    context.global.output.write(&ranges)?;
    Ok(0)
}
