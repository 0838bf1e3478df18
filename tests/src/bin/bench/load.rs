//! Cost of loading the program: instructions that the verifier processes, and the time until the
//! program is on an interface.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tests::{
    cli::Apifence,
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
};

use crate::table::{Cell, Column, Table};

/// Loads it `rounds` times, each time onto an interface without a filter.
pub(crate) fn run(short: bool) -> Result<Vec<Table>> {
    let rounds = if short { 1 } else { 7 };
    let node = Namespace::new("bench")?;
    add_interface(&node)?;
    let ifindex = node.ifindex(INTERFACE)?;
    let apifence = Apifence::new(&node)?;
    let (mut instructions, mut milliseconds) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        apifence.ok(&[
            "attach",
            "--interface",
            INTERFACE,
            "--authorized-ip-ranges",
            "192.0.2.1",
        ])?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
        let info = Filter::open(&apifence, ifindex)?.program().info()?;
        let verified = info
            .verified_instruction_count()
            .context("the kernel does not say how many instructions it verified")?;
        instructions.push(f64::from(verified));
        apifence.ok(&["detach"])?;
    }
    Ok(vec![Table {
        title: "Load: `apifence attach` with one range; median (least to most)".to_owned(),
        columns: vec![
            Column("instructions verified", 0),
            Column("milliseconds", 0),
        ],
        rows: vec![(
            "apifence".to_owned(),
            [instructions, milliseconds]
                .map(|numbers| Some(Cell::from_numbers(numbers)))
                .into(),
        )],
        notes: vec!["the verifier gives up beyond 1,000,000 instructions".to_owned()],
    }])
}
