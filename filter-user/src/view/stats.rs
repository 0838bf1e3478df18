//! The counters by interface and reason, and their rates.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::{
    context::Context,
    kernel::{
        bpf::{CounterRow, Counters},
        net::rtnetlink,
    },
    ui::output::table,
};

/// The counters of all guarded interfaces.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Stats {
    /// The guarded interfaces; empty if no filter is attached.
    pub(crate) interfaces: Vec<InterfaceStats>,
}

/// The counters of an interface.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct InterfaceStats {
    /// Its name; `#` and its ifindex once it is gone.
    pub(crate) interface: String,
    /// Its ifindex.
    pub(crate) ifindex: u32,
    /// The counters that are not zero.
    pub(crate) counters: Vec<Row>,
}

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Row {
    /// `pass`, `drop`, or `would_drop` in monitor mode.
    pub(crate) verdict: &'static str,
    /// The reason for the verdict.
    pub(crate) reason: &'static str,
    /// The number of packets since the filter was attached: up to 64 bits.
    pub(crate) packets: u64,
    /// Their bytes, from the link header on.
    pub(crate) bytes: u64,
}

impl From<CounterRow> for Row {
    fn from(row: CounterRow) -> Self {
        Self {
            verdict: row.verdict.label(),
            reason: row.verdict.reason(),
            packets: row.counter.packets,
            bytes: row.counter.bytes,
        }
    }
}

impl InterfaceStats {
    /// The packets counted under `verdict`, whatever the reason.
    pub(crate) fn packets(&self, verdict: &str) -> u64 {
        self.counters
            .iter()
            .filter(|row| row.verdict == verdict)
            .map(|row| row.packets)
            .sum()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.interfaces.iter().flat_map(|interface| {
            interface.counters.iter().map(|row| {
                vec![
                    interface.interface.clone(),
                    row.verdict.to_owned(),
                    row.reason.to_owned(),
                    row.packets.to_string(),
                    row.bytes.to_string(),
                ]
            })
        });
        f.write_str(&table(
            &["interface", "verdict", "reason", "packets", "bytes"],
            rows,
        ))
    }
}

pub(crate) fn read(context: &Context) -> Result<Stats> {
    let names = rtnetlink::interfaces()?;
    let pinned = context.pins.interfaces()?;
    let mut interfaces = Vec::new();
    if pinned.is_empty() {
        return Ok(Stats { interfaces });
    }
    let open = Counters::open(&context.pins.maps())?;
    for ifindex in pinned {
        let Some(counters) = counters(&open, ifindex)? else {
            continue;
        };
        interfaces.push(InterfaceStats {
            interface: names
                .iter()
                .find(|interface| interface.ifindex == ifindex)
                .map_or_else(
                    || format!("#{ifindex} (gone)"),
                    |interface| interface.name.clone(),
                ),
            ifindex,
            counters,
        });
    }
    Ok(Stats { interfaces })
}

/// The nonzero counters of an interface; none if the filter was detached from it meanwhile.
pub(crate) fn counters(counters: &Counters, ifindex: u32) -> Result<Option<Vec<Row>>> {
    let Some(rows) = counters.read(ifindex)? else {
        return Ok(None);
    };
    let rows = rows.into_iter().filter(|row| row.counter.packets > 0);
    Ok(Some(rows.map(Row::from).collect()))
}

/// One counter, and its rate.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RatedRow {
    #[serde(flatten)]
    pub(crate) row: Row,
    /// Packets a second.
    pub(crate) packets_per_second: f64,
    /// Bytes a second.
    pub(crate) bytes_per_second: f64,
}

/// The header of a table of [`RatedRow`]s.
pub(crate) const HEADER: [&str; 7] = [
    "interface",
    "verdict",
    "reason",
    "packets/s",
    "bytes/s",
    "packets",
    "bytes",
];

impl RatedRow {
    /// Its table cells; `interface` is the name to show.
    pub(crate) fn cells(&self, interface: &str) -> Vec<String> {
        vec![
            interface.to_owned(),
            self.row.verdict.to_owned(),
            self.row.reason.to_owned(),
            format!("{:.1}", self.packets_per_second),
            format!("{:.1}", self.bytes_per_second),
            self.row.packets.to_string(),
            self.row.bytes.to_string(),
        ]
    }
}

/// Rounds to thousandths: more digits would only look exact.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
