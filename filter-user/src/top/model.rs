//! Turns samples into rates. It is pure: its caller passes the time. Memory is bounded.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    meter::{Meter, Times},
    sample::{Ranges, Sample},
};
use crate::{
    kernel::{bpf::DropReport, links::protected::ProtectedInterface},
    view::{policy::Provisional, stats::Row},
};

/// The time that the charts cover.
pub(crate) const SPAN: Duration = Duration::from_secs(300);
/// How many sources are tracked at a time.
const MAX_SOURCES: usize = 1024;
/// A source that was silent for this long is evicted first.
const SILENT: SignedDuration = SignedDuration::from_mins(10);

/// The data to show, without layout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) times: Times,
    pub(crate) time: Timestamp,
    pub(crate) state: &'static str,
    pub(crate) headline: String,
    pub(crate) provisional: Option<Provisional>,
    pub(crate) interfaces: Vec<InterfaceModel>,
    /// A point for each sample, the newest last.
    pub(crate) history: VecDeque<Point>,
    pub(crate) sources: HashMap<Option<IpAddr>, Source>,
    /// Dropped packets that were reported, those of forgotten sources included.
    pub(crate) reported: u64,
    /// Dropped packets without a report. The count is exact.
    pub(crate) not_reported: u64,
    uses: HashMap<u32, UseModel>,
    ranges: Ranges,
}

/// The rates between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) at: Duration,
    pub(crate) refused: f64,
    pub(crate) passed: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct InterfaceModel {
    pub(crate) guard: ProtectedInterface,
    pub(crate) counters: Vec<CounterModel>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CounterModel {
    pub(crate) row: Row,
    pub(crate) packets: Meter,
    pub(crate) bytes: Meter,
}

/// A dropped source, as far as it was reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) packets: Meter,
    pub(crate) last: DropReport,
}

#[derive(Clone, Copy, Debug)]
struct UseModel {
    packets: Meter,
    last_seen: Timestamp,
}

/// A range that packets used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) range: ipnet::IpNet,
    pub(crate) origins: u8,
    pub(crate) packets: Meter,
    pub(crate) last_seen: Timestamp,
}

impl Model {
    pub(crate) fn add(&mut self, sample: Sample) {
        let before = self.times.last();
        self.times.push(sample.at);
        self.time = sample.time;
        self.state = sample.state;
        self.headline = sample.headline;
        self.provisional = sample.provisional;
        self.count(sample.interfaces, before.is_none());
        if let Some(before) = before {
            self.draw(before, sample.at);
        }
        if sample.restarted {
            self.uses.clear();
        }
        self.ranges = sample.ranges;
        let uses = sample.uses.iter().map(|one| {
            let known = self.uses.get(&one.id).copied();
            // Counts before the first sample are not growth; a later range starts at 0.
            let baseline = if sample.restarted { one.packets } else { 0 };
            let mut packets = known.map_or(Meter::new(baseline), |known| known.packets);
            packets.push(one.packets);
            let last_seen = one.last_seen;
            (one.id, UseModel { packets, last_seen })
        });
        self.uses = uses.collect();
        self.report(&sample.batch.reports, before.is_none());
        self.not_reported += sample.batch.not_reported;
    }

    /// Records that nothing could be read, and why.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.state = "unknown";
        self.headline = format!("unknown: {error:#}");
        self.provisional = None;
    }

    fn count(&mut self, interfaces: Vec<(ProtectedInterface, Vec<Row>)>, first: bool) {
        let before = std::mem::take(&mut self.interfaces);
        let counted = interfaces.into_iter().map(|(guard, rows)| {
            let known = before.iter().find(|one| one.guard.ifindex == guard.ifindex);
            let counter = |row: Row| {
                let same = |other: &&CounterModel| {
                    (other.row.verdict, other.row.reason) == (row.verdict, row.reason)
                };
                let known = known.and_then(|known| known.counters.iter().find(same));
                let baseline = |count| Meter::new(if first { count } else { 0 });
                let (mut packets, mut bytes) = match known {
                    Some(known) => (known.packets, known.bytes),
                    None => (baseline(row.packets), baseline(row.bytes)),
                };
                packets.push(row.packets);
                bytes.push(row.bytes);
                CounterModel {
                    row,
                    packets,
                    bytes,
                }
            };
            InterfaceModel {
                counters: rows.into_iter().map(counter).collect(),
                guard,
            }
        });
        self.interfaces = counted.collect();
    }

    fn draw(&mut self, before: Duration, at: Duration) {
        let seconds = at.saturating_sub(before).as_secs_f64().max(f64::EPSILON);
        let (mut refused, mut passed) = (0, 0);
        for counter in self.counters() {
            match counter.row.verdict {
                "pass" => passed += counter.packets.step(),
                _ => refused += counter.packets.step(),
            }
        }
        self.history.push_back(Point {
            at,
            refused: refused as f64 / seconds,
            passed: passed as f64 / seconds,
        });
        while self
            .history
            .front()
            .is_some_and(|point| point.at + SPAN < at)
        {
            self.history.pop_front();
        }
    }

    fn counters(&self) -> impl Iterator<Item = &CounterModel> {
        self.interfaces.iter().flat_map(|one| &one.counters)
    }

    /// Packets per second of all interfaces with one of these verdicts.
    pub(crate) fn rate(&self, verdicts: &[&str]) -> f64 {
        let wanted = |counter: &&CounterModel| verdicts.contains(&counter.row.verdict);
        let wanted = self.counters().filter(wanted);
        let rates = wanted.map(|counter| counter.packets.rate(&self.times));
        // An empty sum would be -0.
        rates.fold(0.0, |sum, rate| sum + rate)
    }

    /// Packets per second to protected ports, from authorized sources.
    pub(crate) fn authorized_rate(&self) -> f64 {
        let wanted = |counter: &&CounterModel| {
            counter.row.verdict == "pass" && counter.row.reason.starts_with("authorized")
        };
        let wanted = self.counters().filter(wanted);
        let rates = wanted.map(|counter| counter.packets.rate(&self.times));
        // An empty sum would be -0.
        rates.fold(0.0, |sum, rate| sum + rate)
    }

    fn report(&mut self, reports: &[DropReport], first: bool) {
        let mut totals: HashMap<Option<IpAddr>, u64> = HashMap::new();
        for report in reports {
            self.reported += 1;
            if !self.sources.contains_key(&report.source) {
                if self.sources.len() == MAX_SOURCES {
                    self.evict(&mut totals);
                }
                let packets = Meter::new(0);
                let last = *report;
                self.sources.insert(report.source, Source { packets, last });
            }
            let source = self.sources.get_mut(&report.source);
            let source = source.expect("it was there, or came");
            source.last = *report;
            let total = totals.entry(report.source);
            *total.or_insert(source.packets.total()) += 1;
        }
        for (address, source) in &mut self.sources {
            let total = totals.get(address).copied();
            let total = total.unwrap_or(source.packets.total());
            if first {
                source.packets = Meter::new(total);
            }
            source.packets.push(total);
        }
    }

    /// Evicts one source: silent ones first, then by packets, then by the time of silence.
    fn evict(&mut self, totals: &mut HashMap<Option<IpAddr>, u64>) {
        let rank = |address: &Option<IpAddr>, source: &Source| {
            let total = totals.get(address).copied();
            let is_recent = self.time.duration_since(source.last.time) < SILENT;
            let total = total.unwrap_or(source.packets.total());
            (is_recent, total, source.last.time)
        };
        let least = self
            .sources
            .iter()
            .min_by_key(|(address, source)| rank(address, source));
        if let Some(address) = least.map(|(address, _)| *address) {
            self.sources.remove(&address);
            totals.remove(&address);
        }
    }

    /// The ranges in force that packets used, unsorted.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.uses.iter().filter_map(|(id, used)| {
            let prefix = self.ranges.get(id)?;
            Some(Entry {
                range: prefix.range,
                origins: prefix.origins,
                packets: used.packets,
                last_seen: used.last_seen,
            })
        })
    }

    pub(crate) fn interface(&self, ifindex: u32) -> String {
        let same = |one: &&InterfaceModel| one.guard.ifindex == ifindex;
        let found = self.interfaces.iter().find(same);
        found.map_or_else(|| format!("#{ifindex}"), |one| one.guard.interface.clone())
    }
}
