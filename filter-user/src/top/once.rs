//! `top` without a terminal: one table, or one object.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    model::Model,
    rows::{self, Sort, ago, grouped},
};
use crate::{
    clock::to_second,
    kernel::links::protected::ProtectedInterface,
    ranges::ListName,
    ui::output::table,
    view::{
        policy::{Provisional, headline, origin_labels},
        stats::{HEADER, RatedRow, rounded},
    },
};

/// The limit of printed sources and entries.
const MAX_ROWS: usize = 20;

/// The printed data.
#[derive(Serialize)]
pub(crate) struct Summary {
    time: Timestamp,
    state: &'static str,
    #[serde(skip)]
    headline: String,
    host: String,
    /// The number of ranges in all lists; none if the lists cannot be read.
    ranges: Option<usize>,
    provisional: Option<Provisional>,
    dropped_per_second: f64,
    would_drop_per_second: f64,
    passed_per_second: f64,
    authorized_per_second: f64,
    /// Dropped packets: with a report still in memory, and without one since this began.
    reported: u64,
    not_reported: u64,
    sources: Vec<SourceRow>,
    entries: Vec<EntryRow>,
    interfaces: Vec<InterfaceRow>,
}

#[derive(Serialize)]
struct SourceRow {
    source: Option<IpAddr>,
    verdict: &'static str,
    reason: &'static str,
    destination_port: Option<u16>,
    /// The destination ports of its packets, the first ones.
    destination_ports: BTreeSet<u16>,
    interface: String,
    reported: u64,
    reported_per_second: f64,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

#[derive(Serialize)]
struct EntryRow {
    range: IpNet,
    origins: Vec<&'static str>,
    lists: Vec<ListName>,
    comment: Option<String>,
    expires: Option<Timestamp>,
    /// The lists and the other origins, in words.
    #[serde(skip)]
    owners: String,
    packets: u64,
    packets_per_second: f64,
    last_seen: Timestamp,
}

#[derive(Serialize)]
struct InterfaceRow {
    #[serde(flatten)]
    guard: ProtectedInterface,
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
            grouped(self.reported),
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
            rows::host_or_range(&self.range),
            format!("{:.1}", self.packets_per_second),
            grouped(self.packets),
            ago(now, self.last_seen),
            self.owners.clone(),
            self.comment.clone().unwrap_or_default(),
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
            headline: headline(model.state, &model.ports),
            host: model.host.clone(),
            ranges: model.list_size,
            provisional: model.provisional,
            dropped_per_second: rate("drop"),
            would_drop_per_second: rate("would_drop"),
            passed_per_second: rate("pass"),
            authorized_per_second: rounded(model.authorized_rate()),
            reported: model.sources.reported,
            not_reported: model.sources.not_reported,
            sources: sources
                .map(|(address, source)| SourceRow {
                    source: address,
                    verdict: source.last.verdict.label(),
                    reason: source.last.verdict.reason(),
                    destination_port: source.port(),
                    destination_ports: source.ports.clone(),
                    interface: model.interface(source.last.ifindex),
                    reported: source.packets.total(),
                    reported_per_second: rounded(source.packets.rate(&model.times)),
                    first_seen: to_second(source.first_seen),
                    last_seen: to_second(source.last.time),
                })
                .collect(),
            entries: entries
                .map(|entry| EntryRow {
                    range: entry.range(),
                    origins: origin_labels(entry.used.prefix.origins),
                    lists: entry.used.lists.clone(),
                    comment: entry.used.comment.clone(),
                    expires: entry.used.expires.map(to_second),
                    owners: rows::owners(&entry),
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
            "REFUSED SOURCE",
            "SEEN/S",
            "SEEN",
            "LAST SEEN",
            "REASON",
            "TO PORT",
            "INTERFACE",
        ];
        writeln!(f, "{}", table(&header, sources))?;
        match self.not_reported {
            0 => writeln!(f, "{} seen\n", self.reported)?,
            more => writeln!(
                f,
                "{} seen, sampled: {more} more not shown\n",
                self.reported
            )?,
        }
        let entries = self.entries.iter().map(|row| row.cells(self.time));
        let header = [
            "USED ENTRY",
            "PACKETS/S",
            "PACKETS",
            "LAST SEEN",
            "LIST",
            "COMMENT",
        ];
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
