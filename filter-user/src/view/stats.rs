//! The counters by interface and reason, and their rates.

use anyhow::Result;
use serde::Serialize;

use crate::{
    context::Context,
    kernel::{
        bpf::{CounterRow, Counters},
        net::rtnetlink,
    },
    ui::{
        line::Line,
        number::{bytes, count},
        page::{Page, Records, Screen},
        style::Ink,
        table::{Column, Table},
    },
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
    /// The counters that are not zero; all of them if they were asked for.
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

/// The verdicts as they are shown: the most interesting first.
pub(crate) const VERDICTS: [&str; 3] = ["drop", "would_drop", "pass"];

/// The colour of a verdict.
pub(crate) fn ink(verdict: &str) -> Ink {
    match verdict {
        "drop" => Ink::Bad,
        "would_drop" => Ink::Caution,
        _ => Ink::Good,
    }
}

/// The rows of all interfaces by verdict, the most packets first.
pub(crate) fn by_verdict<'a, T>(
    rows: impl Iterator<Item = (&'a str, &'a T)>,
    row: impl Fn(&T) -> Row,
) -> Vec<(&'a str, &'a T)> {
    let rank = |verdict: &str| VERDICTS.iter().position(|one| *one == verdict);
    let mut rows: Vec<(&str, &T)> = rows.collect();
    rows.sort_by_key(|(_, one)| {
        let one = row(one);
        (rank(one.verdict), std::cmp::Reverse(one.packets))
    });
    rows
}

impl Screen for Stats {
    fn show(&self, page: &mut Page) {
        let all = self.interfaces.iter().flat_map(|interface| {
            let rows = interface.counters.iter();
            rows.map(|row| (interface.interface.as_str(), row))
        });
        let rows = by_verdict(all, |row| *row);
        if rows.is_empty() {
            return page.line("no packets yet");
        }
        let mut table = Table::new([
            Column::text("interface"),
            Column::text("verdict"),
            Column::text("reason"),
            Column::number("packets"),
            Column::number("bytes"),
        ]);
        for (interface, row) in &rows {
            table.row([
                Line::from(interface),
                Line::inked(ink(row.verdict), row.verdict),
                row.reason.into(),
                count(row.packets).into(),
                bytes(row.bytes).into(),
            ]);
        }
        for verdict in VERDICTS {
            let own = rows.iter().filter(|(_, row)| row.verdict == verdict);
            let own: Vec<&Row> = own.map(|(_, row)| *row).collect();
            if own.is_empty() {
                continue;
            }
            table.row([
                Line::inked(Ink::Strong, "total"),
                Line::inked(ink(verdict), verdict),
                Line::default(),
                Line::inked(Ink::Strong, count(own.iter().map(|row| row.packets).sum())),
                Line::inked(Ink::Strong, bytes(own.iter().map(|row| row.bytes).sum())),
            ]);
        }
        page.table(&table);
    }

    fn records(&self) -> Option<Records> {
        let all = self.interfaces.iter().flat_map(|interface| {
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
        Some(Records {
            names: &["interface", "verdict", "reason", "packets", "bytes"],
            rows: all.collect(),
        })
    }
}

/// The counters that are not zero.
pub(crate) fn read(context: &Context) -> Result<Stats> {
    let mut stats = read_all(context)?;
    for interface in &mut stats.interfaces {
        interface.counters.retain(|row| row.packets > 0);
    }
    Ok(stats)
}

/// All counters.
pub(crate) fn read_all(context: &Context) -> Result<Stats> {
    let names = rtnetlink::interfaces()?;
    let pinned = context.pins.interfaces()?;
    let mut interfaces = Vec::new();
    if pinned.is_empty() {
        return Ok(Stats { interfaces });
    }
    let open = Counters::open(&context.pins.maps())?;
    for ifindex in pinned {
        // None if the filter was detached from it meanwhile.
        let Some(counters) = open.read(ifindex)? else {
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
            counters: counters.into_iter().map(Row::from).collect(),
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
