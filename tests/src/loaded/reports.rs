//! The reports of a loaded program, read straight from its maps.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use filter_common::layout::{REPORT_HEADS, REPORTS, REPORTS_PER_CPU, Report, ReportHead};

/// The two maps.
pub(super) struct Reports {
    reports: PerCpuArray<MapData, [u8; size_of::<Report>()]>,
    heads: PerCpuArray<MapData, [u8; size_of::<ReportHead>()]>,
    last: Vec<ReportHead>,
}

impl Reports {
    /// Those pinned in the directory `maps`.
    pub(super) fn open(maps: &Path) -> Result<Self> {
        let open = |name| {
            MapData::from_pin(maps.join(name)).with_context(|| format!("open the pinned `{name}`"))
        };
        Ok(Self {
            reports: Map::PerCpuArray(open(REPORTS)?).try_into()?,
            heads: Map::PerCpuArray(open(REPORT_HEADS)?).try_into()?,
            last: Vec::new(),
        })
    }

    /// Renews the whole budget of every CPU.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.last = self.read()?;
        let mut bytes = Vec::new();
        for head in &mut self.last {
            head.spent = 0;
            let mut value = [0; size_of::<ReportHead>()];
            value.copy_from_slice(bytemuck::bytes_of(head));
            bytes.push(value);
        }
        Ok(self.heads.set(0, PerCpuValues::try_from(bytes)?, 0)?)
    }

    /// The report since then: at most one, and none may have been left out.
    pub(super) fn newest(&self) -> Result<Option<Report>> {
        let mut found = None;
        for (cpu, (before, now)) in self.last.iter().zip(self.read()?).enumerate() {
            match (now.written - before.written, now.skipped - before.skipped) {
                (0, 0) => {}
                (1, 0) if found.is_none() => {
                    let index = before.written as u32 % REPORTS_PER_CPU;
                    let report: Report =
                        bytemuck::pod_read_unaligned(&self.reports.get(&index, 0)?[cpu]);
                    if report.sequence != now.written {
                        bail!(
                            "report {} stands where {} belongs",
                            report.sequence,
                            now.written
                        );
                    }
                    found = Some(report);
                }
                (written, skipped) => bail!("one frame gave {written} reports and {skipped} not"),
            }
        }
        Ok(found)
    }

    fn read(&self) -> Result<Vec<ReportHead>> {
        let heads = self.heads.get(&0, 0)?;
        Ok(heads
            .iter()
            .map(|head| bytemuck::pod_read_unaligned(head))
            .collect())
    }
}
