//! The counters of all interfaces, and the row of each interface.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use bytemuck::Zeroable as _;
use filter_common::{
    COUNTERS_PER_INTERFACE, Verdict,
    layout::{COUNTERS, Counter, INTERFACES, InterfaceRows, MAX_INTERFACES},
};

use super::slot::open_data;
use crate::ui::{error::UserError, explain::explain};

/// One counter of an interface.
#[derive(Clone, Copy, Debug)]
pub struct CounterRow {
    /// The verdict that it counts.
    pub verdict: Verdict,
    /// The sum over all CPUs.
    pub counter: Counter,
}

/// A counter as aya moves it.
type Bytes = [u8; size_of::<Counter>()];

/// The counters, opened from their pins.
pub struct Counters {
    interfaces: Array<MapData, [u8; size_of::<InterfaceRows>()]>,
    counters: PerCpuArray<MapData, Bytes>,
}

impl Counters {
    /// Opens those pinned in `directory`.
    ///
    /// # Errors
    /// If they are not there, or the kernel refuses.
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = |error: MapError| explain("open counters", &error);
        Ok(Self {
            interfaces: Map::Array(open_data(directory, INTERFACES)?)
                .try_into()
                .map_err(failed)?,
            counters: Map::PerCpuArray(open_data(directory, COUNTERS)?)
                .try_into()
                .map_err(failed)?,
        })
    }

    /// The counters of an interface, summed over the CPUs; `None` if it has no row.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read(&self, ifindex: u32) -> Result<Option<Vec<CounterRow>>> {
        let row = self.rows()?.row(ifindex);
        if row == InterfaceRows::NO_ROW {
            return Ok(None);
        }
        let read = |verdict: Verdict| {
            let values = self
                .counters
                .get(&InterfaceRows::index(row, verdict.index()), 0)
                .map_err(|error| explain("read counters", &error))?;
            let mut sum = Counter::default();
            for value in values.iter() {
                let counter: Counter = bytemuck::pod_read_unaligned(value);
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            let counter = sum;
            Ok(CounterRow { verdict, counter })
        };
        Verdict::all().map(read).collect::<Result<_>>().map(Some)
    }

    /// Gives an interface a row of counters, before the program sees its first packet. An existing
    /// row is kept, with its counters.
    ///
    /// # Errors
    /// If every row is taken, or the kernel refuses.
    pub fn claim(&mut self, ifindex: u32) -> Result<()> {
        let mut rows = self.rows()?;
        if rows.row(ifindex) != InterfaceRows::NO_ROW {
            return Ok(());
        }
        let home = InterfaceRows::home(ifindex);
        let free = (0..MAX_INTERFACES)
            .map(|step| (home + step) % MAX_INTERFACES)
            .find(|row| rows.ifindexes[*row as usize] == 0);
        let Some(row) = free else {
            return Err(UserError::failed(
                format!("count packets: {MAX_INTERFACES} interfaces have counters already"),
                "`apifence detach --interface NAME` frees those of one",
            ));
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| explain("count CPUs", &error))?;
        for slot in 0..COUNTERS_PER_INTERFACE {
            let zeros = PerCpuValues::try_from(vec![Bytes::zeroed(); cpus])
                .context("make counters for each CPU")?;
            self.counters
                .set(InterfaceRows::index(row, slot), zeros, 0)
                .map_err(|error| explain("reset counters", &error))?;
        }
        rows.ifindexes[row as usize] = ifindex;
        self.write(&rows)
    }

    /// Frees the row of an interface that no longer has a filter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn release(&mut self, ifindex: u32) -> Result<()> {
        let mut rows = self.rows()?;
        let row = rows.row(ifindex);
        if row == InterfaceRows::NO_ROW {
            return Ok(());
        }
        rows.ifindexes[row as usize] = 0;
        self.write(&rows)
    }

    fn rows(&self) -> Result<InterfaceRows> {
        let bytes = self
            .interfaces
            .get(&0, 0)
            .map_err(|error| explain("read counters", &error))?;
        Ok(bytemuck::pod_read_unaligned(&bytes))
    }

    fn write(&mut self, rows: &InterfaceRows) -> Result<()> {
        let mut bytes = [0; size_of::<InterfaceRows>()];
        bytes.copy_from_slice(bytemuck::bytes_of(rows));
        self.interfaces
            .set(0, bytes, 0)
            .map_err(|error| explain("assign counters", &error))
    }
}
