//! What an authorized client notices of a flood: 500 connections a second beside a million packets a second.
//!
//! Flood and client take turns on one thread, so that neither waits for the other: 64 frames, then whatever the client has to do.
//! A connection counts from `connect` to the moment that the socket can be written to.

use std::{
    net::SocketAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    flood::{Flood, NODE, PORT},
    site::{Family, at},
};

use crate::{
    contender::{Contender, Kind},
    cpus::{self, Awake, Clock},
    flood::roads,
    listener::Listener,
    table::{Cell, Column, Table},
};

/// Who; all but the first and the last with 3,500 ranges.
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
const ROUNDS: usize = 5;
/// Frames a second.
const RATE: f64 = 1e6;
/// Frames at a time: the ring has room for four times as many.
const STEP: u32 = 64;
/// Time between two connections, and for how long there are new ones.
const PACE: Duration = Duration::from_millis(2);
const LENGTH: Duration = Duration::from_secs(2);
/// What has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures.
pub(crate) fn run() -> Result<Table> {
    let roads = roads(CONTENDERS.len())?;
    let mut contenders = Vec::new();
    let mut listeners = Vec::new();
    for (road, kind) in roads.iter().zip(CONTENDERS) {
        eprint!("\rservice: set up {:<40}", kind.name());
        contenders.push(Contender::new(kind, RANGES, road)?);
        listeners.push(Listener::new(road.node())?);
    }
    let _awake = Awake::new()?;
    let mut rounds = vec![Vec::<Round>::new(); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..ROUNDS {
        eprint!("\rservice: round {} of {ROUNDS} {:<30}", round + 1, "");
        Rng::new().shuffle(&mut order);
        for &index in &order {
            rounds[index].push(measure(&contenders[index])?);
        }
    }
    eprintln!();
    let rows = contenders.iter().zip(&rounds).map(|(contender, rounds)| {
        let cell = |number: fn(&Round) -> f64| Cell::of(rounds.iter().map(number).collect());
        let cells = vec![
            cell(|round| round.success),
            cell(|round| round.rate),
            cell(|round| round.p50),
            cell(|round| round.p99),
            cell(|round| round.flood),
            cell(|round| round.disturbed * 100.0),
        ];
        (contender.name.clone(), cells)
    });
    Ok(Table {
        title: "Service: 500 connects/s of an authorized client beside 1 Mpps of flood, IPv4, 3,500 ranges; median (least to most)"
            .to_owned(),
        columns: vec![
            Column("success, %", 1),
            Column("connects/s", 0),
            Column("p50, ms", 3),
            Column("p99, ms", 2),
            Column("flood taken, Mpps", 2),
            Column("disturbed, %", 1),
        ],
        rows: rows.collect(),
        notes: vec![format!(
            "{ROUNDS} rounds of {LENGTH:?}, shuffled; a connection that takes longer than {PATIENCE:?} has failed, and counts as that \
             long; disturbed: the part of the time that other processes kept generator or node from their CPUs"
        )],
    })
}

/// What a round gave.
#[derive(Clone, Copy)]
struct Round {
    /// Connections made, of 100.
    success: f64,
    /// Connections made, a second.
    rate: f64,
    /// Milliseconds to a connection.
    p50: f64,
    p99: f64,
    /// Millions of packets a second that the node took.
    flood: f64,
    disturbed: f64,
}

fn measure(contender: &Contender<'_>) -> Result<Round> {
    let road = contender.road;
    let queue = Clock::of_kernel(&format!("napi/{}", road.interface()))?
        .context("the node's receive queue has no thread of its own")?;
    road.flood(Family::V4, |flood| {
        cpus::pin(0, cpus::GENERATOR)?;
        let own = Clock::own();
        let before = (own.read()?, queue.read()?, road.taken()?);
        let started = Instant::now();
        let mut times = connects(flood)?;
        let length = started.elapsed().as_secs_f64();
        let after = (own.read()?, queue.read()?, road.taken()?);
        times.sort_unstable();
        let made = times.iter().filter(|time| **time < PATIENCE).count() as f64;
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
        let waited = after.0.waited - before.0.waited + after.1.waited - before.1.waited;
        Ok(Round {
            success: made / times.len() as f64 * 100.0,
            rate: made / LENGTH.as_secs_f64(),
            p50: at(50),
            p99: at(99),
            flood: (after.2 - before.2) as f64 / length / 1e6,
            disturbed: waited as f64 / 1e9 / length,
        })
    })
}

/// The time that each connection took; the failed ones took all the time there was.
fn connects(flood: &Flood<'_>) -> Result<Vec<Duration>> {
    let target = at(NODE[0], PORT);
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut waiting: Vec<(Instant, Socket)> = Vec::new();
    let mut times = Vec::new();
    let mut begun = 0_u32;
    loop {
        let elapsed = started.elapsed();
        if (elapsed.as_secs_f64() * RATE) as u64 >= sent + u64::from(STEP) {
            flood.send(STEP)?;
            sent += u64::from(STEP);
        }
        if elapsed < LENGTH && elapsed >= PACE * begun {
            begun += 1;
            waiting.push((Instant::now(), connect(target)?));
        }
        if !waiting.is_empty() {
            answered(&mut waiting, &mut times)?;
        } else if elapsed >= LENGTH {
            return Ok(times);
        }
    }
}

/// Moves those that are through, or have waited too long, from one to the other.
fn answered(waiting: &mut Vec<(Instant, Socket)>, times: &mut Vec<Duration>) -> Result<()> {
    let ready: Vec<bool> = {
        let mut polled: Vec<_> = waiting
            .iter()
            .map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
            .collect();
        poll(&mut polled, PollTimeout::ZERO)?;
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
    // Its end is a reset, and leaves nothing behind.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(socket)
}
