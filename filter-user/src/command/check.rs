//! `apifence check`: what the kernel makes of an address.

use std::{fmt, net::IpAddr};

use anyhow::Result;
use filter_common::{Mode, map::Origin};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Context,
    list::{known_list, origin_labels},
};
use crate::{
    clock::{Moment, to_second},
    ranges::{List, Prefix},
};

#[derive(Serialize)]
struct Report {
    results: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    address: IpAddr,
    /// Whether its packets to a protected port pass.
    allowed: bool,
    /// `pass`, `drop`, or `would_drop` in monitor mode.
    verdict: &'static str,
    /// The range that authorizes it.
    range: Option<IpNet>,
    origins: Vec<&'static str>,
    comment: Option<String>,
    /// When the range expires; none if it does not.
    expires: Option<Timestamp>,
    /// A longer range that has expired.
    expired: Option<IpNet>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for answer in &self.results {
            let word = if answer.allowed { "allowed" } else { "dropped" };
            write!(f, "{} {word}: ", answer.address)?;
            match (&answer.range, answer.verdict) {
                (Some(range), _) => {
                    write!(f, "`{range}` ({})", answer.origins.join(", "))?;
                    if let Some(comment) = &answer.comment {
                        write!(f, " # {comment}")?;
                    }
                    if let Some(time) = answer.expires {
                        write!(f, ", until {time}")?;
                    }
                }
                (None, "would_drop") => {
                    f.write_str("in no authorized range, and the mode is monitor")?;
                }
                (None, "pass") => f.write_str("enforcement is off, everyone passes")?,
                (None, _) => f.write_str("in no authorized range")?,
            }
            if let Some(range) = &answer.expired {
                write!(f, "; `{range}` has expired")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Runs the command.
pub(super) fn run(context: &Context, addresses: &[IpAddr]) -> Result<u8> {
    let maps = context.attached_maps()?;
    // The verdict is the kernel's; comments are in the file alone, and one that cannot be read costs no more than them.
    let list = known_list(context, Some(&maps)).ok().flatten();
    let entries = list.as_ref().map_or(&[][..], List::entries);
    let entry_of = |prefix: &Prefix| entries.iter().find(|entry| entry.range == prefix.range);
    let now = Moment::now()?;
    let (mode, found) = maps.steadily(|slot| {
        let around = addresses
            .iter()
            .map(|address| maps.around(slot, *address, &now));
        Ok((maps.record(slot)?.mode, around.collect::<Result<Vec<_>>>()?))
    })?;
    let mut results = Vec::new();
    for (address, around) in addresses.iter().zip(found) {
        let authorized = around.first().is_some_and(|prefix| prefix.lives(now.wall));
        // The kernel knows how long the longest lives with those around it; how long each lives by itself is in the file.
        let own = |prefix: &Prefix| match entry_of(prefix) {
            Some(entry) if prefix.origins == Origin::List as u8 => entry.expires,
            _ => prefix.expires,
        };
        let lives = |prefix: &&Prefix| own(prefix).is_none_or(|time| now.wall < time);
        let authorizing = around
            .iter()
            .find(lives)
            .or(around.first())
            .filter(|_| authorized);
        let expired = around.first().filter(|prefix| !lives(prefix));
        let entry = authorizing.and_then(entry_of);
        let verdict = if authorized || mode == Mode::Off as u8 {
            "pass"
        } else if mode == Mode::Monitor as u8 {
            "would_drop"
        } else {
            "drop"
        };
        results.push(Answer {
            address: *address,
            allowed: verdict != "drop",
            verdict,
            range: authorizing.map(|prefix| prefix.range),
            origins: authorizing.map_or_else(Vec::new, |prefix| origin_labels(prefix.origins)),
            comment: entry.and_then(|entry| entry.comment.clone()),
            expires: authorizing.and_then(own).map(to_second),
            expired: expired.map(|prefix| prefix.range),
        });
    }
    let report = Report { results };
    context.global.output.write(&report)?;
    Ok(u8::from(
        report.results.iter().any(|answer| !answer.allowed),
    ))
}
