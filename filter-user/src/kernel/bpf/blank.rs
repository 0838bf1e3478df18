//! The slot that is not in force, made blank: the next change fills it as it is, and waits for nothing.
//!
//! To wait until no packet reads a slot any more takes the kernel some milliseconds, and so does every map that is put in a map of maps. That is
//! done once a change is in force, for the next one. It also frees what the generation before took.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use filter_common::map::PolicyRecord;

use super::{
    maps::{Maps, Slot, Standing},
    stage::{ended, join, spawn},
    table::spare_chunks,
    tries,
};

impl Maps {
    /// Makes the slot that is not in force blank, if it is not and no packet may come back to it: if nothing is provisional. Nobody else may
    /// select anything meanwhile, and what may have been staged there is lost.
    ///
    /// # Errors
    /// If the kernel refuses; the slot in force is untouched, and the next change tries again.
    pub fn prepare(&mut self) -> Result<()> {
        let Some((current, slot)) = self.to_be_blank()? else {
            return Ok(());
        };
        tries::wait_for_packets(&mut self.sources_v4, current)?;
        // First, so that whoever reads the prefixes that are about to go can tell; the mark comes last.
        let spare = spare_chunks(self.record(current)?.lines);
        let had = self.record(slot)?;
        let mut record = PolicyRecord {
            generation: had.generation,
            next_id: had.next_id,
            line_chunks: had.line_chunks.max(spare),
            block_chunks: had.block_chunks,
            trial: had.trial,
            fallback_at: had.fallback_at,
            ..PolicyRecord::zeroed()
        };
        self.write_record(slot, &record)?;
        // Side by side: where they are to wait, most of it is the same wait.
        thread::scope(|scope| {
            let v4 = spawn(scope, || tries::clear::<8>(&mut self.sources_v4, slot))?;
            let v6 = spawn(scope, || tries::clear::<20>(&mut self.sources_v6, slot))?;
            self.chunks.clear(slot, &record, spare)?;
            join(v4).and(join(v6))
        })?;
        (record.line_chunks, record.block_chunks) = (spare, [0; 2]);
        tries::clear::<8>(&mut self.destinations_v4, slot)?;
        tries::clear::<20>(&mut self.destinations_v6, slot)?;
        record.blank = 1;
        self.write_record(slot, &record)
    }

    /// The slot in force and the other one, if that is to be made blank.
    fn to_be_blank(&self) -> Result<Option<(Slot, Slot)>> {
        let Standing::Settled(current) = self.standing()? else {
            return Ok(None);
        };
        let slot = current.other();
        let is_blank = self.record(slot)?.blank == 1;
        Ok((!is_blank).then_some((current, slot)))
    }
}

/// The other slot becoming blank beside everything else. Ends before it is dropped: a slot that somebody else fills must not be cleared.
pub(super) struct Blanking(Option<JoinHandle<Result<()>>>);

impl Blanking {
    /// Begins, if there is anything to do.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn begin(maps: &Maps) -> Result<Self> {
        if maps.to_be_blank()?.is_none() {
            return Ok(Self(None));
        }
        let mut maps = Maps::open(&maps.directory)?;
        let thread = thread::Builder::new()
            .spawn(move || maps.prepare())
            .context("start thread")?;
        Ok(Self(Some(thread)))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If the kernel refused.
    pub(super) fn end(&mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |thread| ended(thread.join()))
    }
}

impl Drop for Blanking {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Nobody waits for what it came to any more.
            let _ = thread.join();
        }
    }
}
