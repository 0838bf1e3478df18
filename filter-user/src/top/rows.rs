//! The rows of the tables: their cells, in order, as far as the filter accepts them.

use std::{cmp::Ordering, net::IpAddr};

use filter_common::layout::Origin;
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    model::{CounterModel, Entry, InterfaceModel, Model},
    sources::Source,
};
use crate::{
    config::join,
    ui::{number::count, visible::visible_in_line, when::when},
    view::policy::origin_labels,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panel {
    Sources = 0,
    Entries = 1,
    Interfaces = 2,
}

impl Panel {
    pub(crate) const ALL: [Self; 3] = [Self::Sources, Self::Entries, Self::Interfaces];
}

/// The sort key of a table; the greatest comes first, except for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Rate,
    Total,
    LastSeen,
    Name,
}

impl Sort {
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Total,
            Self::Total => Self::LastSeen,
            Self::LastSeen => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    fn order(self, a: (f64, u64, Timestamp), b: (f64, u64, Timestamp)) -> Ordering {
        let by_rate = || b.0.total_cmp(&a.0);
        let by_total = || b.1.cmp(&a.1);
        let by_time = || b.2.cmp(&a.2);
        match self {
            Self::Rate => by_rate().then_with(by_total).then_with(by_time),
            Self::Total => by_total().then_with(by_rate).then_with(by_time),
            Self::LastSeen => by_time().then_with(by_rate).then_with(by_total),
            Self::Name => Ordering::Equal,
        }
    }
}

/// The thing that a row shows, however it moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowKey {
    /// A source; `None` if it is unknown.
    Source(Option<IpAddr>),
    Entry(IpNet),
    /// A counter of an interface; empty names where it has none.
    Counter {
        ifindex: u32,
        verdict: &'static str,
        reason: &'static str,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct TableRow {
    pub(crate) key: RowKey,
    pub(crate) cells: Vec<String>,
}

impl TableRow {
    fn new(key: RowKey, cells: Vec<String>) -> Self {
        let cells = cells.into_iter();
        // Names and comments are the words of others.
        let cells = cells.map(|cell| visible_in_line(&cell).into_owned());
        Self {
            key,
            cells: cells.collect(),
        }
    }

    /// Whether the `filter` accepts it: its text is in a cell, or its address is in the range.
    fn has(&self, filter: &str) -> bool {
        if let (RowKey::Entry(range), Ok(address)) = (&self.key, filter.parse::<IpAddr>())
            && range.contains(&address)
        {
            return true;
        }
        let mut cells = self.cells.iter();
        cells.any(|cell| cell.to_lowercase().contains(&filter.to_lowercase()))
    }
}

/// The dropped sources, in order.
pub(crate) fn sources(model: &Model, sort: Sort) -> Vec<(Option<IpAddr>, &Source)> {
    let known = model.sources.known.iter();
    let mut sources: Vec<_> = known.map(|(address, source)| (*address, source)).collect();
    let key = |source: &Source| {
        let packets = &source.packets;
        (
            packets.rate(&model.times),
            packets.total(),
            source.last.time,
        )
    };
    sources.sort_by(|a, b| sort.order(key(a.1), key(b.1)).then_with(|| a.0.cmp(&b.0)));
    sources
}

/// The used ranges, in order.
pub(crate) fn entries(model: &Model, sort: Sort) -> Vec<Entry<'_>> {
    let mut entries: Vec<_> = model.entries().collect();
    let key = |entry: &Entry<'_>| {
        let packets = &entry.packets;
        (packets.rate(&model.times), packets.total(), entry.last_seen)
    };
    entries.sort_by(|a, b| {
        sort.order(key(a), key(b))
            .then_with(|| a.range().cmp(&b.range()))
    });
    entries
}

/// The rows of a table that `filter` accepts.
pub(crate) fn rows(model: &Model, panel: Panel, sort: Sort, filter: &str) -> Vec<TableRow> {
    let mut rows: Vec<TableRow> = match panel {
        Panel::Sources => sources(model, sort)
            .into_iter()
            .map(|(address, source)| source_row(model, address, source))
            .collect(),
        Panel::Entries => entries(model, sort)
            .iter()
            .map(|entry| entry_row(model, entry))
            .collect(),
        Panel::Interfaces => interface_rows(model, sort),
    };
    rows.retain(|row| filter.is_empty() || row.has(filter));
    rows
}

/// Source, rate, total, last seen, reason, port, interface.
fn source_row(model: &Model, address: Option<IpAddr>, source: &Source) -> TableRow {
    let cells = vec![
        source_name(address),
        short(source.packets.rate(&model.times)),
        count(source.packets.total()),
        when(source.last.time, model.time),
        source.last.verdict.reason().to_owned(),
        source
            .port()
            .map_or_else(|| "unknown".to_owned(), |port| port.to_string()),
        model.interface(source.last.ifindex),
    ];
    TableRow::new(RowKey::Source(address), cells)
}

/// Range, rate, total, last seen, list, comment.
fn entry_row(model: &Model, entry: &Entry<'_>) -> TableRow {
    let cells = vec![
        host_or_range(&entry.range()),
        short(entry.packets.rate(&model.times)),
        count(entry.packets.total()),
        when(entry.last_seen, model.time),
        owners(entry),
        entry.used.comment.clone().unwrap_or_default(),
    ];
    TableRow::new(RowKey::Entry(entry.range()), cells)
}

/// The lists of an entry, and its other origins.
pub(crate) fn owners(entry: &Entry<'_>) -> String {
    let used = entry.used;
    let lists = used.lists.iter().map(ToString::to_string);
    let origins = origin_labels(used.prefix.origins).into_iter();
    let origins = origins.filter(|name| used.lists.is_empty() || *name != Origin::List.label());
    join(lists.chain(origins.map(str::to_owned)))
}

/// Interface, rate, total, verdict, reason, bytes per second, where the program runs.
fn interface_rows(model: &Model, sort: Sort) -> Vec<TableRow> {
    model
        .interfaces
        .iter()
        .flat_map(|one| rows_of_interface(model, one, sort))
        .collect()
}

fn rows_of_interface(model: &Model, one: &InterfaceModel, sort: Sort) -> Vec<TableRow> {
    let mode = xdp_mode(one);
    let name = &one.guard.interface;
    let key = |verdict, reason| RowKey::Counter {
        ifindex: one.guard.ifindex,
        verdict,
        reason,
    };
    let mut counters = one.counters.clone();
    counters.sort_by(|a, b| {
        let key = |row: &CounterModel| {
            let packets = &row.packets;
            (packets.rate(&model.times), packets.total(), Timestamp::MIN)
        };
        sort.order(key(a), key(b))
    });
    if counters.is_empty() {
        let mut cells = vec![String::new(); 7];
        cells[0].clone_from(name);
        cells[6] = mode.to_owned();
        return vec![TableRow::new(key("", ""), cells)];
    }
    let row = |counter: &CounterModel| {
        let cells = vec![
            name.clone(),
            short(counter.packets.rate(&model.times)),
            count(counter.packets.total()),
            counter.row.verdict.to_owned(),
            counter.row.reason.to_owned(),
            short(counter.bytes.rate(&model.times)),
            mode.to_owned(),
        ];
        TableRow::new(key(counter.row.verdict, counter.row.reason), cells)
    };
    counters.iter().map(row).collect()
}

/// Where the program runs on an interface.
pub(crate) fn xdp_mode(one: &InterfaceModel) -> &'static str {
    match (one.guard.guarded, one.guard.xdp_mode) {
        (true, Some(mode)) => mode.label(),
        _ => "NOT GUARDED",
    }
}

pub(crate) fn source_name(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// A range; that of one host as its address.
pub(crate) fn host_or_range(range: &IpNet) -> String {
    match range.prefix_len() == range.max_prefix_len() {
        true => range.addr().to_string(),
        false => range.to_string(),
    }
}

/// A rate in at most five characters.
pub(crate) fn short(rate: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A value that would round up to the next unit takes that unit.
    for (unit, name) in units {
        if rate >= unit * 0.9995 {
            let value = rate / unit;
            let digits = usize::from(value < 99.95);
            return format!("{value:.digits$}{name}");
        }
    }
    let digits = usize::from(rate > 0.0 && rate < 99.95);
    format!("{rate:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_and_never_round_out_of_their_unit() {
        let shown = [
            (0.0, "0"),
            (0.2, "0.2"),
            (12.34, "12.3"),
            (99.97, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (999_400.0, "999k"),
            (999_600.0, "1.0M"),
            (14_880_952.0, "14.9M"),
        ];
        for (rate, want) in shown {
            assert_eq!(short(rate), want, "{rate}");
        }
    }

    #[test]
    fn a_filter_finds_text_in_any_case_and_an_address_in_its_range() {
        let range: IpNet = "203.0.113.0/24".parse().expect("a range");
        let cells = ["203.0.113.0/24", "Office Berlin"].map(str::to_owned);
        let row = TableRow::new(RowKey::Entry(range), cells.to_vec());
        for found in ["", "office", "BERLIN", "203.0", "203.0.113.77"] {
            assert!(row.has(found), "{found}");
        }
        for missed in ["home", "203.0.114.1", "2001:db8::1"] {
            assert!(!row.has(missed), "{missed}");
        }
    }
}
