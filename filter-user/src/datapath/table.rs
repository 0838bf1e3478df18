//! The table in front of the tries, as arrays of the kernel.

use anyhow::Result;
use aya::maps::{ArrayOfMaps, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use filter_common::table::Line;

use super::{
    batch::Batch,
    maps::Slot,
    tries::{inside, put},
};
use crate::{explain::explain, ranges::Table};

/// The further lines, an array per slot.
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

/// Puts an array with room for so many lines in `slot`. No packet may read it.
fn make(tables: &mut Tables, slot: Slot, lines: u32) -> Result<()> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<Line>() as u32,
        lines,
        BPF_F_INNER_MAP,
    );
    let map =
        MapData::create(map, "table", None).map_err(|error| explain("create table", &error))?;
    put(tables, slot, &map)
}

/// Leaves a table in `slot`, which no packet reads, with as much room as a blank slot has beside one of `lines`. What is in its lines is of no
/// account: nothing leads there but the roots, which are in the record.
pub(super) fn clear(tables: &mut Tables, slot: Slot, lines: u32) -> Result<()> {
    let room = spare_room(lines);
    let verb = "clear table";
    match tables.get(&slot.0, 0) {
        Ok(lines) => {
            let info = lines.info().map_err(|error| explain(verb, &error))?;
            if info.max_entries() == room {
                return Ok(());
            }
        }
        // Nothing was ever put there.
        Err(MapError::KeyNotFound) => {}
        Err(error) => return Err(explain(verb, &error)),
    }
    make(tables, slot, room)
}

/// Writes the lines of `table` to `slot`, which is blank; the roots are for the record.
pub(super) fn fill(tables: &mut Tables, slot: Slot, table: &Table) -> Result<()> {
    let lines = table.lines.len() as u32;
    let mut array = inside(tables, slot)?;
    let info = array.info();
    let room = info
        .map_err(|error| explain("fill table", &error))?
        .max_entries();
    if lines > room {
        make(tables, slot, lines)?;
        array = inside(tables, slot)?;
    }
    let indices = (0_u32..).map(u32::to_ne_bytes);
    let lines = table.lines.iter().map(bytemuck::bytes_of);
    Batch::of(&array)?
        .fill(indices.zip(lines), |_| ())
        .map_err(|error| explain("fill table", &error))
}
