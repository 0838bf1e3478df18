//! The table in front of the tries, as arrays of the kernel.

use anyhow::Result;
use aya::maps::{ArrayOfMaps, MapData};
use aya_obj::generated::bpf_map_type;
use filter_common::table::Line;

use super::{batch::Batch, maps::Slot};
use crate::{explain::explain, ranges::Table};

/// The further lines, an array per slot.
pub(super) type Tables = ArrayOfMaps<MapData, MapData>;

/// One array may stand in for another of another length (Linux 5.10, commit 4a8f87e60f6db40e640f1db555d063b2c4dea5f1).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// An array of the lines of `table` behind its roots.
pub(super) fn build(table: &Table) -> Result<MapData> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<Line>() as u32,
        table.lines.len().max(1) as u32,
        BPF_F_INNER_MAP,
    );
    let map =
        MapData::create(map, "table", None).map_err(|error| explain("create table", &error))?;
    let lines = table.lines.iter().map(bytemuck::bytes_of);
    let indices = (0_u32..).map(u32::to_ne_bytes);
    Batch::of(&map)?
        .fill(indices.zip(lines), |_| ())
        .map_err(|error| explain("fill table", &error))?;
    Ok(map)
}

/// Puts `table` in `slot`, its further lines being `lines`. No packet may read the slot.
pub(super) fn put(
    roots: &MapData,
    tables: &mut Tables,
    slot: Slot,
    table: &Table,
    lines: &MapData,
) -> Result<()> {
    let verb = "write policy";
    let families = table.roots.iter().map(|roots| bytemuck::cast_slice(roots));
    let indices = (2 * slot.0..).map(u32::to_ne_bytes);
    Batch::of(roots)?
        .fill(indices.zip::<_>(families.collect::<Vec<&[u8]>>()), |_| ())
        .map_err(|error| explain(verb, &error))?;
    tables
        .set(slot.0, lines, 0)
        .map_err(|error| explain(verb, &error))
}
