//! Frames of a flood per second that a node handles, and the CPU time of each.
//!
//! Contenders are measured in slices of 90 ms, one each per round, in shuffled order. A slice
//! counts the frames that the node takes off its ring (the interface's counter of received
//! packets), whatever happens to them then: XDP or nftables drops them, or the stack answers. The
//! thread of the node's receive queue does the work, pinned to a CPU of its own; its CPU time is
//! the cost. Slices start with a window of the report budget and end within it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use filter_common::layout::REPORT_WINDOW_SHIFT;
use nix::sys::socket::{SockaddrIn, bind};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    flood::{Flood, NODE, PORT, Pace, UNLISTED, VethPair},
    site::Family,
};

use crate::{
    contender::{Contender, Kind, available, now},
    cpus::{self, Awake, Clock, Speed},
    listener::Listener,
    progress::Progress,
    table::{Cell, Column, Table},
};

/// The contenders, and the number of ranges of each.
const CONTENDERS: [(Kind, usize); 14] = [
    (Kind::Bare, 0),
    (Kind::Parse, 0),
    (Kind::Apifence, 1),
    (Kind::Apifence, 3_500),
    (Kind::Apifence, 100_000),
    (Kind::Apifence, 1_000_000),
    (Kind::ApifenceSilent, 3_500),
    (Kind::ApifenceWatched, 3_500),
    (Kind::Textbook, 3_500),
    (Kind::XdpFilter, 3_500),
    (Kind::NftIngress, 3_500),
    (Kind::IptablesRaw, 3_500),
    (Kind::NftInput, 3_500),
    (Kind::None, 0),
];

/// Rounds, and the extra rounds that make up for disturbed slices.
const ROUNDS: usize = 9;
const MORE: usize = 9;
/// Undisturbed slices that each contender needs.
const ENOUGH: usize = 5;
/// A slice is disturbed if generator or node was off its CPU for more than this fraction of it.
const DISTURBED: f64 = 0.02;
/// Ranges of the longest list in a short run.
const MOST_IN_SHORT: usize = 3_500;
/// No round starts after this.
const LONGEST: Duration = Duration::from_secs(150);
/// Length of a slice, and its delay after the start of a window. Both are well within the window's
/// 134 ms, although the kernel's coarse clock is up to 10 ms late.
const SLICE: Duration = Duration::from_millis(90);
const AFTER: u64 = 12_000_000;
/// Frames between two readings of the clock: some milliseconds. The kernel makes the frames of each
/// burst again, while the node is idle.
const BURST: u32 = 65_536;

/// Measurements of one slice.
#[derive(Clone, Copy)]
struct Slice {
    /// Millions of packets a second.
    rate: f64,
    /// Nanoseconds of the node's CPU a packet.
    cost: f64,
    /// Percentage of the sent frames for which the node's ring had no room.
    lost: f64,
    /// Fraction of the slice that other processes took.
    disturbed: f64,
    /// Speed before and after the slice, the slower of each.
    speed: Speed,
}

/// Runs the measurement.
pub(crate) fn run(short: bool) -> Result<Table> {
    let progress = Progress::new("flood");
    let (wanted, mut notes) = available(&CONTENDERS, |contender| contender.0);
    let pairs = pairs(wanted.len())?;
    let mut contenders = Vec::new();
    for (pair, (kind, ranges)) in pairs.iter().zip(&wanted) {
        let ranges = if short {
            *ranges.min(&MOST_IN_SHORT)
        } else {
            *ranges
        };
        progress.show(format_args!("set up {}", kind.name()));
        contenders.push(Contender::new(*kind, ranges, pair)?);
    }
    let _listener = Listener::new(pairs.last().context("there are contenders")?.node())?;
    let _awake = Awake::new()?;
    let mut slices = vec![[const { Vec::<Slice>::new() }; 2]; contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let (rounds, more) = if short { (1, 0) } else { (ROUNDS, MORE) };
    for round in 0..rounds + more {
        let all_have = with_slow_ones_marked(&slices)
            .iter()
            .flatten()
            .all(|slices| undisturbed(slices) >= ENOUGH);
        if round >= rounds && (all_have || progress.elapsed() > LONGEST) {
            break;
        }
        progress.round(round + 1, rounds);
        Rng::new().shuffle(&mut order);
        for &index in &order {
            if round == 0 && contenders[index].kind == Kind::ApifenceWatched {
                lone_syn(contenders[index].pair)?;
            }
            for family in Family::BOTH {
                let slice = measure(&mut contenders[index], family)?;
                slices[index][family as usize].push(slice);
            }
        }
    }
    for contender in &mut contenders {
        watched(contender, &mut notes)?;
    }
    Ok(table(&contenders, &with_slow_ones_marked(&slices), notes))
}

/// A link for each contender.
pub(crate) fn pairs(count: usize) -> Result<Vec<VethPair>> {
    // The name of the kernel thread contains that of the interface, and other links may exist.
    let id = std::process::id();
    (0..count)
        .map(|number| VethPair::new(&format!("b{id}x{number:02}"), true))
        .collect()
}

fn measure(contender: &mut Contender<'_>, family: Family) -> Result<Slice> {
    let pair = contender.pair;
    // Attaching a program may start a new thread, so it is looked up each time.
    let queue = Clock::of_kernel(&format!("napi/{}", pair.interface()))?
        .context("the node's receive queue has no thread of its own")?;
    let soft = Clock::of_kernel(&format!("ksoftirqd/{}", cpus::NODE))?;
    pair.flood(family, Pace::Full, |flood| {
        let early = Speed::measure_node()?;
        cpus::pin(0, cpus::GENERATOR)?;
        let before = contender.reported()?;
        wait_for_a_window()?;
        contender.prepare()?;
        let slice = slice(flood, pair, &queue, soft.as_ref(), early)?;
        // Reports without a budget: the slice began too late and ran into the next window.
        let on_time = before == contender.reported()?;
        Ok(Slice {
            disturbed: if on_time { slice.disturbed } else { 1.0 },
            speed: slice.speed.or_slower(Speed::measure_node()?),
            ..slice
        })
    })
}

fn slice(
    flood: &Flood<'_>,
    pair: &VethPair,
    queue: &Clock,
    soft: Option<&Clock>,
    speed: Speed,
) -> Result<Slice> {
    let own = Clock::own();
    let read = || -> Result<_> {
        let soft = soft.map_or(Ok(Default::default()), Clock::read)?;
        Ok((own.read()?, queue.read()?, soft, cpus::stolen()?))
    };
    let taken = pair.taken()?;
    let before = read()?;
    let started = Instant::now();
    let (mut sent, mut speed) = (0.0, speed);
    while started.elapsed() < SLICE {
        flood.send(BURST)?;
        sent += f64::from(BURST);
        speed = speed.or_slower_by_now();
    }
    let taken = (pair.taken()? - taken) as f64;
    let time = started.elapsed().as_nanos() as f64;
    let after = read()?;
    let busy = after.1.ran - before.1.ran + after.2.ran - before.2.ran;
    let waited = after.0.waited - before.0.waited + after.1.waited - before.1.waited;
    Ok(Slice {
        rate: taken / time * 1e3,
        cost: busy as f64 / taken.max(1.0),
        lost: (1.0 - taken / sent).max(0.0) * 100.0,
        disturbed: (waited + after.3 - before.3) as f64 / time,
        speed,
    })
}

/// Waits until a window of the report budget has just started.
fn wait_for_a_window() -> Result<()> {
    let length = 1 << REPORT_WINDOW_SHIFT;
    let past = (now()? - AFTER) % length;
    std::thread::sleep(Duration::from_nanos(length - past));
    Ok(())
}

/// The slices, with those also counted as disturbed during which the node's CPU was slower or
/// further away than its best.
fn with_slow_ones_marked(slices: &[[Vec<Slice>; 2]]) -> Vec<[Vec<Slice>; 2]> {
    let best = Speed::best(slices.iter().flatten().flatten().map(|slice| slice.speed));
    let mut slices = slices.to_vec();
    for slice in slices.iter_mut().flatten().flatten() {
        slice.disturbed = slice.disturbed.max(slice.speed.disturbance(best));
    }
    slices
}

fn kept(slices: &[Slice]) -> Vec<Slice> {
    cpus::undisturbed(slices, DISTURBED, |slice| slice.disturbed)
}

fn undisturbed(slices: &[Slice]) -> usize {
    slices
        .iter()
        .filter(|slice| slice.disturbed <= DISTURBED)
        .count()
}

/// Sends one SYN from an unused source just before the flood.
fn lone_syn(pair: &VethPair) -> Result<()> {
    pair.client().run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        let source: std::net::Ipv4Addr = UNLISTED.parse()?;
        let address = std::net::SocketAddrV4::new(source, 0);
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &SockaddrIn::from(address),
        )?;
        let target = std::net::SocketAddrV4::new(NODE[0].parse()?, PORT);
        // The SYN is on its way when the call returns; no host answers it.
        let _ = socket.connect(&std::net::SocketAddr::from(target).into());
        Ok(())
    })
}

/// Measures the contender with `run`: its memory, and the single SYN in its log.
fn watched(contender: &mut Contender<'_>, notes: &mut Vec<String>) -> Result<()> {
    let Some(run) = &mut contender.run else {
        return Ok(());
    };
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid()))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no `VmHWM` in `status`")?;
    notes.push(format!(
        "`apifence run` beside the floods: at most {} of memory",
        peak.trim()
    ));
    let logged = run.line(|line| line.contains(UNLISTED));
    notes.push(match logged {
        Ok(line) => format!("one SYN before them is in its log: `{}`", line.trim()),
        Err(_) => "one SYN before them is NOT in its log".to_owned(),
    });
    Ok(())
}

fn table(
    contenders: &[Contender<'_>],
    slices: &[[Vec<Slice>; 2]],
    mut notes: Vec<String>,
) -> Table {
    let cell = |row: usize, family: usize, number: fn(&Slice) -> f64| {
        Cell::from_numbers(kept(&slices[row][family]).iter().map(number).collect())
    };
    let rate = |row, family| cell(row, family, |slice| slice.rate);
    let rows: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(row, contender)| {
            let cells = [0, 1].into_iter().flat_map(|family| {
                let to_bare = rate(row, family).median / rate(0, family).median;
                let lost = cell(row, family, |slice| slice.lost).median;
                [
                    rate(row, family),
                    Cell::from_numbers(vec![to_bare]),
                    cell(row, family, |slice| slice.cost),
                    Cell::from_numbers(vec![lost]),
                ]
            });
            (contender.name.clone(), cells.map(Some).collect::<Vec<_>>())
        })
        .collect();
    let find = |kind| {
        contenders
            .iter()
            .position(|contender| contender.kind == kind)
    };
    if let (Some(off), Some(on)) = (find(Kind::ApifenceSilent), find(Kind::ApifenceWatched)) {
        for (column, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
            let ratio = rate(on, column).median / rate(off, column).median;
            notes.push(format!(
                "{family}: with reports and `run` beside, {ratio:.2} of the rate without reports"
            ));
        }
    }
    let all: usize = slices.iter().flatten().map(Vec::len).sum();
    let kept = || slices.iter().flatten().map(|slices| kept(slices).len());
    let used: usize = kept().sum();
    notes.push(format!(
        "{used} slices of {SLICE:?}, at least {} for each number; {} more were disturbed and are left out",
        kept().min().unwrap_or(0),
        all - used
    ));
    Table {
        title: "Flood: millions of packets a second that the node takes, the same to bare XDP_DROP, nanoseconds of its CPU \
                for each, and what the generator sent in vain; 3,500 ranges unless said; median (least to most)"
            .to_owned(),
        columns: vec![
            Column("IPv4 Mpps", 2),
            Column("to bare", 2),
            Column("ns", 0),
            Column("lost, %", 0),
            Column("IPv6 Mpps", 2),
            Column("to bare", 2),
            Column("ns", 0),
            Column("lost, %", 0),
        ],
        rows,
        notes,
    }
}
