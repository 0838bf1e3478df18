//! `apifence stats`: the counters, by interface and reason.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use super::Context;
use crate::{
    datapath::{CounterRow, Counters},
    net::Net,
    output::table,
};

/// The counters of all guarded interfaces.
#[derive(Clone, Serialize)]
pub(super) struct Stats {
    pub(super) interfaces: Vec<InterfaceStats>,
}

/// The counters of one interface.
#[derive(Clone, Serialize)]
pub(super) struct InterfaceStats {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// Those that are not zero.
    pub(super) counters: Vec<Row>,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) verdict: &'static str,
    pub(super) reason: &'static str,
    pub(super) packets: u64,
    pub(super) bytes: u64,
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
    pub(super) fn packets(&self, verdict: &str) -> u64 {
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

/// Reads the counters of all guarded interfaces.
pub(super) async fn read(context: &Context, net: &Net) -> Result<Stats> {
    let names = net.interfaces().await?;
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

/// The counters of one interface that are not zero; none if the filter has left it meanwhile.
pub(super) fn counters(counters: &Counters, ifindex: u32) -> Result<Option<Vec<Row>>> {
    let Some(rows) = counters.read(ifindex)? else {
        return Ok(None);
    };
    let rows = rows.into_iter().filter(|row| row.counter.packets > 0);
    Ok(Some(rows.map(Row::from).collect()))
}

/// Runs the command without `--watch`.
pub(super) async fn run(context: &Context) -> Result<u8> {
    let stats = read(context, &Net::open()?).await?;
    if stats.interfaces.is_empty() {
        return Err(context.nothing_attached());
    }
    context.global.output.write(&stats)?;
    Ok(0)
}
