//! The lines that `apifence run` logs about dropped packets.

use std::{fmt, net::IpAddr};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::drop_log::{LogLine, ReportLog};
use crate::{
    context::Context,
    kernel::bpf::{ReportReader, StartAt},
    ui::{
        log::{Level, serialize_milliseconds},
        output::Output,
    },
    view::event::{Event, InterfaceNames, milliseconds},
};

/// Reads reports and logs them: text on stderr, JSON objects on stdout.
pub(crate) struct Logger {
    output: Output,
    reader: ReportReader,
    log: ReportLog,
    names: InterfaceNames,
    since: Timestamp,
}

/// A line about packets that were dropped, or would have been.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "log", rename_all = "lowercase")]
pub(crate) enum LogEntry {
    /// The first packet of a source in a while.
    First(Event),
    /// More packets of the same source, in the minute before.
    More {
        /// When this was logged: RFC 3339, UTC, three digits of the second.
        #[serde(serialize_with = "serialize_milliseconds")]
        #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
        time: Timestamp,
        /// The source address; null for all packets whose source cannot be read.
        source: Option<IpAddr>,
        /// Its packets since the line before about it.
        packets: u64,
        /// The last one.
        last: Event,
    },
    /// Packets that no other line counts.
    Others {
        /// When this was logged: RFC 3339, UTC, three digits of the second.
        #[serde(serialize_with = "serialize_milliseconds")]
        #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
        time: Timestamp,
        /// Packets of sources that have no line of their own.
        packets: u64,
        /// Packets without a report, of any source.
        not_reported: u64,
    },
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(event) => event.fmt(f),
            Self::More {
                time,
                source,
                packets,
                last,
            } => {
                write!(f, "{time:.3} {packets} more from ")?;
                match source {
                    Some(source) => source.fmt(f)?,
                    None => f.write_str("unknown sources")?,
                }
                write!(f, ", last: {last}")
            }
            Self::Others {
                time,
                packets,
                not_reported,
            } => match (packets, not_reported) {
                (0, missed) => write!(f, "{time:.3} {missed} not logged (rate limit)"),
                (packets, 0) => write!(f, "{time:.3} {packets} more from other sources"),
                (packets, missed) => write!(
                    f,
                    "{time:.3} {packets} more from other sources, {missed} not logged (rate limit)"
                ),
            },
        }
    }
}

impl Logger {
    /// Starts with the packets since `since`.
    pub(crate) fn open(context: &Context, since: Timestamp) -> Result<Self> {
        Ok(Self {
            output: context.global.output,
            reader: ReportReader::open(&context.pins.maps(), StartAt::Oldest)?,
            log: ReportLog::default(),
            names: InterfaceNames::default(),
            since,
        })
    }

    /// Whether the open rings are still in use.
    pub(crate) fn is_current(&self) -> bool {
        self.reader.is_current()
    }

    /// Logs the packets since the last call.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let mut batch = self.reader.poll()?;
        batch.reports.retain(|report| report.time >= self.since);
        self.names.learn(&batch.reports)?;
        let now = Timestamp::now();
        for line in self.log.add(now, &batch) {
            let time = milliseconds(now);
            let entry = match line {
                LogLine::First(refused) => LogEntry::First(Event::new(&refused, &self.names)),
                LogLine::More {
                    source,
                    packets,
                    last,
                } => LogEntry::More {
                    time,
                    source,
                    packets,
                    last: Event::new(&last, &self.names),
                },
                LogLine::Others {
                    packets,
                    not_reported,
                } => LogEntry::Others {
                    time,
                    packets,
                    not_reported,
                },
            };
            self.output.log(Level::Info, &entry)?;
        }
        Ok(())
    }
}
