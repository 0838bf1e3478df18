//! Reports of dropped packets, or packets that enforce mode would drop, read from the rings of all
//! CPUs.
//!
//! A reader removes nothing: any number of them read the same rings, each from its own position.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use filter_common::{
    Verdict,
    layout::{REPORT_HEADS, REPORTS, REPORTS_PER_CPU, Report, ReportHead},
};
use jiff::Timestamp;

use super::slot::open_data;
use crate::{clock::Clocks, ui::explain::explain};

/// A packet that was dropped, or would have been in enforce mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReport {
    /// The time, accurate to some milliseconds.
    pub time: Timestamp,
    /// The verdict with its reason.
    pub verdict: Verdict,
    /// Source address; `None` if the packet hides it, or it is not trustworthy.
    pub source: Option<IpAddr>,
    /// Destination address in the IP header; `None` as above.
    pub destination: Option<IpAddr>,
    /// Source and destination port; none if they could not be read.
    pub ports: Option<[u16; 2]>,
    /// The ifindex of the interface that it arrived on.
    pub ifindex: u32,
    /// Length of the frame in bytes, from the Ethernet header on.
    pub bytes: u32,
}

/// The first report of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The next one to be written.
    Now,
    /// The oldest one still in the rings, even from before an earlier process.
    Oldest,
}

/// The reports since the last poll.
#[derive(Clone, Debug, Default)]
pub struct ReportBatch {
    /// The reports, in the order of time.
    pub reports: Vec<DropReport>,
    /// The exact number of further refused packets: those that the kernel did not report, and those
    /// whose reports were overwritten before they were read.
    pub not_reported: u64,
}

/// A position in the rings of all CPUs.
pub struct ReportReader {
    directory: PathBuf,
    id: u32,
    reports: PerCpuArray<MapData, [u8; size_of::<Report>()]>,
    heads: PerCpuArray<MapData, [u8; size_of::<ReportHead>()]>,
    /// The head of each CPU's ring as of the last poll.
    seen: Vec<ReportHead>,
}

/// The number of a CPU's reports that are complete: the next report may be half-written in the
/// place of the oldest.
const WHOLE: u64 = REPORTS_PER_CPU as u64 - 1;

impl ReportReader {
    /// Opens the rings pinned in `directory`.
    ///
    /// # Errors
    /// If they are not there, or the kernel refuses.
    pub fn open(directory: &Path, begin: StartAt) -> Result<Self> {
        let verb = "open reports";
        let data = open_data(directory, REPORTS)?;
        let id = data.info().map_err(|error| explain(verb, &error))?.id();
        let failed = |error: MapError| explain(verb, &error);
        let mut reader = Self {
            directory: directory.to_owned(),
            id,
            reports: Map::PerCpuArray(data).try_into().map_err(failed)?,
            heads: Map::PerCpuArray(open_data(directory, REPORT_HEADS)?)
                .try_into()
                .map_err(failed)?,
            seen: Vec::new(),
        };
        reader.seen = reader.read_heads()?;
        if begin == StartAt::Oldest {
            for head in &mut reader.seen {
                head.written = head.written.saturating_sub(WHOLE);
            }
        }
        Ok(reader)
    }

    /// Whether the program still writes these rings: a filter that was detached and attached again
    /// has others.
    pub fn is_current(&self) -> bool {
        open_data(&self.directory, REPORTS)
            .is_ok_and(|data| data.info().is_ok_and(|info| info.id() == self.id))
    }

    /// The number of dropped packets that the kernel did not report, since the filter was attached,
    /// as of the last poll or, before it, of the opening.
    pub fn suppressed(&self) -> u64 {
        self.seen.iter().map(|head| head.skipped).sum()
    }

    /// The reports since the last call; at first, since the start position. Does not wait.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn poll(&mut self) -> Result<ReportBatch> {
        let heads = self.read_heads()?;
        // Reports of several CPUs under the same index are read in one call.
        let mut wanted = BTreeMap::<u32, Vec<(usize, u64)>>::new();
        let mut refused = 0;
        for (cpu, (seen, head)) in self.seen.iter().zip(&heads).enumerate() {
            refused += head.written - seen.written + (head.skipped - seen.skipped);
            let first = seen.written.max(head.written.saturating_sub(WHOLE));
            for sequence in first + 1..=head.written {
                let index = (sequence - 1) % u64::from(REPORTS_PER_CPU);
                wanted
                    .entry(index as u32)
                    .or_default()
                    .push((cpu, sequence));
            }
        }
        let mut found = Vec::new();
        for (index, places) in wanted {
            let of_cpus = self
                .reports
                .get(&index, 0)
                .map_err(|error| explain("read reports", &error))?;
            for (cpu, sequence) in places {
                let report: Report = bytemuck::pod_read_unaligned(&of_cpus[cpu]);
                if report.sequence == sequence {
                    found.push((cpu, report));
                }
            }
        }
        // A report that was overwritten during the read is not whole.
        if !found.is_empty() {
            let after = self.read_heads()?;
            found.retain(|(cpu, report)| after[*cpu].written - report.sequence < WHOLE);
        }
        self.seen = heads;
        found.sort_by_key(|(_, report)| report.seen);
        let now = Clocks::now()?;
        let reports: Vec<_> = found
            .iter()
            .filter_map(|(_, report)| DropReport::read(report, &now))
            .collect();
        Ok(ReportBatch {
            not_reported: refused - reports.len() as u64,
            reports,
        })
    }

    fn read_heads(&self) -> Result<Vec<ReportHead>> {
        let heads = self
            .heads
            .get(&0, 0)
            .map_err(|error| explain("read reports", &error))?;
        Ok(heads
            .iter()
            .map(|head| bytemuck::pod_read_unaligned(head))
            .collect())
    }
}

impl DropReport {
    fn read(report: &Report, now: &Clocks) -> Option<Self> {
        let info = report.flow_info();
        Some(Self {
            time: now.wall_at_monotonic(report.seen),
            verdict: Verdict::from_index(report.verdict.into())?,
            source: info.source(),
            destination: info.destination(),
            ports: info.ports(),
            ifindex: report.ifindex,
            bytes: report.frame_len,
        })
    }
}
