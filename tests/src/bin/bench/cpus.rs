//! CPU placement, CPU time, and disturbance by other load.

use std::{
    fs,
    hint::{black_box, spin_loop},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, getpid, getsid, gettid},
};

/// The CPU of generator and client.
pub(crate) const GENERATOR: usize = 0;
/// The CPU of the node.
pub(crate) const NODE: usize = 1;

/// Minimum number of measurements to keep.
const FEW: usize = 3;

/// Pins a thread, 0 for the calling one, to a CPU.
pub(crate) fn pin(thread: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("pin thread {thread} to CPU {cpu}"))
}

/// Gives this process and its children priority over most other processes: nice -20.
pub(crate) fn prefer_this_process() -> Result<()> {
    set(Command::new("renice").args(["-n", "-20", "-p", &std::process::id().to_string()]))?;
    // Linux first weighs sessions against each other (`CONFIG_SCHED_AUTOGROUP`). In another
    // process's session this write is not permitted.
    let autogroup = Path::new("/proc/self/autogroup");
    if getsid(None)? == getpid() && autogroup.exists() {
        fs::write(autogroup, "-20").context("prefer own session")?;
    }
    Ok(())
}

/// Schedules a thread before any other on its CPU as soon as it is runnable, like a softirq.
fn put_first(thread: i32) -> Result<()> {
    set(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))
}

/// Does the same for the calling thread.
pub(crate) fn go_first() -> Result<()> {
    put_first(gettid().as_raw())
}

fn set(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Speed that CPU accounting does not show: the pace of the CPUs and their distance. Longer times,
/// in nanoseconds, mean slower.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    /// Time of a unit of work. It doubles at most while another process uses the sibling thread of
    /// a core that the hypervisor splits.
    work_time: f64,
    /// Round trip of a cache line between the two CPUs; zero if it does not matter. The hypervisor
    /// may move the CPUs so that they share no cache: then each frame written on one and read on
    /// the other takes longer.
    round_trip: f64,
}

impl Speed {
    /// A measurement is disturbed if the unit of work, or the round trip, took this many times its
    /// best.
    const SLOW: f64 = 1.06;
    const FAR: f64 = 1.6;

    /// Measures one CPU, and pins the calling thread to it.
    pub(crate) fn measure(cpu: usize) -> Result<Self> {
        pin(0, cpu)?;
        let work_time = work_time();
        Ok(Self {
            work_time,
            round_trip: 0.0,
        })
    }

    /// Measures the node's CPU while the generator's is busy, and the round trip between them. Pins
    /// the calling thread to the node's.
    pub(crate) fn measure_node() -> Result<Self> {
        let (counter, done) = (AtomicU64::new(0), AtomicBool::new(false));
        // Pinned before the other thread starts, so that a failure here leaves no thread waiting.
        pin(0, GENERATOR)?;
        thread::scope(|scope| {
            let other = thread::Builder::new().spawn_scoped(scope, || {
                answer_all(&counter);
                while !done.load(Ordering::Relaxed) {
                    work();
                }
            })?;
            let moved = pin(0, NODE);
            let round_trip = round_trip(&counter);
            // Both may be halves of one core for a while: the round trip is shortest, and the pace
            // is slow.
            let work_time = work_time();
            done.store(true, Ordering::Relaxed);
            other.join().expect("it does not panic");
            moved.map(|()| Self {
                work_time,
                round_trip,
            })
        })
    }

    /// The slower of this and a new measurement on the CPU of the calling thread.
    pub(crate) fn or_slower_by_now(self) -> Self {
        self.or_slower(Self {
            work_time: work_time(),
            round_trip: 0.0,
        })
    }

    /// The slower value of each.
    pub(crate) fn or_slower(self, other: Self) -> Self {
        Self {
            work_time: self.work_time.max(other.work_time),
            round_trip: self.round_trip.max(other.round_trip),
        }
    }

    /// The best value of each. Round trips count only between CPUs that were not slow.
    pub(crate) fn best(all: impl Iterator<Item = Self> + Clone) -> Self {
        let work_times = all.clone().map(|one| one.work_time);
        let work_time = work_times.fold(f64::INFINITY, f64::min);
        let round_trips = all
            .filter(|one| one.work_time <= work_time * Self::SLOW)
            .map(|one| one.round_trip);
        let round_trip = round_trips.fold(f64::INFINITY, f64::min);
        Self {
            work_time,
            round_trip,
        }
    }

    /// How much this disturbed the measurement.
    pub(crate) fn disturbance(self, best: Self) -> f64 {
        let more = |one: f64, best: f64, most: f64| {
            if one > best * most {
                one / best - 1.0
            } else {
                0.0
            }
        };
        more(self.work_time, best.work_time, Self::SLOW).max(more(
            self.round_trip,
            best.round_trip,
            Self::FAR,
        ))
    }
}

/// A unit of work: eight sums independent of each other.
fn work() {
    let mut sums = [1_u64; 8];
    for number in 0..10_000_u64 {
        for sum in &mut sums {
            *sum = black_box(*sum ^ number);
        }
    }
}

/// Nanoseconds for a unit of work on this CPU; the fastest of four, so that interruptions do not
/// count.
fn work_time() -> f64 {
    let timed = || {
        let started = Instant::now();
        work();
        started.elapsed().as_nanos() as f64
    };
    (0..4).map(|_| timed()).fold(f64::INFINITY, f64::min)
}

/// Round trips between two readings of the clock, and the number of readings.
const ROUNDS: u64 = 500;
const READINGS: u64 = 6;

/// Nanoseconds for a round trip of the counter, which each CPU increments.
fn round_trip(counter: &AtomicU64) -> f64 {
    let reading = |reading: u64| {
        let started = Instant::now();
        for round in reading * ROUNDS..(reading + 1) * ROUNDS {
            counter.store(2 * round + 1, Ordering::Release);
            wait_for(counter, 2 * round + 2);
        }
        started.elapsed().as_nanos() as f64 / ROUNDS as f64
    };
    (0..READINGS).map(reading).fold(f64::INFINITY, f64::min)
}

/// The other end of [`round_trip`].
fn answer_all(counter: &AtomicU64) {
    for round in 0..ROUNDS * READINGS {
        wait_for(counter, 2 * round + 1);
        counter.store(2 * round + 2, Ordering::Release);
    }
}

fn wait_for(counter: &AtomicU64, count: u64) {
    while counter.load(Ordering::Acquire) != count {
        spin_loop();
    }
}

/// The measurements with no more disturbance than `most`; if they are fewer than `FEW`, the `FEW`
/// least disturbed ones.
pub(crate) fn undisturbed<T: Copy>(
    all: &[T],
    most: f64,
    disturbance: impl Fn(&T) -> f64,
) -> Vec<T> {
    let mut all = all.to_vec();
    all.sort_by(|a, b| f64::total_cmp(&disturbance(a), &disturbance(b)));
    let good = all.partition_point(|one| disturbance(one) <= most);
    all.truncate(good.max(FEW));
    all
}

/// Keeps the node's CPU from going idle while it lives; every other thread there takes precedence.
///
/// A halted virtual CPU takes up to 200 us to wake, in which the ring overflows.
pub(crate) struct Awake(Child);

impl Awake {
    pub(crate) fn new() -> Result<Self> {
        ensure!(
            thread::available_parallelism()?.get() > NODE,
            "a flood takes two CPUs: one for the generator, one for the node"
        );
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "chrt",
                "--idle",
                "0",
                "taskset",
                "-c",
            ])
            .arg(NODE.to_string())
            .args(["sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()
            .context("start `chrt`")?;
        Ok(Self(child))
    }

    /// Takes only CPU time that no other thread wants.
    pub(crate) fn clock(&self) -> Clock {
        Clock(format!("/proc/{}/schedstat", self.0.id()).into())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // This thread does not end by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread whose CPU time is measured.
pub(crate) struct Clock(PathBuf);

/// Nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) ran: u64,
    /// Nanoseconds in which it was runnable while another thread ran.
    pub(crate) waited: u64,
}

impl Clock {
    /// The calling thread; only that thread may read it.
    pub(crate) fn own() -> Self {
        Self("/proc/thread-self/schedstat".into())
    }

    /// The calling thread; other threads may read it.
    pub(crate) fn of_this_thread() -> Self {
        let (process, thread) = (std::process::id(), gettid());
        Self(format!("/proc/{process}/task/{thread}/schedstat").into())
    }

    /// The kernel thread whose name has this prefix, pinned to the node's CPU with priority. `None`
    /// if there is none.
    pub(crate) fn of_kernel(prefix: &str) -> Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let directory = entry?.path();
            let is_it = fs::read_to_string(directory.join("comm"))
                .is_ok_and(|name| name.trim_end().starts_with(prefix));
            let pid = directory
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let (true, Some(pid)) = (is_it, pid) {
                // Per-CPU kernel threads are pinned already, cannot be moved, and serve every
                // process.
                if !prefix.starts_with("ksoftirqd") {
                    pin(pid, NODE)?;
                    put_first(pid)?;
                }
                return Ok(Some(Self(directory.join("schedstat"))));
            }
        }
        Ok(None)
    }

    pub(crate) fn read(&self) -> Result<Times> {
        let text = read(&self.0)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || numbers.next().context("too few numbers in `schedstat`");
        Ok(Times {
            ran: next()??,
            waited: next()??,
        })
    }
}

/// Nanoseconds that the hypervisor has taken from all CPUs so far (steal), in steps of 10 ms.
pub(crate) fn stolen() -> Result<u64> {
    let text = read(Path::new("/proc/stat"))?;
    // `cpu user nice system idle iowait irq softirq steal ...`
    let steal = text.split_whitespace().nth(8).unwrap_or("0");
    Ok(steal.parse::<u64>()? * 10_000_000)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}
