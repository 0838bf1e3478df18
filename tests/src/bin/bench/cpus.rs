//! Who runs where, for how long, and who was in the way.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
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

/// How long a CPU takes for a bit of work, in nanoseconds. It takes up to twice as long while somebody else uses the other half of a core that the
/// machine below has divided, which no account of time shows.
pub(crate) fn pace(cpu: usize) -> Result<f64> {
    pin(0, cpu)?;
    let bit = || {
        let started = Instant::now();
        // Eight sums that do not wait for one another.
        let mut sums = [1_u64; 8];
        for number in 0..40_000_u64 {
            for sum in &mut sums {
                *sum = black_box(*sum ^ number);
            }
        }
        started.elapsed().as_nanos() as f64
    };
    Ok((0..4).map(|_| bit()).fold(f64::INFINITY, f64::min))
}

/// A measurement during which a CPU was slower than this many times its best is disturbed.
const SLOW: f64 = 1.15;

/// How much a measurement was disturbed at a CPU's `pace`, where `best` is that of the fastest measurement.
pub(crate) fn slowed(pace: f64, best: f64) -> f64 {
    if pace > best * SLOW {
        pace / best - 1.0
    } else {
        0.0
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
            std::thread::available_parallelism()?.get() > NODE,
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
