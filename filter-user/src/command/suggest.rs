//! `apifence suggest`: ranges of the sources that monitor mode would drop, for the ranges file.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use anyhow::Result;
use filter_common::Mode;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::{Clocks, to_second},
    config::Guard,
    context::Context,
    kernel::bpf::{Group, MonitoredSourceSeen, read_monitored_sources},
    ranges::{Grouping, group, parse_range},
    ui::output::eprint,
};

/// Ranges for the sources that enforcement would drop.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Suggestions {
    /// The proposed ranges, the busiest first.
    ranges: Vec<Suggestion>,
}

/// A proposed range.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Suggestion {
    /// The range.
    range: IpNet,
    /// Packets of its sources that were dropped, or would have been.
    packets: u64,
    /// The time of the last of them: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    last_seen: Timestamp,
    /// The number of its addresses that were seen.
    addresses: usize,
    /// The guard that refused them: a range in one of its lists allows them. Null if a range in any
    /// list does.
    guard: Option<Guard>,
}

impl fmt::Display for Suggestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suggestion in &self.ranges {
            // A line of the ranges file would not open the port.
            if let Some(Guard { lists, .. }) = &suggestion.guard {
                let names = lists.iter().map(|name| format!("--list {name}"));
                let names: Vec<String> = names.collect();
                write!(f, "# {} ", names.join(" or "))?;
            }
            writeln!(
                f,
                "{} # {} {}, last seen {}, {} {}",
                suggestion.range,
                suggestion.packets,
                plural(suggestion.packets, "packet", "packets"),
                suggestion.last_seen,
                suggestion.addresses,
                plural(suggestion.addresses as u64, "address", "addresses"),
            )?;
        }
        Ok(())
    }
}

const fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// The sources to suggest, by the guard of the port at which they were refused: packets, and the
/// time of the last one.
type Unlisted = BTreeMap<Option<Guard>, HashMap<IpAddr, (u64, Timestamp)>>;

/// The ranges of `sources`, which `guard` does not let in, or no list if it is none.
fn suggest(
    guard: Option<&Guard>,
    sources: &HashMap<IpAddr, (u64, Timestamp)>,
    by: Grouping,
) -> Vec<Suggestion> {
    let all: Vec<IpAddr> = sources.keys().copied().collect();
    let suggestion = |(range, addresses): (IpNet, Vec<IpAddr>)| {
        let seen = addresses.iter().map(|source| sources[source]);
        let last = seen.clone().map(|(_, last)| last).max();
        Suggestion {
            range,
            packets: seen.map(|(packets, _)| packets).sum(),
            last_seen: to_second(last.unwrap_or_default()),
            addresses: addresses.len(),
            guard: guard.cloned(),
        }
    };
    group(&all, by).into_iter().map(suggestion).collect()
}

pub(super) fn run(context: &Context, by: Grouping) -> Result<u8> {
    let maps = context.attached_maps()?;
    let now = Clocks::now()?;
    let mut unlisted: Unlisted = BTreeMap::new();
    let mut impossible = 0_usize;
    let seen = read_monitored_sources(&context.pins.maps())?;
    let judged = maps.read_consistent(|slot| {
        let settings = maps.settings(slot)?;
        let judge = |source: &MonitoredSourceSeen| {
            // A range in any list does not help a packet whose port cannot be read.
            let number = source.port.and_then(|port| settings.guard_of(port));
            let group = number.map_or(Group::ALL, Group::guard);
            let guard = number.map(|number| settings.guards[number].clone());
            Ok((maps.authorizes(slot, group, source.source, &now)?, guard))
        };
        seen.iter().map(judge).collect::<Result<Vec<_>>>()
    })?;
    for (source, (authorized, guard)) in seen.iter().zip(judged) {
        // A source that is authorized by now needs no suggestion.
        if authorized {
            continue;
        }
        // Loopback, multicast and similar sources are forged, and a list refuses them.
        if parse_range(&source.source.to_string()).is_err() {
            impossible += 1;
            continue;
        }
        // Another generation may have counted it under another group.
        let sources = unlisted.entry(guard).or_default();
        let seen = sources.entry(source.source).or_insert((0, now.wall));
        let last = if seen.0 == 0 {
            source.last_seen
        } else {
            seen.1
        };
        *seen = (seen.0 + source.packets, last.max(source.last_seen));
    }
    let ranges = unlisted
        .iter()
        .flat_map(|(guard, sources)| suggest(guard.as_ref(), sources, by));
    let ranges = ranges.collect();
    let suggestions = Suggestions { ranges };
    if impossible > 0 {
        eprint(format!(
            "left out: {impossible} {} that no packet can rightly come from",
            plural(impossible as u64, "address", "addresses")
        ));
    }
    if suggestions.ranges.is_empty() {
        let monitoring =
            maps.read_consistent(|slot| maps.record(slot))?.mode == Mode::Monitor as u8;
        eprint(if monitoring {
            "no unlisted source was seen"
        } else {
            "no unlisted source was seen; only monitor mode remembers unlisted sources"
        });
        if context.global.output.is_text() {
            return Ok(0);
        }
    }
    context.global.output.write(&suggestions)?;
    Ok(0)
}
