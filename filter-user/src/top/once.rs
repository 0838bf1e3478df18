//! `top` without a terminal: one table, or one object.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    model::Model,
    rows::{self, Sort},
};
use crate::{
    clock::to_second,
    kernel::links::protected::ProtectedInterface,
    ranges::ListName,
    ui::{
        number::count,
        output::table,
        page::Page,
        table::{Column, Table},
        when::when,
    },
    view::{
        policy::{Provisional, headline, origin_labels},
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
    /// The name of this node.
    host: String,
    /// The number of ranges in all lists; null if the lists cannot be read.
    ranges: Option<usize>,
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
    /// The destination ports of its packets, the first sixteen.
    destination_ports: BTreeSet<u16>,
    /// The interface of its last packet.
    interface: String,
    /// Its packets with a report.
    reported: u64,
    /// The same a second.
    reported_per_second: f64,
    /// The time of its first packet with a report: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    first_seen: Timestamp,
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
    /// The lists that have it.
    lists: Vec<ListName>,
    /// The comment of its entry.
    comment: Option<String>,
    /// When its entry expires: RFC 3339, UTC; null for never.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    expires: Option<Timestamp>,
    /// The lists and the other origins, in words.
    #[serde(skip)]
    owners: String,
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
            count(self.reported),
            when(self.last_seen, now),
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
            count(self.packets),
            when(self.last_seen, now),
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
        let mut page = Page::for_stdout(false);
        let mut sources = Table::new([
            Column::text("refused source"),
            Column::number("seen/s"),
            Column::number("seen"),
            Column::number("last seen"),
            Column::text("reason"),
            Column::number("to port"),
            Column::text("interface"),
        ]);
        for row in &self.sources {
            sources.row(row.cells(self.time));
        }
        page.table(&sources);
        page.line(match self.not_reported {
            0 => format!("{} seen", count(self.reported)),
            more => format!(
                "{} seen, sampled: {} more not shown",
                count(self.reported),
                count(more)
            ),
        });
        page.line("");
        let mut entries = Table::new([
            Column::text("used entry"),
            Column::number("packets/s"),
            Column::number("packets"),
            Column::number("last seen"),
            Column::text("list"),
            Column::comment("comment"),
        ]);
        for row in &self.entries {
            entries.row(row.cells(self.time));
        }
        page.table(&entries);
        writeln!(f, "{}\n", page.text(false))?;
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
