//! Turns samples into rates. It is pure: its caller passes the time. Memory is bounded.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    lookup::{Ranges, UsedRange},
    meter::{Meter, Times},
    sample::Sample,
    sources::Sources,
};
use crate::{
    config::Guard,
    kernel::links::protected::ProtectedInterface,
    ranges::ListName,
    view::{policy::Provisional, stats::Row},
};

/// The longest time that the charts cover.
pub(crate) const SPAN: Duration = Duration::from_secs(300);

/// The data to show, without layout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) times: Times,
    pub(crate) time: Timestamp,
    pub(crate) state: &'static str,
    /// Why nothing could be read last, if so.
    pub(crate) failure: Option<String>,
    pub(crate) ports: String,
    pub(crate) host: String,
    /// The number of ranges in all lists, if it is known.
    pub(crate) list_size: Option<usize>,
    pub(crate) provisional: Option<Provisional>,
    pub(crate) interfaces: Vec<InterfaceModel>,
    /// A point for each sample, the newest last.
    pub(crate) history: VecDeque<Point>,
    pub(crate) sources: Sources,
    guards: Vec<Guard>,
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

#[derive(Clone, Copy, Debug)]
struct UseModel {
    packets: Meter,
    last_seen: Timestamp,
}

/// A range that packets used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) used: &'a UsedRange,
    pub(crate) packets: Meter,
    pub(crate) last_seen: Timestamp,
}

impl Entry<'_> {
    pub(crate) const fn range(&self) -> IpNet {
        self.used.prefix.range
    }
}

impl Model {
    pub(crate) fn add(&mut self, sample: Sample) {
        let before = self.times.last();
        self.times.push(sample.at);
        self.time = sample.time;
        self.state = sample.state;
        self.failure = None;
        self.ports = sample.ports;
        self.guards = sample.guards;
        self.host = sample.host;
        self.list_size = sample.found.list_size;
        self.provisional = sample.provisional;
        self.count(sample.interfaces, before.is_none());
        if let Some(before) = before {
            self.draw(before, sample.at);
        }
        if sample.restarted {
            self.uses.clear();
        }
        self.ranges = sample.found.ranges;
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
        self.sources.add(&sample.batch, self.time, before.is_none());
    }

    /// Records that nothing could be read, and why.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.state = "unknown";
        self.failure = Some(format!("{error:#}"));
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

    /// The ranges in force that packets used, unsorted.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.uses.iter().filter_map(|(id, one)| {
            Some(Entry {
                used: self.ranges.get(id)?,
                packets: one.packets,
                last_seen: one.last_seen,
            })
        })
    }

    /// The list that opens `port`: the first one of its guard, or the list `default`.
    pub(crate) fn list_for(&self, port: Option<u16>) -> ListName {
        let of_port = |guard: &&Guard| port.is_some_and(|port| guard.ports.contains(&port));
        let guard = self.guards.iter().find(of_port);
        let list = guard.and_then(|guard| guard.lists.first());
        list.cloned().unwrap_or_default()
    }

    /// The time that the charts show: the last minute at first, and more as time passes.
    pub(crate) fn span(&self) -> Duration {
        let last = self.times.last().unwrap_or_default();
        let first = self.history.front().map_or(last, |point| point.at);
        let minutes = last.saturating_sub(first).as_secs().div_ceil(60).max(1);
        Duration::from_secs(60 * minutes).min(SPAN)
    }

    pub(crate) fn interface(&self, ifindex: u32) -> String {
        let same = |one: &&InterfaceModel| one.guard.ifindex == ifindex;
        let found = self.interfaces.iter().find(same);
        found.map_or_else(|| format!("#{ifindex}"), |one| one.guard.interface.clone())
    }
}
