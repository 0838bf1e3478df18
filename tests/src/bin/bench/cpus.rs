//! Who runs where, for how long, and who was in the way.

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

/// Measurements to go by in any case.
const FEW: usize = 3;

/// Pins a thread, 0 for the calling one, to a CPU.
pub(crate) fn pin(thread: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("pin thread {thread} to CPU {cpu}"))
}

/// Has this process, and what it starts, go before most of what else the machine does: nice -20.
pub(crate) fn prefer_this_process() -> Result<()> {
    set(Command::new("renice").args(["-n", "-20", "-p", &std::process::id().to_string()]))?;
    // Linux weighs sessions against each other first (`CONFIG_SCHED_AUTOGROUP`). In one of others it is not ours to say.
    let autogroup = Path::new("/proc/self/autogroup");
    if getsid(None)? == getpid() && autogroup.exists() {
        fs::write(autogroup, "-20").context("prefer own session")?;
    }
    Ok(())
}

/// Has a thread go before any other on its CPU as soon as it has something to do, as a softirq would.
fn put_first(thread: i32) -> Result<()> {
    set(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))
}

/// The same for the calling thread.
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

/// What no account of time shows: how fast the CPUs are, and how close together. The longer the times, in nanoseconds, the slower.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    /// Of a bit of work. It takes up to twice as long while somebody else uses the other half of a core that the machine below has divided.
    pace: f64,
    /// Of a line of memory from one CPU to the other and back; none where that is of no account. A virtual machine's CPUs may be moved to where
    /// they share no cache, and then each frame that one writes and the other reads takes longer.
    way: f64,
}

impl Speed {
    /// A measurement is disturbed if a bit of work took this many times its best, or the way.
    const SLOW: f64 = 1.06;
    const FAR: f64 = 1.6;

    /// Of one CPU, which the calling thread is pinned to.
    pub(crate) fn of(cpu: usize) -> Result<Self> {
        pin(0, cpu)?;
        let pace = pace();
        Ok(Self { pace, way: 0.0 })
    }

    /// Of the node's CPU while the generator's has work, too, and the way to it. The calling thread is pinned to the node's.
    pub(crate) fn of_node() -> Result<Self> {
        let (ball, done) = (AtomicU64::new(0), AtomicBool::new(false));
        // Pinned before anybody waits: who fails here leaves nobody waiting.
        pin(0, GENERATOR)?;
        thread::scope(|scope| {
            let other = thread::Builder::new().spawn_scoped(scope, || {
                return_all(&ball);
                while !done.load(Ordering::Relaxed) {
                    bit();
                }
            })?;
            let moved = pin(0, NODE);
            let way = way(&ball);
            // Both may be halves of one core for a while: as near as can be, and slow.
            let pace = pace();
            done.store(true, Ordering::Relaxed);
            other.join().expect("it does not panic");
            moved.map(|()| Self { pace, way })
        })
    }

    /// What it is by now on the CPU of the calling thread.
    pub(crate) fn or_slower_by_now(self) -> Self {
        self.or_slower(Self {
            pace: pace(),
            way: 0.0,
        })
    }

    /// The slower one in everything.
    pub(crate) fn or_slower(self, other: Self) -> Self {
        Self {
            pace: self.pace.max(other.pace),
            way: self.way.max(other.way),
        }
    }

    /// The best of all in everything; of the ways only those between CPUs that were not slow.
    pub(crate) fn best(all: impl Iterator<Item = Self> + Clone) -> Self {
        let paces = all.clone().map(|one| one.pace);
        let pace = paces.fold(f64::INFINITY, f64::min);
        let ways = all
            .filter(|one| one.pace <= pace * Self::SLOW)
            .map(|one| one.way);
        let way = ways.fold(f64::INFINITY, f64::min);
        Self { pace, way }
    }

    /// How much it disturbed what was measured meanwhile.
    pub(crate) fn disturbance(self, best: Self) -> f64 {
        let more = |one: f64, best: f64, most: f64| {
            if one > best * most {
                one / best - 1.0
            } else {
                0.0
            }
        };
        more(self.pace, best.pace, Self::SLOW).max(more(self.way, best.way, Self::FAR))
    }
}

/// A bit of work: eight sums that do not wait for one another.
fn bit() {
    let mut sums = [1_u64; 8];
    for number in 0..10_000_u64 {
        for sum in &mut sums {
            *sum = black_box(*sum ^ number);
        }
    }
}

/// Nanoseconds that a bit of work takes here and now, less what else comes in between.
fn pace() -> f64 {
    let timed = || {
        let started = Instant::now();
        bit();
        started.elapsed().as_nanos() as f64
    };
    (0..4).map(|_| timed()).fold(f64::INFINITY, f64::min)
}

/// Rounds of the ball between two looks at the clock, and looks.
const ROUNDS: u64 = 500;
const LOOKS: u64 = 6;

/// Nanoseconds until the ball, which counts up by one at each end, is back from the other CPU.
fn way(ball: &AtomicU64) -> f64 {
    let look = |look: u64| {
        let started = Instant::now();
        for round in look * ROUNDS..(look + 1) * ROUNDS {
            ball.store(2 * round + 1, Ordering::Release);
            wait_for(ball, 2 * round + 2);
        }
        started.elapsed().as_nanos() as f64 / ROUNDS as f64
    };
    (0..LOOKS).map(look).fold(f64::INFINITY, f64::min)
}

/// The other end of [`way`].
fn return_all(ball: &AtomicU64) {
    for round in 0..ROUNDS * LOOKS {
        wait_for(ball, 2 * round + 1);
        ball.store(2 * round + 2, Ordering::Release);
    }
}

fn wait_for(ball: &AtomicU64, count: u64) {
    while ball.load(Ordering::Acquire) != count {
        spin_loop();
    }
}

/// Those with no more disturbance than `most`; if they are fewer than `FEW`, so many of the least disturbed ones.
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

/// Keeps the node's CPU from going idle, for as long as it lives: what runs there at all takes precedence.
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

    /// What it takes of the node's CPU: what nobody else wants.
    pub(crate) fn clock(&self) -> Clock {
        Clock(format!("/proc/{}/schedstat", self.0.id()).into())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // It has no end of its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread whose times are taken.
pub(crate) struct Clock(PathBuf);

/// Nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) ran: u64,
    /// Was ready to run, and another one ran.
    pub(crate) waited: u64,
}

impl Clock {
    /// Of the calling thread; to be read by that one.
    pub(crate) fn own() -> Self {
        Self("/proc/thread-self/schedstat".into())
    }

    /// Of the calling thread, to be read by others.
    pub(crate) fn of_this_thread() -> Self {
        let (process, thread) = (std::process::id(), gettid());
        Self(format!("/proc/{process}/task/{thread}/schedstat").into())
    }

    /// Of the kernel's thread whose name begins so, which is pinned to the node's CPU and put first there. `None` if there is none.
    pub(crate) fn of_kernel(prefix: &str) -> Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let directory = entry?.path();
            let is_it = fs::read_to_string(directory.join("comm"))
                .is_ok_and(|name| name.trim_end().starts_with(prefix));
            let pid = directory
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let (true, Some(pid)) = (is_it, pid) {
                // Those of a CPU are pinned already, may not be, and work for everybody.
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

/// Nanoseconds that the hypervisor took from all CPUs so far; in steps of 10 ms.
pub(crate) fn stolen() -> Result<u64> {
    let text = read(Path::new("/proc/stat"))?;
    // `cpu user nice system idle iowait irq softirq steal ...`
    let steal = text.split_whitespace().nth(8).unwrap_or("0");
    Ok(steal.parse::<u64>()? * 10_000_000)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}
