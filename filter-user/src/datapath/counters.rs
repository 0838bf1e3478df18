//! The counters of an interface.

use std::path::Path;

use anyhow::Result;
use aya::maps::{Map, MapData, PerCpuArray};
use filter_common::{REASON_SLOTS, Verdict, map::Counter};

use crate::explain::explain;

/// One counter of an interface.
#[derive(Clone, Copy, Debug)]
pub struct CounterRow {
    /// What it counts.
    pub verdict: Verdict,
    /// The sum over all CPUs.
    pub counter: Counter,
}

/// The counters pinned at `pin`, summed over the CPUs.
///
/// # Errors
/// If they are not there, or the kernel refuses.
pub fn read_counters(pin: &Path) -> Result<Vec<CounterRow>> {
    let verb = "read counters";
    let map = MapData::from_pin(pin).map_err(|error| explain(verb, &error))?;
    let counters: PerCpuArray<MapData, [u8; size_of::<Counter>()]> =
        PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(|error| explain(verb, &error))?;
    debug_assert_eq!(counters.len(), REASON_SLOTS);
    Verdict::all()
        .map(|verdict| {
            let values = counters
                .get(&verdict.slot(), 0)
                .map_err(|error| explain(verb, &error))?;
            let mut sum = Counter::default();
            for value in values.iter() {
                let counter: Counter = bytemuck::pod_read_unaligned(value);
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            Ok(CounterRow {
                verdict,
                counter: sum,
            })
        })
        .collect()
}
