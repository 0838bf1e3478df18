//! `apifence suggest`: ranges of the sources that monitor mode would drop, for the ranges file.

use std::{collections::HashMap, fmt};

use anyhow::Result;
use filter_common::Mode;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::{Clocks, to_second},
    context::Context,
    kernel::bpf::read_monitored_sources,
    ranges::{Grouping, group, parse_range},
    ui::output::eprint,
};

#[derive(Serialize)]
struct Suggestions {
    ranges: Vec<Suggestion>,
}

#[derive(Serialize)]
struct Suggestion {
    range: IpNet,
    packets: u64,
    last_seen: Timestamp,
    /// The number of its addresses that were seen.
    addresses: usize,
}

impl fmt::Display for Suggestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suggestion in &self.ranges {
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

pub(super) fn run(context: &Context, by: Grouping) -> Result<u8> {
    let maps = context.attached_maps()?;
    let now = Clocks::now()?;
    let mut unlisted = HashMap::new();
    let mut impossible = 0_usize;
    for source in read_monitored_sources(&context.pins.maps())? {
        // A source that is authorized by now needs no suggestion.
        let around = maps.read_consistent(|slot| maps.around(slot, source.source, &now))?;
        if around.first().is_some_and(|prefix| prefix.lives(now.wall)) {
            continue;
        }
        // Loopback, multicast and similar sources are forged, and a list refuses them.
        if parse_range(&source.source.to_string()).is_err() {
            impossible += 1;
            continue;
        }
        unlisted.insert(source.source, source);
    }
    let sources: Vec<_> = unlisted.keys().copied().collect();
    let ranges = group(&sources, by)
        .into_iter()
        .map(|(range, sources)| {
            let seen = sources.iter().map(|source| &unlisted[source]);
            Suggestion {
                range,
                packets: seen.clone().map(|source| source.packets).sum(),
                last_seen: to_second(
                    seen.map(|source| source.last_seen)
                        .max()
                        .unwrap_or(now.wall),
                ),
                addresses: sources.len(),
            }
        })
        .collect();
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
            "nobody was seen who is not authorized"
        } else {
            "nobody was seen who is not authorized; only `--mode monitor` remembers whom it would refuse"
        });
        if context.global.output == crate::ui::output::Output::Text {
            return Ok(0);
        }
    }
    context.global.output.write(&suggestions)?;
    Ok(0)
}
