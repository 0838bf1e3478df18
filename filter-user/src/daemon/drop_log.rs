//! The log of drops: a source's first packet at once, then one line per source and minute.
//!
//! The module is pure: its caller passes the time. Memory is bounded: a fixed number of sources is
//! tracked, and the rest is counted together.

use std::{collections::HashMap, net::IpAddr};

use filter_common::Verdict;
use jiff::{SignedDuration, Timestamp};

use crate::kernel::bpf::{DropReport, ReportBatch};

/// How many sources are tracked at a time.
pub(super) const MAX_SOURCES: usize = 256;
/// How long a source is silent in the log after a line.
pub(super) const PERIOD: SignedDuration = SignedDuration::from_mins(1);

/// A line to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogLine {
    /// The first packet of a source in a while.
    First(DropReport),
    /// More packets of one source since its last line.
    More {
        /// The source; none if packets hide it.
        source: Option<IpAddr>,
        /// How many were reported.
        packets: u64,
        /// The last of them.
        last: DropReport,
    },
    /// Packets that no other line counts.
    Others {
        /// Reported packets of sources beyond [`MAX_SOURCES`].
        packets: u64,
        /// Packets without a report: the data path samples a flood.
        not_reported: u64,
    },
}

/// The tracked sources, and the counts still to be logged.
#[derive(Debug, Default)]
pub(super) struct ReportLog {
    sources: HashMap<(Option<IpAddr>, Verdict), TrackedSource>,
    others: OtherSources,
}

/// One source since its last line.
#[derive(Debug)]
struct TrackedSource {
    since: Timestamp,
    packets: u64,
    last: DropReport,
}

/// Everything else, since the last line about it.
#[derive(Debug, Default)]
struct OtherSources {
    since: Option<Timestamp>,
    packets: u64,
    not_reported: u64,
}

impl ReportLog {
    /// Adds the reports up to `now`; returns the lines to log, in the order of time. Call it about
    /// once a second, also without reports.
    pub(super) fn add(&mut self, now: Timestamp, batch: &ReportBatch) -> Vec<LogLine> {
        let mut lines = self.due(now);
        for report in &batch.reports {
            let key = (report.source, report.verdict);
            if let Some(tracked) = self.sources.get_mut(&key) {
                tracked.packets += 1;
                tracked.last = *report;
            } else if self.sources.len() < MAX_SOURCES {
                let tracked = TrackedSource {
                    since: now,
                    packets: 0,
                    last: *report,
                };
                self.sources.insert(key, tracked);
                lines.push(LogLine::First(*report));
            } else {
                self.others.packets += 1;
            }
        }
        self.others.not_reported += batch.not_reported;
        lines.extend(self.others.due(now));
        lines
    }

    /// The lines that are due. A source that was silent for a whole period is forgotten, so its
    /// next packet is a first one.
    fn due(&mut self, now: Timestamp) -> Vec<LogLine> {
        let mut lines = Vec::new();
        self.sources.retain(|(source, _), tracked| {
            if now.duration_since(tracked.since) < PERIOD {
                return true;
            }
            let packets = std::mem::take(&mut tracked.packets);
            tracked.since = now;
            if packets > 0 {
                lines.push(LogLine::More {
                    source: *source,
                    packets,
                    last: tracked.last,
                });
            }
            packets > 0
        });
        lines.sort_by_key(|line| match line {
            LogLine::More { last, .. } | LogLine::First(last) => last.time,
            LogLine::Others { .. } => now,
        });
        lines
    }
}

impl OtherSources {
    /// Their line, at once if the last period had none.
    fn due(&mut self, now: Timestamp) -> Option<LogLine> {
        let waits = |since| now.duration_since(since) < PERIOD;
        if self.packets + self.not_reported == 0 || self.since.is_some_and(waits) {
            return None;
        }
        let line = LogLine::Others {
            packets: self.packets,
            not_reported: self.not_reported,
        };
        *self = Self {
            since: Some(now),
            ..Self::default()
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use filter_common::DropReason;

    use super::*;

    fn report(source: u32) -> DropReport {
        DropReport {
            time: Timestamp::UNIX_EPOCH,
            verdict: Verdict::Drop(DropReason::Unauthorized),
            source: Some(IpAddr::V4(source.into())),
            destination: None,
            ports: Some([40_000, 6443]),
            ifindex: 2,
            bytes: 60,
        }
    }

    fn batch(sources: &[u32], not_reported: u64) -> ReportBatch {
        ReportBatch {
            reports: sources.iter().map(|source| report(*source)).collect(),
            not_reported,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    #[test]
    fn the_first_packet_is_logged_at_once_and_the_rest_once_a_minute() {
        let mut log = ReportLog::default();
        let first = |source| LogLine::First(report(source));
        let more = |source, packets| LogLine::More {
            source: report(source).source,
            packets,
            last: report(source),
        };
        assert_eq!(log.add(at(0), &batch(&[1, 1, 2], 0)), [first(1), first(2)]);
        for second in 1..60 {
            assert_eq!(log.add(at(second), &batch(&[1], 0)), []);
        }
        // One packet of the first second and 59 after it. The silent source is new again.
        assert_eq!(log.add(at(60), &batch(&[2], 0)), [more(1, 60), first(2)]);
        assert_eq!(log.add(at(120), &batch(&[], 0)), []);
        assert_eq!(log.add(at(121), &batch(&[1], 0)), [first(1)]);
    }

    #[test]
    fn verdicts_of_one_source_are_logged_separately() {
        let mut log = ReportLog::default();
        let other = DropReport {
            verdict: Verdict::WouldDrop(DropReason::Unauthorized),
            ..report(1)
        };
        let batch = ReportBatch {
            reports: vec![report(1), other],
            not_reported: 0,
        };
        let lines = log.add(at(0), &batch);
        assert_eq!(lines, [LogLine::First(report(1)), LogLine::First(other)]);
    }

    #[test]
    fn a_flood_from_everywhere_takes_bounded_memory_and_loses_no_count() {
        let mut log = ReportLog::default();
        let (mut logged, mut lines) = (0, 0);
        let mut sent = 0;
        for second in 0..300_u32 {
            let sources: Vec<u32> = (0..500).map(|at| second * 500 + at).collect();
            let quiet = second >= 180;
            let batch = if quiet {
                batch(&[], 0)
            } else {
                batch(&sources, 1_000_000)
            };
            sent += batch.reports.len() as u64 + batch.not_reported;
            for line in log.add(at(second.into()), &batch) {
                lines += 1;
                logged += match line {
                    LogLine::First(_) => 1,
                    LogLine::More { packets, .. } => packets,
                    LogLine::Others {
                        packets,
                        not_reported,
                    } => packets + not_reported,
                };
            }
            assert!(log.sources.len() <= MAX_SOURCES);
        }
        assert_eq!(logged, sent);
        assert!(lines <= 3 * (MAX_SOURCES + 1) + 2, "{lines} lines");
        assert!(log.sources.is_empty(), "silent sources are forgotten");
    }
}
