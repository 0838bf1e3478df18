//! The part of the table in front of the tries that is not in the gate, as chunks: arrays of one length inside an array of maps.

use std::{
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::Result;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya_obj::generated::bpf_map_type;
use bytemuck::NoUninit;
use filter_common::{
    map::{BITMAPS, PolicyRecord, TABLE},
    table::{BLOCK_CHUNKS, Block, CHUNK_BLOCKS, CHUNK_LINES, LINE_CHUNKS, Line},
};
use nix::libc;

use super::{
    batch::Batch,
    maps::{Slot, open_data},
    stage::{join, spawn},
};
use crate::{policy::Table, ui::explain::explain};

/// The chunks of both slots.
pub(super) struct Chunks {
    lines: MapData,
    blocks: MapData,
}

/// The most chunks of lines that a blank slot has: what some ten thousand ranges take. A longer list brings its own, and waits for them, of no
/// account beside the rest that it takes.
const MOST_SPARE: u32 = 8;
/// How many chunks are put in their places, or taken out, at once.
const AT_ONCE: u32 = 32;

impl Chunks {
    /// Opens those whose maps are pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            lines: open_data(directory, TABLE)?,
            blocks: open_data(directory, BITMAPS)?,
        })
    }

    /// Writes what of `table` is not for the gate to `slot`, which is blank.
    pub(super) fn fill(&self, slot: Slot, table: &Table) -> Result<()> {
        fill(&self.lines, lines_of(slot), CHUNK_LINES, &table.lines)?;
        for (places, bitmap) in blocks_of(slot).into_iter().zip(&table.bitmaps) {
            fill(&self.blocks, places, CHUNK_BLOCKS, bitmap)?;
        }
        Ok(())
    }

    /// The chunk with the line of this index in `slot`, and its index in there; `None` where the program finds no chunk.
    pub(super) fn line(&self, slot: Slot, index: u32) -> Result<Option<(MapData, u32)>> {
        let chunk = index / CHUNK_LINES;
        if chunk >= LINE_CHUNKS {
            return Ok(None);
        }
        let chunk = Outer::open(&self.lines)?.chunk(lines_of(slot).start + chunk)?;
        Ok(chunk.map(|chunk| (chunk, index % CHUNK_LINES)))
    }

    /// The same for a block of a family's bitmap.
    pub(super) fn block(
        &self,
        slot: Slot,
        ipv6: bool,
        index: u32,
    ) -> Result<Option<(MapData, u32)>> {
        let first = blocks_of(slot)[usize::from(ipv6)].start;
        let chunk = first + index / CHUNK_BLOCKS % BLOCK_CHUNKS;
        let chunk = Outer::open(&self.blocks)?.chunk(chunk)?;
        Ok(chunk.map(|chunk| (chunk, index % CHUNK_BLOCKS)))
    }

    /// Leaves `spare` chunks of lines in `slot`, which no packet reads, and in which there is no more than `record` says. What is in them is of no
    /// account: nothing leads there but the gate.
    pub(super) fn clear(&self, slot: Slot, record: &PolicyRecord, spare: u16) -> Result<()> {
        let spare = u32::from(spare);
        let places = lines_of(slot);
        let (first, end) = (places.start, places.end);
        side_by_side(&self.lines, first..first + spare, |outer, place| {
            if outer.chunk(place)?.is_none() {
                outer.put(place, &new::<Line>(CHUNK_LINES)?)?;
            }
            Ok(())
        })?;
        let had = first + u32::from(record.line_chunks);
        take_out(&self.lines, first + spare..had.min(end))?;
        for (places, had) in blocks_of(slot).into_iter().zip(record.block_chunks) {
            let had = places.start + u32::from(had);
            take_out(&self.blocks, places.start..had.min(places.end))?;
        }
        Ok(())
    }
}

/// How many chunks of lines, and of the bitmap of each family, `table` takes.
pub(super) fn taken(table: &Table) -> (u16, [u8; 2]) {
    let lines = table.lines.chunks(CHUNK_LINES as usize).len();
    let blocks = |bitmap: &Vec<Block>| bitmap.chunks(CHUNK_BLOCKS as usize).len() as u8;
    (lines as u16, table.bitmaps.each_ref().map(blocks))
}

/// How many chunks there are in a blank slot beside a table with `lines` of its lines in chunks: for a list half as long again.
pub(super) fn spare_chunks(lines: u32) -> u16 {
    lines
        .saturating_add(lines / 2)
        .div_ceil(CHUNK_LINES)
        .min(MOST_SPARE) as u16
}

/// Where the chunks of lines of `slot` are.
const fn lines_of(slot: Slot) -> Range<u32> {
    slot.0 * LINE_CHUNKS..(slot.0 + 1) * LINE_CHUNKS
}

/// Where those of its bitmaps are, by family.
fn blocks_of(slot: Slot) -> [Range<u32>; 2] {
    [0, 1].map(|family| {
        let first = (2 * slot.0 + family) * BLOCK_CHUNKS;
        first..first + BLOCK_CHUNKS
    })
}

/// Writes `content` to chunks of so many `T`, in their order; those that are not there are made.
fn fill<T: NoUninit + Sync>(
    chunks: &MapData,
    places: Range<u32>,
    length: u32,
    content: &[T],
) -> Result<()> {
    let parts: Vec<&[T]> = content.chunks(length as usize).collect();
    assert!(parts.len() <= places.len(), "more chunks than places");
    let first = places.start;
    side_by_side(chunks, first..first + parts.len() as u32, |outer, place| {
        let there = outer.chunk(place)?;
        let is_new = there.is_none();
        let chunk = there.map_or_else(|| new::<T>(length), Ok)?;
        let indices = (0_u32..).map(u32::to_ne_bytes);
        let part = parts[(place - first) as usize].iter();
        Batch::of(&chunk)?
            .fill(indices.zip(part.map(bytemuck::bytes_of)), |_| ())
            .map_err(|error| explain("fill table", &error))?;
        if is_new {
            outer.put(place, &chunk)?;
        }
        Ok(())
    })
}

/// Takes the chunks out that are at `places`; the kernel frees them.
fn take_out(chunks: &MapData, places: Range<u32>) -> Result<()> {
    side_by_side(chunks, places, Outer::take_out)
}

/// An empty chunk of so many `T`.
fn new<T>(length: u32) -> Result<MapData> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<T>() as u32,
        length,
        0,
    );
    MapData::create(map, "table", None).map_err(|error| explain("create table", &error))
}

/// Does `work` for each of `places` in `chunks`, many at once. Whoever changes a map of maps waits until no program reads what was there
/// (`tries::put`), and however many wait, they wait for the same. No system call takes several out, and Linux 5.18 has none that puts several in
/// (5.19, commit 9263dddc7b6f816fdd327eee435cc54ba51dd095).
fn side_by_side(
    chunks: &MapData,
    places: Range<u32>,
    work: impl Fn(&mut Outer, u32) -> Result<()> + Sync,
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let threads = (places.len() as u32).min(AT_ONCE);
    let next = AtomicU32::new(places.start);
    let several = || -> Result<()> {
        let mut outer = Outer::open(chunks)?;
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= places.end {
                return Ok(());
            }
            // Whoever fails is the last: where memory is short, the others are not to take more.
            work(&mut outer, place).inspect_err(|_| next.store(places.end, Ordering::Relaxed))?;
        }
    };
    thread::scope(|scope| {
        // As many as can be had; the calling one, at the least.
        let threads: Vec<_> = (1..threads)
            .map_while(|_| spawn(scope, several).ok())
            .collect();
        let own = several();
        threads.into_iter().map(join).fold(own, Result::and)
    })
}

/// An array of maps, opened by one of many threads. What is in it is read by its number and written by its descriptor, as in a hash map, whose type
/// this is: for arrays of maps aya has no way to take something out.
struct Outer(HashMap<MapData, u32, u32>);

impl Outer {
    fn open(chunks: &MapData) -> Result<Self> {
        let open = || Map::HashMap(MapData::from_id(chunks.info()?.id())?).try_into();
        open()
            .map(Self)
            .map_err(|error: MapError| explain("open table", &error))
    }

    /// What is at `place`.
    fn chunk(&self, place: u32) -> Result<Option<MapData>> {
        match self.0.get(&place, 0).and_then(MapData::from_id) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(explain("read table", &error)),
        }
    }

    /// Puts `chunk` at `place`, and waits.
    fn put(&mut self, place: u32, chunk: &MapData) -> Result<()> {
        let descriptor = chunk.fd().as_fd().as_raw_fd() as u32;
        self.0
            .insert(place, descriptor, 0)
            .map_err(|error| explain("write table", &error))
    }

    /// Takes out what is at `place`, if anything is, and waits.
    fn take_out(&mut self, place: u32) -> Result<()> {
        match self.0.remove(&place) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            result => result.map_err(|error| explain("clear table", &error)),
        }
    }
}
