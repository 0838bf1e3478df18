//! Effect of a flood on an authorized client: 500 connections a second during a million packets a
//! second.
//!
//! Flood and client share a CPU. The client takes precedence whenever it is runnable, and waits for
//! 16 frames at most. A connection lasts from `connect` until the client sees the socket as
//! writable.

use std::{
    net::SocketAddr,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nix::poll::{PollFd, PollFlags, ppoll};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    flood::{NODE, PORT, Pace},
    site::{Family, at},
};

use crate::{
    contender::{Contender, Kind, available},
    cpus::{self, Awake, Clock, Speed},
    flood::pairs,
    listener::Listener,
    numbers::thousands,
    progress::Progress,
    table::{Cell, Column, Table},
};

/// The contenders; all but the first and the last have 3,500 ranges.
const CONTENDERS: [Kind; 8] = [
    Kind::OneAddress,
    Kind::Apifence,
    Kind::Textbook,
    Kind::XdpFilter,
    Kind::NftIngress,
    Kind::IptablesRaw,
    Kind::NftInput,
    Kind::None,
];
const RANGES: usize = 3_500;
/// Rounds, and the extra rounds that make up for disturbed ones.
const ROUNDS: usize = 15;
const MORE: usize = 15;
/// Undisturbed rounds that each contender needs.
const ENOUGH: usize = 9;
/// A round is disturbed if other processes had more than this fraction of the two CPUs.
const DISTURBED: f64 = 0.05;
/// No round starts after this.
const LONGEST: Duration = Duration::from_secs(100);
/// Frames between two checks of the client: 10 ms.
const BURST: u32 = 10_000;
/// Interval between connections, and the time in which new ones are made.
const PACE: Duration = Duration::from_millis(2);
const LENGTH: Duration = Duration::from_millis(500);
/// A connection without an answer after this time has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the measurement.
pub(crate) fn run(short: bool) -> Result<Table> {
    let progress = Progress::new("service");
    let (wanted, mut notes) = available(&CONTENDERS, |kind| *kind);
    let pairs = pairs(wanted.len())?;
    let mut contenders = Vec::new();
    for (pair, kind) in pairs.iter().zip(wanted) {
        progress.show(format_args!("set up {}", kind.name()));
        let contender = Contender::new(kind, RANGES, pair)?;
        contenders.push((contender, Listener::new(pair.node())?));
    }
    let awake = Awake::new()?;
    let rest = awake.clock();
    let mut all = vec![Vec::<Round>::new(); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let (rounds, more) = if short { (1, 0) } else { (ROUNDS, MORE) };
    let length = if short { LENGTH / 5 } else { LENGTH };
    for round in 0..rounds + more {
        let undisturbed = |rounds: &&Vec<Round>| {
            let disturbed = |round: &&Round| round.disturbed <= DISTURBED;
            rounds.iter().filter(disturbed).count()
        };
        let marked = with_slow_ones_marked(&all);
        let all_have = marked.iter().all(|rounds| undisturbed(&rounds) >= ENOUGH);
        if round >= rounds && (all_have || progress.elapsed() > LONGEST) {
            break;
        }
        progress.round(round + 1, rounds);
        Rng::new().shuffle(&mut order);
        for &index in &order {
            let (contender, listener) = &contenders[index];
            all[index].push(measure(contender, [&listener.clock, &rest], length)?);
        }
    }
    let kept: Vec<Vec<Round>> = with_slow_ones_marked(&all)
        .iter()
        .map(|rounds| cpus::undisturbed(rounds, DISTURBED, |round| round.disturbed))
        .collect();
    let p50 = |rounds: &[Round]| Cell::from_numbers(rounds.iter().map(|round| round.p50).collect());
    let known = p50(&kept[0]).median;
    let rows = contenders
        .iter()
        .zip(&kept)
        .map(|((contender, _), rounds)| {
            let cell =
                |number: fn(&Round) -> f64| Cell::from_numbers(rounds.iter().map(number).collect());
            let cells = [
                cell(|round| round.success),
                cell(|round| round.rate),
                p50(rounds),
                Cell::from_numbers(vec![p50(rounds).median / known]),
                cell(|round| round.p99),
                cell(|round| round.flood),
                cell(|round| round.disturbed * 100.0),
            ];
            (contender.name.clone(), cells.map(Some).to_vec())
        });
    let (used, ran) = [&kept, &all]
        .map(|all| all.iter().map(Vec::len).sum::<usize>())
        .into();
    notes.push(format!(
        "{used} rounds of {length:?}, at least {} for each number; {} more were disturbed and are left out; a connection that takes \
         longer than {PATIENCE:?} has failed, and counts as that long; disturbed: the part of the two CPUs that \
         others had, or how much slower or further apart these were",
        kept.iter().map(Vec::len).min().unwrap_or(0),
        ran - used,
    ));
    Ok(Table {
        title: format!(
            "Service: 500 connects/s of an authorized client beside 1 Mpps of flood, IPv4, {} ranges; median (least to most)",
            thousands(RANGES)
        ),
        columns: vec![
            Column("success, %", 1),
            Column("connects/s", 0),
            Column("p50, ms", 3),
            Column("to one address", 2),
            Column("p99, ms", 3),
            Column("flood taken, Mpps", 2),
            Column("disturbed, %", 1),
        ],
        rows: rows.collect(),
        notes,
    })
}

/// Measurements of one round.
#[derive(Clone, Copy)]
struct Round {
    /// Connections made, in percent.
    success: f64,
    /// Connections per second.
    rate: f64,
    /// Milliseconds per connection.
    p50: f64,
    p99: f64,
    /// Millions of packets per second that the node took.
    flood: f64,
    disturbed: f64,
    /// Speed of both CPUs before and after the round, the slower of each.
    speed: Speed,
}

/// The rounds, with those also counted as disturbed during which a CPU was slower or further away
/// than its best.
fn with_slow_ones_marked(all: &[Vec<Round>]) -> Vec<Vec<Round>> {
    let best = Speed::best(all.iter().flatten().map(|round| round.speed));
    let mut all = all.to_vec();
    for round in all.iter_mut().flatten() {
        round.disturbed = round.disturbed.max(round.speed.disturbance(best));
    }
    all
}

fn speed() -> Result<Speed> {
    Ok(Speed::measure_node()?.or_slower(Speed::measure(cpus::GENERATOR)?))
}

fn measure(who: &Contender<'_>, shared: [&Clock; 2], length: Duration) -> Result<Round> {
    let pair = who.pair;
    let queue = Clock::of_kernel(&format!("napi/{}", pair.interface()))?
        .context("the node's receive queue has no thread of its own")?;
    pair.flood(Family::V4, Pace::Mpps, |flood| {
        let early = speed()?;
        cpus::pin(0, cpus::GENERATOR)?;
        let generator = Clock::of_this_thread();
        thread::scope(|scope| {
            // In the namespace and on the CPU of this thread.
            let client = scope.spawn(|| -> Result<_> {
                cpus::go_first()?;
                let own = Clock::own();
                let read = || -> Result<_> {
                    let clocks = [&own, &generator, &queue, shared[0], shared[1]];
                    let mut ran = 0;
                    for clock in clocks {
                        ran += clock.read()?.ran;
                    }
                    Ok((ran, pair.taken()?))
                };
                let before = read()?;
                let started = Instant::now();
                let times = connects(length)?;
                let lasted = started.elapsed().as_secs_f64();
                let after = read()?;
                Ok((times, lasted, after.0 - before.0, after.1 - before.1))
            });
            while !client.is_finished() {
                flood.send(BURST)?;
            }
            let (times, lasted, ran, taken) = client.join().expect("the client does not panic")?;
            let speed = early.or_slower(speed()?);
            Ok(round(times, length, lasted, ran, taken, speed))
        })
    })
}

/// Result of a round: `lasted` in seconds, `ran` the CPU nanoseconds of our own threads on both
/// CPUs, `taken` frames of the flood.
fn round(
    mut times: Vec<Duration>,
    length: Duration,
    lasted: f64,
    ran: u64,
    taken: u64,
    speed: Speed,
) -> Round {
    times.sort_unstable();
    let made = times.iter().filter(|time| **time < PATIENCE).count() as f64;
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    Round {
        success: made / times.len() as f64 * 100.0,
        rate: made / length.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        flood: taken as f64 / lasted / 1e6,
        disturbed: (1.0 - ran as f64 / 1e9 / lasted / 2.0).max(0.0),
        speed,
    }
}

/// The time of each connection; a failed one counts the whole limit.
fn connects(length: Duration) -> Result<Vec<Duration>> {
    let target = at(NODE[0], PORT);
    let started = Instant::now();
    let mut waiting: Vec<(Instant, Socket)> = Vec::new();
    let mut times = Vec::new();
    let mut begun = 0_u32;
    loop {
        let elapsed = started.elapsed();
        let next = PACE * begun;
        if next < length && elapsed >= next {
            begun += 1;
            waiting.push((Instant::now(), connect(target)?));
        } else if next >= length && waiting.is_empty() {
            return Ok(times);
        }
        let rest = match PACE * begun {
            next if next < length => next.saturating_sub(started.elapsed()),
            _ => PACE,
        };
        answered(&mut waiting, &mut times, rest)?;
    }
}

/// Waits for one connection to be made, but no longer than the limit. Moves those that are made or
/// timed out from one queue to the other.
fn answered(
    waiting: &mut Vec<(Instant, Socket)>,
    times: &mut Vec<Duration>,
    longest: Duration,
) -> Result<()> {
    let ready: Vec<bool> = {
        let mut polled: Vec<_> = waiting
            .iter()
            .map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
            .collect();
        ppoll(&mut polled, Some(longest.into()), None)?;
        polled.iter().map(|fd| fd.any().unwrap_or(false)).collect()
    };
    let mut ready = ready.into_iter();
    waiting.retain(|(begun, socket)| {
        let time = begun.elapsed();
        let done = ready.next().unwrap_or(false);
        if done {
            let refused = !matches!(socket.take_error(), Ok(None));
            times.push(if refused {
                PATIENCE
            } else {
                time.min(PATIENCE)
            });
        } else if time >= PATIENCE {
            times.push(PATIENCE);
        }
        !done && time < PATIENCE
    });
    Ok(())
}

fn connect(target: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Closing sends a reset, which leaves no state.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(socket)
}
