//! The prefilter's answer for an address, computed from the kernel's own maps as the program does
//! it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use aya::maps::{Array, Map, MapData};
use bytemuck::zeroed_box;
use filter_common::{
    layout::{POLICY_HEADERS, PolicyHeader},
    prefilter::{Block, HEADER_LINES, Line, Lines, holds_v4, holds_v6},
};

use super::{
    maps::Maps,
    slot::{Slot, open_data},
    table,
};
use crate::ui::explain::explain;

impl Maps {
    /// Whether the table in `slot` finds `address` in a range, live or expired. The program looks
    /// up only addresses that it finds.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn in_table(&self, slot: Slot, address: IpAddr) -> Result<bool> {
        let mut header: Box<PolicyHeader> = zeroed_box();
        let bytes = element::<{ size_of::<PolicyHeader>() }>(
            open_data(&self.directory, POLICY_HEADERS)?,
            slot.0,
        )?;
        bytemuck::bytes_of_mut(&mut *header).copy_from_slice(&bytes);
        let mut further = OverflowLines::default();
        loop {
            let holds = match address {
                IpAddr::V4(address) => holds_v4(&further, &header.prefilter, address.into()),
                IpAddr::V6(address) => holds_v6(&further, &header.prefilter, address.into()),
            };
            let (lines, blocks) = (further.no_lines.take(), further.no_blocks.take());
            if lines.is_empty() && blocks.is_empty() {
                return Ok(holds);
            }
            for index in lines {
                let line = table::element(&self.lines, slot, index - HEADER_LINES)?;
                further.lines.insert(index, line);
            }
            for index in blocks {
                let bitmaps = &self.bitmaps[usize::from(address.is_ipv6())];
                further
                    .blocks
                    .insert(index, table::element(bitmaps, slot, index)?);
            }
        }
    }
}

/// The parts of a table outside the header that a lookup has needed so far. A missing part is
/// recorded; the lookup starts over once it is read.
#[derive(Default)]
struct OverflowLines {
    lines: BTreeMap<u32, Option<Line>>,
    blocks: BTreeMap<u32, Option<Block>>,
    no_lines: RefCell<BTreeSet<u32>>,
    no_blocks: RefCell<BTreeSet<u32>>,
}

impl Lines for OverflowLines {
    fn line(&self, index: u32) -> Option<&Line> {
        let line = self.lines.get(&index);
        if line.is_none() {
            self.no_lines.borrow_mut().insert(index);
        }
        line?.as_ref()
    }

    fn block(&self, index: u32) -> Option<&Block> {
        let block = self.blocks.get(&index);
        if block.is_none() {
            self.no_blocks.borrow_mut().insert(index);
        }
        block?.as_ref()
    }
}

fn element<const N: usize>(map: MapData, index: u32) -> Result<[u8; N]> {
    let array: Array<MapData, [u8; N]> = Map::Array(map)
        .try_into()
        .map_err(|error| explain("read policy", &error))?;
    array
        .get(&index, 0)
        .map_err(|error| explain("read policy", &error))
}
