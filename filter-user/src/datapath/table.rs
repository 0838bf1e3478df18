//! The table in front of the tries, as arrays of the kernel.

use anyhow::Result;
use aya::maps::{ArrayOfMaps, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use filter_common::table::{Block, Line};

use super::{
    batch::Batch,
    maps::Slot,
    tries::{inside, put},
};
use crate::{explain::explain, ranges::Table};

/// The lines behind the roots, an array per slot; or the bitmaps that are not in the gate, an array per slot and family.
pub(super) type Tables = ArrayOfMaps<MapData, MapData>;

/// One array may stand in for another of another length (Linux 5.10, commit 4a8f87e60f6db40e640f1db555d063b2c4dea5f1).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How many lines there is room for in a blank slot beside a table of `lines`: for a list half as long again, and then a power of two, so
/// that not every change takes another room. At most so many as some ten thousand ranges take: what is longer brings an array of its own, and
/// waits for it, of no account beside the rest that it takes.
fn spare_room(lines: u32) -> u32 {
    lines
        .saturating_add(lines / 2)
        .clamp(256, 16_384)
        .next_power_of_two()
}

/// Puts an array of so many `T` at `index`. No packet may read it.
fn make<T>(arrays: &mut Tables, index: u32, count: u32) -> Result<()> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<T>() as u32,
        count,
        BPF_F_INNER_MAP,
    );
    let map =
        MapData::create(map, "table", None).map_err(|error| explain("create table", &error))?;
    put(arrays, index, &map)
}

/// How much room the array at `index` has; none if there is no array.
fn room(arrays: &Tables, index: u32) -> Result<u32> {
    let failed = |error| explain("read table", &error);
    match arrays.get(&index, 0) {
        Ok(array) => Ok(array.info().map_err(failed)?.max_entries()),
        // Nothing was ever put there.
        Err(MapError::KeyNotFound) => Ok(0),
        Err(error) => Err(failed(error)),
    }
}

/// Fills the array at `index`, which has the room.
fn fill_array<T: bytemuck::NoUninit>(arrays: &Tables, index: u32, content: &[T]) -> Result<()> {
    let indices = (0_u32..).map(u32::to_ne_bytes);
    let content = content.iter().map(bytemuck::bytes_of);
    Batch::of(&inside(arrays, index)?)?
        .fill(indices.zip(content), |_| ())
        .map_err(|error| explain("fill table", &error))
}

/// Where the bitmaps of `slot` are.
fn bitmaps_of(slot: Slot) -> [u32; 2] {
    [2 * slot.0, 2 * slot.0 + 1]
}

/// Leaves a table in `slot`, which no packet reads, with as much room as a blank slot has beside one of `lines`. What is in its lines is of no
/// account: nothing leads there but the roots, which are in the gate.
pub(super) fn clear(tables: &mut Tables, slot: Slot, lines: u32) -> Result<()> {
    if room(tables, slot.0)? != spare_room(lines) {
        make::<Line>(tables, slot.0, spare_room(lines))?;
    }
    Ok(())
}

/// Gives back the memory of the bitmaps in `slot`, which no packet reads.
pub(super) fn clear_bitmaps(bitmaps: &mut Tables, slot: Slot) -> Result<()> {
    for index in bitmaps_of(slot) {
        if room(bitmaps, index)? > 1 {
            make::<Block>(bitmaps, index, 1)?;
        }
    }
    Ok(())
}

/// Writes the lines and bitmaps of `table` to `slot`, which is blank; the roots are for the gate.
pub(super) fn fill(
    tables: &mut Tables,
    bitmaps: &mut Tables,
    slot: Slot,
    table: &Table,
) -> Result<()> {
    let lines = table.lines.len() as u32;
    if lines > room(tables, slot.0)? {
        make::<Line>(tables, slot.0, lines)?;
    }
    fill_array(tables, slot.0, &table.lines)?;
    for (index, bitmap) in bitmaps_of(slot).into_iter().zip(&table.bitmaps) {
        if !bitmap.is_empty() {
            make::<Block>(bitmaps, index, bitmap.len() as u32)?;
            fill_array(bitmaps, index, bitmap)?;
        }
    }
    Ok(())
}
