//! The dropped sources, from the reports of their packets. Memory is bounded.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

use super::meter::Meter;
use crate::kernel::bpf::{DropReport, ReportBatch};

/// How many sources are tracked at a time.
const MAX_SOURCES: usize = 1024;
/// How many ports of a source are kept.
const MAX_PORTS: usize = 16;
/// A source that was silent for this long is evicted first.
const SILENT: SignedDuration = SignedDuration::from_mins(10);

/// All dropped sources; `None` stands for packets whose source is unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) known: HashMap<Option<IpAddr>, Source>,
    /// Dropped packets that were reported, those of forgotten sources included.
    pub(crate) reported: u64,
    /// Dropped packets without a report. The count is exact.
    pub(crate) not_reported: u64,
}

/// A dropped source, as far as it was reported.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) packets: Meter,
    /// The time of the first report that is known.
    pub(crate) first_seen: Timestamp,
    pub(crate) last: DropReport,
    /// The destination ports of its packets, at most [`MAX_PORTS`].
    pub(crate) ports: BTreeSet<u16>,
}

impl Source {
    fn new(report: &DropReport) -> Self {
        Self {
            packets: Meter::new(0),
            first_seen: report.time,
            last: *report,
            ports: BTreeSet::new(),
        }
    }

    /// The destination port of its last packet, if it could be read.
    pub(crate) fn port(&self) -> Option<u16> {
        self.last.ports.map(|[_, port]| port)
    }

    fn add(&mut self, report: &DropReport) {
        self.last = *report;
        if let Some(port) = self.port()
            && self.ports.len() < MAX_PORTS
        {
            self.ports.insert(port);
        }
    }
}

impl Sources {
    /// Adds the reports since the last time; the `first` ones are not growth.
    pub(crate) fn add(&mut self, batch: &ReportBatch, now: Timestamp, first: bool) {
        let mut totals: HashMap<Option<IpAddr>, u64> = HashMap::new();
        for report in &batch.reports {
            self.reported += 1;
            if !self.known.contains_key(&report.source) && self.known.len() == MAX_SOURCES {
                self.evict(now, &mut totals);
            }
            let source = self.known.entry(report.source);
            let source = source.or_insert_with(|| Source::new(report));
            source.add(report);
            let total = totals.entry(report.source);
            *total.or_insert(source.packets.total()) += 1;
        }
        for (address, source) in &mut self.known {
            let total = totals.get(address).copied();
            let total = total.unwrap_or(source.packets.total());
            if first {
                source.packets = Meter::new(total);
            }
            source.packets.push(total);
        }
        self.not_reported += batch.not_reported;
    }

    /// Evicts one source: silent ones first, then by packets, then by the time of silence.
    fn evict(&mut self, now: Timestamp, totals: &mut HashMap<Option<IpAddr>, u64>) {
        let rank = |address: &Option<IpAddr>, source: &Source| {
            let total = totals.get(address).copied();
            let is_recent = now.duration_since(source.last.time) < SILENT;
            let total = total.unwrap_or(source.packets.total());
            (is_recent, total, source.last.time)
        };
        let least = self
            .known
            .iter()
            .min_by_key(|(address, source)| rank(address, source));
        if let Some(address) = least.map(|(address, _)| *address) {
            self.known.remove(&address);
            totals.remove(&address);
        }
    }
}
