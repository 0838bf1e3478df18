//! Many entries of a map in one system call, which aya lacks.
//!
//! LPM tries have it since Linux 5.13 (commit f56387c5, "bpf: Add support for batched ops in LPM
//! trie maps"), hash maps since 5.6 (057996380a42, "bpf: Add batch ops to all htab bpf map").

use std::io;

use anyhow::Result;
use aya::maps::MapData;
use nix::libc;

use super::sys::{Entries, Position};

/// Entries in one call: beyond some hundreds more gain nothing, and progress is reported between
/// calls.
const BATCH_LEN: usize = 4096;

/// A map whose entries are written or read by the thousand.
pub(super) struct Batch<'a> {
    entries: Entries<'a>,
    key_size: usize,
    value_size: usize,
}

impl<'a> Batch<'a> {
    /// Asks the kernel for the sizes of `map`.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(super) fn of(map: &'a MapData) -> Result<Self> {
        let entries = Entries::of(map)?;
        let (key_size, value_size) = entries.sizes();
        Ok(Self {
            entries,
            key_size,
            value_size,
        })
    }

    /// Puts `entries` into the map; calls `done` repeatedly with the number of new ones. Sorted
    /// entries go into a trie in half the time.
    ///
    /// # Errors
    /// If the kernel refuses one of them: those before it are in.
    pub(super) fn fill<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        done: impl Fn(usize),
    ) -> io::Result<()> {
        let mut entries = entries.into_iter();
        let expected = entries.size_hint().0.min(BATCH_LEN);
        let mut keys = Vec::with_capacity(expected * self.key_size);
        let mut values = Vec::with_capacity(expected * self.value_size);
        loop {
            for (key, value) in entries.by_ref().take(BATCH_LEN) {
                let (key, value) = (key.as_ref(), value.as_ref());
                let sizes = (key.len(), value.len());
                assert_eq!(sizes, (self.key_size, self.value_size), "sizes of the map");
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
            }
            let count = keys.len() / self.key_size;
            if count == 0 {
                return Ok(());
            }
            self.fill_some(&mut keys, &mut values)?;
            done(count);
            keys.clear();
            values.clear();
        }
    }

    fn fill_some(&self, mut keys: &mut [u8], mut values: &mut [u8]) -> io::Result<()> {
        while !keys.is_empty() {
            let all = keys.len() / self.key_size;
            let (moved, answer) = self.entries.update(keys, values);
            match answer {
                Ok(()) => return Ok(()),
                // The kernel leaves the count unchanged if it refuses a call at the start.
                Err(_) if 0 < moved && moved < all => {
                    // The next call repeats a lasting error; after a memory shortage it may
                    // succeed.
                    keys = &mut keys[moved * self.key_size..];
                    values = &mut values[moved * self.value_size..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Calls `entry` with the key and value of every entry. An entry that is inserted or removed
    /// meanwhile may be missing, or come twice.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn read(&self, mut entry: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut keys = vec![0; BATCH_LEN * self.key_size];
        let mut values = vec![0; BATCH_LEN * self.value_size];
        let mut position: Option<Position> = None;
        loop {
            let mut next = self.entries.position();
            let (moved, answer) =
                self.entries
                    .lookup(position.as_ref(), &mut next, &mut keys, &mut values);
            let errno = answer.as_ref().err().and_then(io::Error::raw_os_error);
            match errno {
                // EINTR: an entry was removed during the walk. ENOENT: the end.
                None | Some(libc::EINTR | libc::ENOENT) => {}
                // A bucket of a hash map holds more entries than fit.
                Some(libc::ENOSPC) => {
                    keys.resize(keys.len() * 2, 0);
                    values.resize(values.len() * 2, 0);
                    continue;
                }
                Some(_) => return answer,
            }
            let found = keys.chunks_exact(self.key_size);
            let found = found.zip(values.chunks_exact(self.value_size));
            for (key, value) in found.take(moved) {
                entry(key, value);
            }
            if errno == Some(libc::ENOENT) {
                return Ok(());
            }
            if moved > 0 {
                position = Some(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap, io::Write as _};

    use aya::{maps::MapType, util::nr_cpus};

    use super::*;

    /// A map made for the test; `None`, and a message, where maps may not be created.
    fn map(kind: MapType, sizes: (u32, u32), capacity: u32) -> Option<MapData> {
        let flags = u32::from(kind == MapType::LpmTrie);
        let map = aya_obj::Map::new_from_params(kind as u32, sizes.0, sizes.1, capacity, flags);
        match MapData::create(map, "batch_test", None) {
            Ok(map) => Some(map),
            Err(error) => {
                assert!(!nix::unistd::geteuid().is_root(), "{error}");
                // Written directly, since libtest hides the output of a passing test;
                // `cargo xtask test` counts it.
                let thread = std::thread::current();
                let test = thread.name().unwrap_or("a test");
                let line = format!("\nnot run: {test}: making a map needs root\n");
                io::stderr()
                    .write_all(line.as_bytes())
                    .expect("stderr is open");
                None
            }
        }
    }

    fn all(batch: &Batch<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        let read = batch.read(|key, value| {
            let before = found.insert(key.to_vec(), value.to_vec());
            assert_eq!(before, None, "{key:?} came twice");
        });
        read.expect("a map of ours can be read");
        found
    }

    fn host(number: u32) -> [u8; 8] {
        let [a, b, c, d] = number.to_be_bytes();
        let [l, e, n, _] = 32_u32.to_ne_bytes();
        [l, e, n, 0, a, b, c, d]
    }

    #[test]
    fn entries_are_read_as_written() {
        for kind in [MapType::LpmTrie, MapType::Hash, MapType::LruHash] {
            for count in [0, 1, BATCH_LEN, 2 * BATCH_LEN + 7] {
                let Some(map) = map(kind, (8, 4), 1 << 15) else {
                    return;
                };
                let batch = Batch::of(&map).expect("a map has sizes");
                let want: BTreeMap<_, _> = (0..count as u32)
                    .map(|number| (host(number).to_vec(), number.to_ne_bytes().to_vec()))
                    .collect();
                let told = Cell::new(0);
                let entries = (0..count as u32).map(|number| (host(number), number.to_ne_bytes()));
                batch
                    .fill(entries, |more| told.set(told.get() + more))
                    .expect("the map has room");
                assert_eq!(told.get(), count);
                assert_eq!(all(&batch), want, "{count} in a {kind:?}");
            }
        }
    }

    #[test]
    fn values_of_all_cpus_lie_side_by_side() {
        let cpus = nr_cpus().expect("there are CPUs");
        let Some(map) = map(MapType::PerCpuArray, (4, 12), 3) else {
            return;
        };
        let batch = Batch::of(&map).expect("a map has sizes");
        let found = all(&batch);
        assert_eq!(found.len(), 3);
        assert!(found.values().all(|value| value.len() == 16 * cpus));
    }

    #[test]
    fn a_full_map_keeps_its_entries_and_reports_it() {
        let Some(map) = map(MapType::LpmTrie, (8, 4), 5000) else {
            return;
        };
        let batch = Batch::of(&map).expect("a map has sizes");
        let entries = (0..6000).map(|number| (host(number), [0; 4]));
        let error = batch.fill(entries, |_| ()).expect_err("too many");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(all(&batch).len(), 5000);
    }
}
