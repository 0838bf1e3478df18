//! The rows of the tables, in order.

use std::{cmp::Ordering, net::IpAddr};

use jiff::Timestamp;

use super::model::{Entry, Model, Source};
use crate::view::policy::origin_labels;

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

pub(crate) type Cells = Vec<String>;

/// The dropped sources, in order.
pub(crate) fn sources(model: &Model, sort: Sort) -> Vec<(Option<IpAddr>, Source)> {
    let mut sources: Vec<_> = model.sources.iter().map(|(a, b)| (*a, *b)).collect();
    let key = |source: &Source| {
        let packets = &source.packets;
        (
            packets.rate(&model.times),
            packets.total(),
            source.last.time,
        )
    };
    sources.sort_by(|a, b| sort.order(key(&a.1), key(&b.1)).then_with(|| a.0.cmp(&b.0)));
    sources
}

/// The used ranges, in order.
pub(crate) fn entries(model: &Model, sort: Sort) -> Vec<Entry> {
    let mut entries: Vec<_> = model.entries().collect();
    let key = |entry: &Entry| {
        let packets = &entry.packets;
        (packets.rate(&model.times), packets.total(), entry.last_seen)
    };
    entries.sort_by(|a, b| {
        sort.order(key(a), key(b))
            .then_with(|| a.range.cmp(&b.range))
    });
    entries
}

/// The lines of the table of sources: name, rate, total, last seen, reason, port, interface.
pub(crate) fn source_cells(model: &Model, sort: Sort) -> Vec<Cells> {
    let cells = |(address, source): (Option<IpAddr>, Source)| {
        let last = &source.last;
        vec![
            address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            short(source.packets.rate(&model.times)),
            source.packets.total().to_string(),
            ago(model.time, last.time),
            last.verdict.reason().to_owned(),
            last.ports
                .map_or_else(|| "unknown".to_owned(), |[_, port]| port.to_string()),
            model.interface(last.ifindex),
        ]
    };
    sources(model, sort).into_iter().map(cells).collect()
}

/// The lines of the table of entries: name, rate, total, last seen, origin.
pub(crate) fn entry_cells(model: &Model, sort: Sort) -> Vec<Cells> {
    let cells = |entry: Entry| {
        vec![
            entry.range.to_string(),
            short(entry.packets.rate(&model.times)),
            entry.packets.total().to_string(),
            ago(model.time, entry.last_seen),
            origin_labels(entry.origins).join(", "),
        ]
    };
    entries(model, sort).into_iter().map(cells).collect()
}

/// The rows of interfaces: name, rate, total, verdict, reason, bytes per second, mode.
pub(crate) fn interface_cells(model: &Model, sort: Sort) -> Vec<Cells> {
    let mut lines = Vec::new();
    for one in &model.interfaces {
        let mode = match (one.guard.guarded, one.guard.xdp_mode) {
            (true, Some(mode)) => mode.label(),
            _ => "NOT GUARDED",
        };
        let name = one.guard.interface.clone();
        let mut counters = one.counters.clone();
        counters.sort_by(|a, b| {
            let key = |row: &super::model::CounterModel| {
                let packets = &row.packets;
                (packets.rate(&model.times), packets.total(), Timestamp::MIN)
            };
            sort.order(key(a), key(b))
        });
        if counters.is_empty() {
            let nothing = vec![String::new(); 4];
            lines.push(
                [
                    vec![name.clone()],
                    nothing,
                    vec![String::new(), mode.to_owned()],
                ]
                .concat(),
            );
        }
        lines.extend(counters.iter().map(|counter| {
            vec![
                name.clone(),
                short(counter.packets.rate(&model.times)),
                counter.packets.total().to_string(),
                counter.row.verdict.to_owned(),
                counter.row.reason.to_owned(),
                short(counter.bytes.rate(&model.times)),
                mode.to_owned(),
            ]
        }));
    }
    lines
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

/// The time since `time`.
pub(crate) fn ago(now: Timestamp, time: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s ago"),
        120..7200 => format!("{}m ago", seconds / 60),
        7200..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
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
}
