//! What a packet from nobody and one from somebody costs, by the length of the list: `apifence`, and the same with its table switched
//! off, so that a plain LPM trie answers; beside a bare `XDP_DROP`, whose own cost is taken off.
//!
//! `BPF_PROG_TEST_RUN` repeats one frame: what it touches stays in the cache. So each number is over some sources.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use aya::programs::Xdp;
use fastrand::Rng;
use ipnet::IpNet;
use tests::{
    cli::Apifence,
    foreign::{DROP, Foreign, PASS},
    front::{Front, inside, list, near, set, syn},
    netns::Namespace,
    table::loaded::{Filter, INTERFACE, add_interface},
};

use crate::{median, packet::test_run};

/// Ranges of a list, half of them IPv6; the first one has one range in each family.
const SIZES: [usize; 4] = [2, 3_500, 100_000, 1_000_000];
/// Rounds for a list; each contender runs once a round.
const ROUNDS: usize = 5;
/// Sources of a kind, each in a run of its own.
const SOURCES: usize = 12;
/// Repetitions in a run.
const REPEAT: u32 = 50_000;

/// Where sources come from.
#[derive(Clone, Copy)]
enum Kind {
    /// Anywhere, but from no range.
    Miss,
    /// From beside a range.
    Near,
    /// From a range.
    Hit,
}

/// A kind of sources of a family, as frames, and what they cost with the table and without.
struct Case {
    name: String,
    frames: Vec<Vec<u8>>,
    action: u8,
    cost: [Vec<f64>; 2],
}

/// Measures and prints the table.
pub(crate) fn run() -> Result<()> {
    let namespace = Namespace::new("bench")?;
    add_interface(&namespace)?;
    let apifence = Apifence::new(&namespace)?;
    apifence.ok(&[
        "attach",
        "--interface",
        INTERFACE,
        "--max-ranges",
        "1000000",
        "--no-node-addresses",
        "--authorized-ip-ranges",
        "0.0.0.0/32",
    ])?;
    let filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let mut front = Front::open(&apifence)?;
    let mut bare = Foreign::with_action(DROP)?;
    let bare = bare.program()?;

    println!(
        "lists: {ROUNDS} rounds of {SOURCES} sources and {REPEAT} runs each; nanoseconds above a bare XDP_DROP; median (least to most)"
    );
    println!();
    println!("{:<34} {:>20} {:>24}", "", "apifence", "its trie alone");
    let mut rng = Rng::with_seed(6443);
    for size in SIZES {
        let list = list(size, &mut rng);
        set(&apifence, &list)?;
        let mut cases = cases(&list, &mut rng);
        for round in 0..ROUNDS {
            eprint!("\r{size} ranges: round {} of {ROUNDS} ", round + 1);
            let floor = cost(bare, &cases[0].frames, DROP)?;
            for turn in 0..2 {
                let contender = (round + turn) % 2;
                let off = match contender {
                    0 => None,
                    _ => Some(front.switch_off()?),
                };
                for case in &mut cases {
                    let cost = cost(filter.program(), &case.frames, case.action)?;
                    case.cost[contender].push(cost - floor);
                }
                off.map_or(Ok(()), |off| front.switch_on(off))?;
            }
        }
        eprintln!();
        for case in &mut cases {
            print(size, case);
        }
    }
    Ok(())
}

/// The mean cost of a frame, in nanoseconds.
fn cost(program: &Xdp, frames: &[Vec<u8>], action: u8) -> Result<f64> {
    let mut sum = 0.0;
    for frame in frames {
        sum += test_run(program, frame, REPEAT, action)?.as_secs_f64() * 1e9;
    }
    Ok(sum / frames.len() as f64)
}

fn cases(list: &[IpNet], rng: &mut Rng) -> Vec<Case> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let holds = |address: IpAddr| {
        let lens = 0..=IpNet::from(address).prefix_len();
        lens.map(|len| IpNet::new_assert(address, len).trunc())
            .any(|range| sorted.binary_search(&range).is_ok())
    };
    let mut cases = Vec::new();
    for (family, name) in [(0, "IPv4"), (1, "IPv6")] {
        let ranges: Vec<IpNet> = list.iter().skip(family).step_by(2).copied().collect();
        for (kind, word) in [
            (Kind::Miss, "miss"),
            (Kind::Near, "near"),
            (Kind::Hit, "hit"),
        ] {
            // Ranges longer than the block that a near one shares with them, as far as there are any.
            let block = [24, 48][family];
            let long: Vec<IpNet> = ranges
                .iter()
                .filter(|range| range.prefix_len() > block)
                .copied()
                .collect();
            let long = if long.is_empty() { &ranges } else { &long };
            let source = || {
                let range = |ranges: &[IpNet], rng: &mut Rng| ranges[rng.usize(..ranges.len())];
                match (kind, family) {
                    (Kind::Miss, 0) => Ipv4Addr::from(rng.u32(0x0100_0000..0xdf00_0000)).into(),
                    (Kind::Miss, _) => Ipv6Addr::from(0x2 << 124 | rng.u128(..) >> 4).into(),
                    (Kind::Near, _) => near(range(long, rng), rng),
                    (Kind::Hit, _) => inside(range(&ranges, rng), rng),
                }
            };
            let wanted = |address: &IpAddr| holds(*address) == matches!(kind, Kind::Hit);
            let sources = iter::repeat_with(source).filter(wanted).take(SOURCES);
            cases.push(Case {
                name: format!("{name}, {word}"),
                frames: sources.map(syn).collect(),
                action: if matches!(kind, Kind::Hit) {
                    PASS
                } else {
                    DROP
                },
                cost: [const { Vec::new() }; 2],
            });
        }
    }
    cases
}

fn print(size: usize, case: &mut Case) {
    print!("{:<34}", format!("{size} ranges, {}", case.name));
    for cost in &mut case.cost {
        cost.sort_by(f64::total_cmp);
        let all = format!(
            "{:.0} ({:.0} to {:.0})",
            median(cost),
            cost[0],
            cost[cost.len() - 1]
        );
        print!(" {all:>22}");
    }
    println!();
}
