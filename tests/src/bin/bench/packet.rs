//! What a packet costs in the loaded program, beside a bare `XDP_DROP`.
//!
//! `BPF_PROG_TEST_RUN` repeats the program on one frame and tells the mean; its own wrapper is in every number, in the bare
//! program's too.

use std::time::Duration;

use crate::median;
use anyhow::{Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use tests::{
    foreign::{DROP, Foreign, PASS},
    netns::Namespace,
    packets::ethernet,
    table::{Rules, Who, loaded::Filter, v4, v6},
};

/// Rounds; each contender runs once a round.
const ROUNDS: usize = 21;
/// Repetitions in a run.
const REPEAT: u32 = 1_000_000;

/// A program on a frame.
struct Contender<'a> {
    name: &'static str,
    program: &'a Xdp,
    frame: Vec<u8>,
    action: u8,
    /// Nanoseconds a packet, one number a round.
    cost: Vec<f64>,
}

/// Measures and prints the table.
pub(crate) fn run() -> Result<()> {
    let namespace = Namespace::new("bench")?;
    let filter = Filter::attach(&namespace, Rules::Enforce)?;
    let mut bare = Foreign::with_action(DROP)?;
    let ours = filter.program();
    let bare: &Xdp = bare.program()?;

    let stranger = v4(Who::Stranger);
    let contender = |name, program, frame: Vec<u8>, action| Contender {
        name,
        program,
        frame,
        action,
        cost: Vec::new(),
    };
    let mut contenders = [
        contender(
            "bare XDP_DROP",
            bare,
            stranger.clone().syn(40_000, 6443).frame(),
            DROP,
        ),
        contender(
            "drop, IPv4",
            ours,
            stranger.clone().syn(40_000, 6443).frame(),
            DROP,
        ),
        contender(
            "drop, IPv6",
            ours,
            v6(Who::Stranger).syn(40_000, 6443).frame(),
            DROP,
        ),
        contender(
            "pass, IPv4, authorized",
            ours,
            v4(Who::Listed).syn(40_000, 6443).frame(),
            PASS,
        ),
        contender(
            "pass, IPv6, authorized",
            ours,
            v6(Who::Listed).syn(40_000, 6443).frame(),
            PASS,
        ),
        contender(
            "pass, IPv4, other port",
            ours,
            stranger.clone().syn(40_000, 80).frame(),
            PASS,
        ),
        contender(
            "pass, IPv4, not TCP",
            ours,
            stranger.datagram(40_000, 6443, &[0; 18]).frame(),
            PASS,
        ),
        contender("pass, ARP", ours, ethernet::typed(0x0806, &[0; 46]), PASS),
    ];
    let count = contenders.len();
    for round in 0..ROUNDS {
        eprint!("\rround {} of {ROUNDS}", round + 1);
        // Nobody is always first.
        for index in 0..count {
            let contender = &mut contenders[(round + index) % count];
            let cost = test_run(
                contender.program,
                &contender.frame,
                REPEAT,
                contender.action,
            )?;
            contender.cost.push(cost.as_secs_f64() * 1e9);
        }
    }
    eprintln!();

    for contender in &mut contenders {
        contender.cost.sort_by(f64::total_cmp);
    }
    let floor = median(&contenders[0].cost);
    println!(
        "packets: {ROUNDS} rounds of {REPEAT} runs, {} ranges; nanoseconds a packet, the wrapper of",
        Rules::Enforce.ranges().len()
    );
    println!("BPF_PROG_TEST_RUN included in every number");
    println!();
    println!(
        "{:<24} {:>7} {:>7} {:>7} {:>9}",
        "", "median", "least", "most", "to bare"
    );
    for Contender { name, cost, .. } in &contenders {
        println!(
            "{name:<24} {:>7.0} {:>7.0} {:>7.0} {:>8.1}x",
            median(cost),
            cost[0],
            cost[cost.len() - 1],
            median(cost) / floor
        );
    }
    Ok(())
}

/// The mean of `repeat` runs of a program on a frame, which must come to `action` each time.
pub(crate) fn test_run(program: &Xdp, frame: &[u8], repeat: u32, action: u8) -> Result<Duration> {
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat,
        ..TestRunOptions::new()
    })?;
    ensure!(
        result.return_value == u32::from(action),
        "action {} came back instead of {action}",
        result.return_value
    );
    Ok(result.duration)
}
