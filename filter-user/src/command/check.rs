//! `apifence check`: the kernel's own answer for an address.

use std::{fmt, net::IpAddr};

use anyhow::Result;
use filter_common::Mode;
use ipnet::IpNet;
use serde::Serialize;

use super::{Context, ranges::origin_labels};

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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for answer in &self.results {
            let word = if answer.allowed { "allowed" } else { "dropped" };
            write!(f, "{} {word}: ", answer.address)?;
            match (&answer.range, answer.verdict) {
                (Some(range), _) => writeln!(f, "`{range}` ({})", answer.origins.join(", "))?,
                (None, "would_drop") => {
                    writeln!(f, "in no authorized range, and the mode is monitor")?;
                }
                (None, "pass") => writeln!(f, "enforcement is off, everyone passes")?,
                (None, _) => writeln!(f, "in no authorized range")?,
            }
        }
        Ok(())
    }
}

/// Runs the command.
pub(super) fn run(context: &Context, addresses: &[IpAddr]) -> Result<u8> {
    let maps = context.attached_maps()?;
    let slot = maps.in_force()?;
    let mode = maps.record(slot)?.mode;
    let mut results = Vec::new();
    for address in addresses {
        let found = maps.authorizing(slot, *address)?;
        let verdict = if found.is_some() || mode == Mode::Off as u8 {
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
            range: found.map(|(range, _)| range),
            origins: found.map_or_else(Vec::new, |(_, value)| origin_labels(value.origins)),
        });
    }
    let report = Report { results };
    context.global.output.write(&report)?;
    Ok(u8::from(
        report.results.iter().any(|answer| !answer.allowed),
    ))
}
