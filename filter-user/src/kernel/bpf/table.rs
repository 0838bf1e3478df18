//! The part of the prefilter outside the header: arrays, each as long as its list needs.

use anyhow::Result;
use aya::maps::{Array, Map, MapData, MapError};
use aya_obj::generated::{BPF_F_INNER_MAP, bpf_map_type};
use bytemuck::NoUninit;

use super::{
    batch::Batch,
    slot::{PerSlot, Slot},
};
use crate::ui::explain::explain;

/// Puts `content`, if there is any, into `slot`, which is empty.
pub(super) fn fill<T: NoUninit>(arrays: &mut PerSlot, slot: Slot, content: &[T]) -> Result<()> {
    match content {
        [] => Ok(()),
        content => put_array(arrays, slot, content),
    }
}

/// Puts an array of `content` into `slot`, which no packet reads. The kernel frees the one that was
/// there.
pub(super) fn put_array<T: NoUninit>(
    arrays: &mut PerSlot,
    slot: Slot,
    content: &[T],
) -> Result<()> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<T>() as u32,
        // The kernel refuses an array without an element.
        content.len().max(1) as u32,
        BPF_F_INNER_MAP,
    );
    let map =
        MapData::create(map, "table", None).map_err(|error| explain("create table", &error))?;
    let indices = (0_u32..).map(u32::to_ne_bytes);
    Batch::of(&map)?
        .fill(indices.zip(content.iter().map(bytemuck::bytes_of)), |_| ())
        .map_err(|error| explain("fill table", &error))?;
    arrays.put(slot, &map)
}

/// The element at `index` in `slot`; `None` where the program finds nothing.
pub(super) fn element<const WORDS: usize>(
    arrays: &PerSlot,
    slot: Slot,
    index: u32,
) -> Result<Option<[u64; WORDS]>> {
    let Some(map) = arrays.inner(slot)? else {
        return Ok(None);
    };
    let explained = |error: MapError| explain("read table", &error);
    let array: Array<MapData, [u64; WORDS]> = Map::Array(map).try_into().map_err(explained)?;
    match array.get(&index, 0) {
        Ok(element) => Ok(Some(element)),
        Err(MapError::OutOfBounds { .. }) => Ok(None),
        Err(error) => Err(explained(error)),
    }
}
