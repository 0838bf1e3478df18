//! `apifence stats --watch`: the counters at an interval, with rates, for scripts.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    cli::StatsArgs,
    context::Context,
    ui::{
        line::Line,
        log::serialize_milliseconds,
        number::{bytes, count, rate},
        output::is_closed,
        page::{Page, Screen},
        redraw::Redraw,
        style::Ink,
        table::{Column, Table},
        when::to_the_millisecond,
    },
    view::{
        event::milliseconds,
        stats::{RatedRow, Row, Stats, by_verdict, ink, read, read_all, rounded},
        ticks::Ticks,
    },
};

/// The counters of all guarded interfaces, and their rates since the last output.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Rates {
    /// When the counters were read: RFC 3339, UTC, three digits of the second.
    #[serde(serialize_with = "serialize_milliseconds")]
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    time: Timestamp,
    /// Seconds since the line before, exactly. The rates are over this time.
    seconds: f64,
    /// The guarded interfaces; empty if no filter is attached any more.
    interfaces: Vec<InterfaceRates>,
}

/// The same for one interface.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct InterfaceRates {
    /// Its name; `#` and its ifindex once it is gone.
    pub(super) interface: String,
    /// Its ifindex.
    pub(super) ifindex: u32,
    /// Its counters that are not zero.
    pub(super) counters: Vec<RatedRow>,
}

impl Rates {
    /// The rates from `before` to `now` over the time `took`. A new interface starts at zero.
    fn between(before: &Stats, now: Stats, time: Timestamp, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        let interfaces = now.interfaces.into_iter().map(|interface| {
            let earlier = before
                .interfaces
                .iter()
                .find(|other| other.ifindex == interface.ifindex);
            let rated = |row: Row| {
                let same =
                    |other: &&Row| (other.verdict, other.reason) == (row.verdict, row.reason);
                let earlier = earlier.and_then(|earlier| earlier.counters.iter().find(same));
                // A counter that decreased is a new one.
                let earlier = earlier.filter(|earlier| earlier.packets <= row.packets);
                let (packets, bytes) = earlier.map_or((0, 0), |row| (row.packets, row.bytes));
                RatedRow {
                    row,
                    packets_per_second: per_second(row.packets - packets, seconds),
                    bytes_per_second: per_second(row.bytes.saturating_sub(bytes), seconds),
                }
            };
            InterfaceRates {
                counters: interface.counters.iter().copied().map(rated).collect(),
                interface: interface.interface,
                ifindex: interface.ifindex,
            }
        });
        Self {
            time,
            seconds: rounded(seconds),
            interfaces: interfaces.collect(),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    rounded(count as f64 / seconds)
}

impl Screen for Rates {
    fn show(&self, page: &mut Page) {
        let time = to_the_millisecond(self.time);
        if self.interfaces.is_empty() {
            return page.line(format!("{time} no filter is attached"));
        }
        page.line(Line::inked(Ink::Dim, time));
        let all = self.interfaces.iter().flat_map(|interface| {
            let rows = interface.counters.iter();
            rows.map(|row| (interface.interface.as_str(), row))
        });
        let rows = by_verdict(all, |rated: &RatedRow| rated.row);
        if rows.is_empty() {
            return page.line("no packets yet");
        }
        let mut table = Table::new([
            Column::text("interface"),
            Column::text("verdict"),
            Column::text("reason"),
            Column::number("packets/s"),
            Column::number("bytes/s"),
            Column::number("packets"),
            Column::number("bytes"),
        ]);
        for (interface, rated) in rows {
            let row = rated.row;
            table.row([
                Line::from(interface),
                Line::inked(ink(row.verdict), row.verdict),
                row.reason.into(),
                rate(rated.packets_per_second).into(),
                bytes(rated.bytes_per_second as u64).into(),
                count(row.packets).into(),
                bytes(row.bytes).into(),
            ]);
        }
        page.table(&table);
    }
}

pub(super) async fn run(context: &Context, args: &StatsArgs) -> Result<u8> {
    let read = match args.all {
        true => read_all,
        false => read,
    };
    let output = context.global.output;
    let mut ticks = Ticks::every(args.again.interval)?;
    let mut redraw = Redraw::default();
    let mut before = read(context)?;
    let mut then = Instant::now();
    if before.interfaces.is_empty() {
        return Err(context.nothing_attached());
    }
    while ticks.next().await && !is_closed() {
        let stats = read(context)?;
        let now = Instant::now();
        let kept = stats.clone();
        let time = milliseconds(Timestamp::now());
        let rates = Rates::between(&before, stats, time, now - then);
        match output.is_text() {
            true => redraw.show(&output.page(&rates))?,
            false => output.lines(&rates)?,
        }
        (before, then) = (kept, now);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::stats::InterfaceStats;

    fn stats(ifindex: u32, packets: u64) -> Stats {
        Stats {
            interfaces: vec![InterfaceStats {
                interface: "eth0".to_owned(),
                ifindex,
                counters: vec![Row {
                    verdict: "drop",
                    reason: "unauthorized",
                    packets,
                    bytes: packets * 74,
                }],
            }],
        }
    }

    #[test]
    fn rates_are_growth_over_time_and_never_run_backwards() {
        let rate = |before: &Stats, now: Stats| {
            let took = Duration::from_millis(500);
            let rates = Rates::between(before, now, Timestamp::UNIX_EPOCH, took);
            let row = &rates.interfaces[0].counters[0];
            (row.packets_per_second, row.bytes_per_second)
        };
        assert_eq!(rate(&stats(2, 100), stats(2, 150)), (100.0, 7400.0));
        assert_eq!(rate(&stats(2, 100), stats(2, 100)), (0.0, 0.0));
        // After detach and attach the count starts at zero.
        assert_eq!(rate(&stats(2, 100), stats(2, 10)), (20.0, 1480.0));
        assert_eq!(rate(&stats(3, 100), stats(2, 10)), (20.0, 1480.0));
    }
}
