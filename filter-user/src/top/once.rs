//! `top` without a terminal: one table, or one object.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    model::Model,
    rows::{self, Sort, ago},
};
use crate::{
    clock::to_second,
    kernel::links::protected::ProtectedInterface,
    ui::output::table,
    view::{
        policy::{Provisional, origin_labels},
        stats::{HEADER, RatedRow, rounded},
    },
};

/// The limit of printed sources and entries.
const MAX_ROWS: usize = 20;

/// The printed data.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Summary {
    /// When the counters were read: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    time: Timestamp,
    /// `enforcing`, `monitoring`, `off` or `unknown`, as in `status`.
    state: &'static str,
    #[serde(skip)]
    headline: String,
    /// The change on trial; null if there is none.
    provisional: Option<Provisional>,
    /// Dropped packets a second, over a second. This and the other rates are of all interfaces.
    dropped_per_second: f64,
    /// Packets a second that enforcement would drop.
    would_drop_per_second: f64,
    /// Passed packets a second.
    passed_per_second: f64,
    /// Packets a second from authorized sources, among those that passed.
    authorized_per_second: f64,
    /// Packets with a report that is still in memory, dropped ones and those that would be dropped.
    reported: u64,
    /// Such packets without a report, since this command began.
    not_reported: u64,
    /// The sources of the reports, the busiest first; at most 20.
    sources: Vec<SourceRow>,
    /// The ranges in use, the busiest first; at most 20.
    entries: Vec<EntryRow>,
    /// The interfaces with their counters.
    interfaces: Vec<InterfaceRow>,
}

/// A source whose packets were dropped, or would have been.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SourceRow {
    /// The source address; null if the packets have none that can be read.
    source: Option<IpAddr>,
    /// `drop`, or `would_drop` in monitor mode: that of its last packet.
    verdict: &'static str,
    /// The reason for the verdict of its last packet.
    reason: &'static str,
    /// The destination port of its last packet; null if it cannot be read.
    destination_port: Option<u16>,
    /// The interface of its last packet.
    interface: String,
    /// Its packets with a report.
    reported: u64,
    /// The same a second.
    reported_per_second: f64,
    /// The time of its last packet: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    last_seen: Timestamp,
}

/// A range that authorized packets.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct EntryRow {
    /// The range.
    range: IpNet,
    /// Why it is authorized: `list`, `outbound`, `cluster`, `node`, ...
    origins: Vec<&'static str>,
    /// Packets that passed because of it.
    packets: u64,
    /// The same a second.
    packets_per_second: f64,
    /// The time of the last such packet: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    last_seen: Timestamp,
}

/// An interface with its counters.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct InterfaceRow {
    #[serde(flatten)]
    guard: ProtectedInterface,
    /// Its counters that are not zero.
    counters: Vec<RatedRow>,
}

impl SourceRow {
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let unknown = || "unknown".to_owned();
        let port = self.destination_port;
        vec![
            self.source
                .map_or_else(unknown, |source| source.to_string()),
            format!("{:.1}", self.reported_per_second),
            self.reported.to_string(),
            ago(now, self.last_seen),
            self.reason.to_owned(),
            port.map_or_else(unknown, |port| port.to_string()),
            self.interface.clone(),
        ]
    }
}

impl EntryRow {
    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.range.to_string(),
            format!("{:.1}", self.packets_per_second),
            self.packets.to_string(),
            ago(now, self.last_seen),
            self.origins.join(", "),
        ]
    }
}

impl Summary {
    pub(crate) fn of(model: &Model) -> Self {
        let rate = |verdict| rounded(model.rate(&[verdict]));
        let sources = rows::sources(model, Sort::Rate).into_iter().take(MAX_ROWS);
        let entries = rows::entries(model, Sort::Rate).into_iter().take(MAX_ROWS);
        let interfaces = model.interfaces.iter().map(|one| InterfaceRow {
            guard: one.guard.clone(),
            counters: one
                .counters
                .iter()
                .map(|counter| RatedRow {
                    row: counter.row,
                    packets_per_second: rounded(counter.packets.rate(&model.times)),
                    bytes_per_second: rounded(counter.bytes.rate(&model.times)),
                })
                .collect(),
        });
        Self {
            time: to_second(model.time),
            state: model.state,
            headline: model.headline.clone(),
            provisional: model.provisional,
            dropped_per_second: rate("drop"),
            would_drop_per_second: rate("would_drop"),
            passed_per_second: rate("pass"),
            authorized_per_second: rounded(model.authorized_rate()),
            reported: model.reported,
            not_reported: model.not_reported,
            sources: sources
                .map(|(address, source)| SourceRow {
                    source: address,
                    verdict: source.last.verdict.label(),
                    reason: source.last.verdict.reason(),
                    destination_port: source.last.ports.map(|[_, port]| port),
                    interface: model.interface(source.last.ifindex),
                    reported: source.packets.total(),
                    reported_per_second: rounded(source.packets.rate(&model.times)),
                    last_seen: to_second(source.last.time),
                })
                .collect(),
            entries: entries
                .map(|entry| EntryRow {
                    range: entry.range,
                    origins: origin_labels(entry.origins),
                    packets: entry.packets.total(),
                    packets_per_second: rounded(entry.packets.rate(&model.times)),
                    last_seen: to_second(entry.last_seen),
                })
                .collect(),
            interfaces: interfaces.collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline)?;
        if let Some(provisional) = &self.provisional {
            writeln!(f, "{provisional}")?;
        }
        writeln!(
            f,
            "packets/s: {:.1} dropped, {:.1} would be dropped, {:.1} passed, {:.1} of them authorized\n",
            self.dropped_per_second,
            self.would_drop_per_second,
            self.passed_per_second,
            self.authorized_per_second
        )?;
        let sources = self.sources.iter().map(|row| row.cells(self.time));
        let header = [
            "refused source",
            "reported/s",
            "reported",
            "last seen",
            "reason",
            "to port",
            "interface",
        ];
        writeln!(f, "{}", table(&header, sources))?;
        writeln!(
            f,
            "{} reported, and {} more not reported\n",
            self.reported, self.not_reported
        )?;
        let entries = self.entries.iter().map(|row| row.cells(self.time));
        let header = ["used entry", "packets/s", "packets", "last seen", "origin"];
        writeln!(f, "{}\n", table(&header, entries))?;
        let counters = self.interfaces.iter().flat_map(|row| {
            let name = match (row.guard.guarded, row.guard.xdp_mode) {
                (true, Some(mode)) => format!("{} ({})", row.guard.interface, mode.label()),
                _ => format!("{} (NOT GUARDED)", row.guard.interface),
            };
            row.counters.iter().map(move |counter| counter.cells(&name))
        });
        f.write_str(&table(&HEADER, counters))
    }
}
