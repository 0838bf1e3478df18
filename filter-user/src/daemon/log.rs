//! The log of `run`, on a thread of its own: a blocked log reader stops nothing else.

use std::{
    fmt,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use indicatif::HumanCount;
use jiff::Timestamp;
use serde::Serialize;

use super::{alerts::Alerts, logger::Logger};
use crate::{
    context::Context,
    kernel::bpf::LogLines,
    ui::log::{Level, serialize_milliseconds},
    view::stats::{self, Stats},
};

/// How often the reports are read. A single dropped packet is logged within a second.
const PERIOD: Duration = Duration::from_millis(900);
/// Periods between two lines with the counters.
const MINUTE: u64 = 66;
/// Periods until the rings are checked for replacement.
const RINGS_CHECK: u64 = 33;

pub(crate) struct Logs {
    context: Context,
    since: Timestamp,
    reports: Option<Logger>,
    /// The log of the program itself.
    lines: Option<LogLines>,
    alerts: Alerts,
    /// The counters as they were last shown.
    last: String,
}

impl Logs {
    /// Starts the thread, in the network namespace of the caller, with packets since `since`.
    /// `lines` brings the log of each loaded program; the thread ends once its senders are gone.
    ///
    /// # Errors
    /// If a socket or the thread cannot be created.
    pub(crate) fn start(
        context: &Context,
        since: Timestamp,
        lines: mpsc::Receiver<LogLines>,
    ) -> Result<JoinHandle<()>> {
        let logs = Self {
            context: context.clone(),
            since,
            reports: None,
            lines: None,
            alerts: Alerts::default(),
            last: String::new(),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || logs.run(&lines))
            .context("start thread")
    }

    fn run(mut self, requests: &mpsc::Receiver<LogLines>) {
        let mut tick = 0_u64;
        loop {
            match requests.recv_timeout(PERIOD) {
                Ok(newer) => self.lines = Some(newer),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if let Some(lines) = &mut self.lines {
                lines.flush();
            }
            let logged = self.log(tick.is_multiple_of(RINGS_CHECK));
            self.record_result(logged);
            if tick.is_multiple_of(MINUTE) {
                let shown = self.show();
                self.record_result(shown);
            }
            tick += 1;
        }
    }

    /// Logs the packets dropped since the last call. `check_rings`: reopens rings no longer in use.
    fn log(&mut self, check_rings: bool) -> Result<()> {
        // If the maps' pins are gone, the guard reports that and pins them again.
        if (check_rings || self.reports.is_none()) && !self.context.pins.maps().exists() {
            return Ok(());
        }
        if self
            .reports
            .as_ref()
            .is_none_or(|open| check_rings && !open.is_current())
        {
            self.reports = Some(Logger::open(&self.context, self.since)?);
        }
        match &mut self.reports {
            Some(reports) => reports.tick(),
            None => Ok(()),
        }
    }

    /// Shows changed counters. Failures are ignored: the filter must not depend on its log.
    fn show(&mut self) -> Result<()> {
        let Ok(stats) = stats::read(&self.context) else {
            return Ok(());
        };
        let now = line(&stats);
        if now != self.last {
            let output = self.context.global.output;
            output.log(Level::Info, &Counters::of(&stats))?;
            self.last = now;
        }
        Ok(())
    }

    fn record_result(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.alerts.clear("log", "the log is written"),
            Err(error) => self.alerts.raise("log", &error),
        }
    }
}

/// The counters of all interfaces at a time.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Counters<'a> {
    /// When they were read: RFC 3339, UTC, three digits of the second.
    #[serde(serialize_with = "serialize_milliseconds")]
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    time: Timestamp,
    #[serde(flatten)]
    stats: &'a Stats,
}

impl<'a> Counters<'a> {
    fn of(stats: &'a Stats) -> Self {
        let time = Timestamp::now();
        Self { time, stats }
    }
}

impl fmt::Display for Counters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(self.stats))
    }
}

/// The counters in one line.
fn line(stats: &Stats) -> String {
    let parts: Vec<String> = stats
        .interfaces
        .iter()
        .map(|interface| {
            format!(
                "{}: {} dropped, {}{} passed since attach",
                interface.interface,
                HumanCount(interface.packets("drop")),
                match interface.packets("would_drop") {
                    0 => String::new(),
                    packets => format!("{} would be dropped, ", HumanCount(packets)),
                },
                HumanCount(interface.packets("pass")),
            )
        })
        .collect();
    parts.join("; ")
}
