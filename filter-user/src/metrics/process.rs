//! The process itself: its age, memory, time on the CPU, and open files.

use anyhow::{Context as _, Result};
use procfs::{WithCurrentSystemInfo as _, process::Process};

use crate::clock::Clocks;

/// What Prometheus's own client libraries export of a process, under the same names.
pub(super) struct ProcessReading {
    /// In seconds since 1970.
    pub(super) started: f64,
    /// Seconds of CPU time of all threads, in user space and in the kernel.
    pub(super) cpu: f64,
    /// Bytes in memory.
    pub(super) resident: u64,
    /// Bytes of address space.
    pub(super) virtual_memory: u64,
    /// Open file descriptors.
    pub(super) open_files: usize,
}

impl ProcessReading {
    /// Reads the state of this process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub(super) fn read() -> Result<Self> {
        let process = Process::myself().context("read `/proc/self`")?;
        let stat = process.stat().context("read `/proc/self/stat`")?;
        let open_files = process.fd_count().context("read `/proc/self/fd`")?;
        let ticks = procfs::ticks_per_second() as f64;
        let since_boot = stat.starttime as f64 / ticks;
        Ok(Self {
            started: Clocks::now()?.wall_minus_boot() as f64 / 1e9 + since_boot,
            cpu: (stat.utime + stat.stime) as f64 / ticks,
            resident: stat.rss_bytes().get(),
            virtual_memory: stat.vsize,
            // Without the directory that is open to count them.
            open_files: open_files.saturating_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let before = ProcessReading::read().expect("`/proc` is mounted");
        let _files = [(); 100].map(|()| File::open("/dev/null").expect("`/dev/null` is there"));
        let after = ProcessReading::read().expect("`/proc` is mounted");
        // Other tests of this process open files, too.
        assert!(after.open_files >= before.open_files.saturating_sub(50) + 50);
        assert!(after.cpu >= before.cpu);
        assert!(after.resident > 1 << 20 && after.virtual_memory > after.resident);
        let age = Clocks::now().expect("clocks").wall.as_second() as f64 - after.started;
        assert!((-1.0..3_600.0).contains(&age), "{age} s");
    }
}
