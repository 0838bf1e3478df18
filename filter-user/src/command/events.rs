//! `apifence events`: dropped packets as they come.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::{
    cli::EventArgs,
    clock::Clocks,
    context::Context,
    kernel::{
        bpf::{DropReport, ReportBatch, ReportReader, StartAt},
        net::rtnetlink,
    },
    ui::{
        log::serialize_milliseconds,
        number::count,
        output::{Output, eprint, is_closed},
        when::to_the_millisecond,
    },
    view::event::{Event, InterfaceNames, milliseconds},
};

/// How often the rings are read: a CPU fills its ring in four seconds at the earliest.
const PERIOD: Duration = Duration::from_millis(200);
/// The least time between two reports of the count below.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// The number of dropped packets without a report.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct NotReported {
    /// RFC 3339, UTC, three digits of the second.
    #[serde(serialize_with = "serialize_milliseconds")]
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    time: Timestamp,
    /// Packets that were dropped and have no event, since the line before.
    not_reported: u64,
}

/// The output of events.
struct Printer<'a> {
    output: Output,
    args: &'a EventArgs,
    names: InterfaceNames,
    not_reported: u64,
    last_reported: Timestamp,
}

pub(super) async fn run(context: &Context, args: &EventArgs) -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    // Refuses pins of another layout, and names what is missing.
    drop(context.attached_maps()?);
    // An interface that is gone is named by its number.
    let named = args.interface.iter().filter(|name| !name.starts_with('#'));
    let named: Vec<String> = named.cloned().collect();
    if !named.is_empty() {
        rtnetlink::choose("show events of", &named)?;
    }
    let directory = context.pins.maps();
    // Packets in memory come first, if they are asked for.
    let is_recent = args.recent || args.since.is_some() || args.last.is_some();
    let begin = if is_recent {
        StartAt::Oldest
    } else {
        StartAt::Now
    };
    let mut reader = ReportReader::open(&directory, begin)?;
    let mut printer = Printer {
        output: context.global.output,
        args,
        names: InterfaceNames::default(),
        not_reported: 0,
        last_reported: Timestamp::UNIX_EPOCH,
    };
    if is_recent {
        printer.show_recent(reader.poll()?)?;
    }
    if args.recent {
        return Ok(0);
    }
    eprint("packets that are refused, as they come; ctrl-c ends it");
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {}
        }
        if is_closed() {
            return Ok(0);
        }
        printer.print(&reader.poll()?)?;
        if !reader.is_current() {
            // The filter was detached, or attached again: newer reports are in the new rings.
            drop(context.attached_maps()?);
            reader = ReportReader::open(&directory, StartAt::Oldest)?;
        }
    }
    printer.print(&reader.poll()?)?;
    printer.report_unreported()?;
    Ok(0)
}

impl Printer<'_> {
    /// Shows the reports, and from time to time the number of packets without one.
    fn print(&mut self, batch: &ReportBatch) -> Result<()> {
        self.show(batch)?;
        self.not_reported += batch.not_reported;
        if Timestamp::now().duration_since(self.last_reported) >= PAUSE {
            self.report_unreported()?;
        }
        Ok(())
    }

    /// Shows the packets in memory: those since a time, or the last ones.
    fn show_recent(&mut self, mut batch: ReportBatch) -> Result<()> {
        self.names.learn(&batch.reports)?;
        let since = self.args.since.map(|age| Timestamp::now() - age.abs());
        batch.reports.retain(|report| {
            self.is_wanted(report) && since.is_none_or(|since| report.time >= since)
        });
        if let Some(last) = self.args.last {
            let skipped = batch.reports.len().saturating_sub(last);
            batch.reports.drain(..skipped);
        }
        self.show(&batch)
    }

    fn show(&mut self, batch: &ReportBatch) -> Result<()> {
        self.names.learn(&batch.reports)?;
        for report in &batch.reports {
            if self.is_wanted(report) {
                self.output.lines(&Event::new(report, &self.names))?;
            }
        }
        Ok(())
    }

    /// Whether the flags select it.
    fn is_wanted(&self, report: &DropReport) -> bool {
        let EventArgs {
            interface,
            reason,
            source,
            port,
            ..
        } = self.args;
        let name = self.names.name(report.ifindex);
        let from = |range: &IpNet| report.source.is_some_and(|source| range.contains(&source));
        let to = |port: &u16| report.ports.is_some_and(|[_, to]| to == *port);
        (reason.is_empty() || reason.iter().any(|one| one == report.verdict.reason()))
            && (interface.is_empty() || interface.iter().any(|one| one == name))
            && (source.is_empty() || source.iter().any(from))
            && (port.is_empty() || port.iter().any(to))
    }

    fn report_unreported(&mut self) -> Result<()> {
        if self.not_reported == 0 {
            return Ok(());
        }
        let now = Clocks::now()?.wall;
        self.output.line(&NotReported {
            time: milliseconds(now),
            not_reported: std::mem::take(&mut self.not_reported),
        })?;
        self.last_reported = now;
        Ok(())
    }
}

impl std::fmt::Display for NotReported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} and {} more not reported",
            to_the_millisecond(self.time),
            count(self.not_reported)
        )
    }
}
