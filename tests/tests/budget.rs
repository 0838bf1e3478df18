//! How much of the verifier's budget the program takes.

use anyhow::{Context as _, Result};
use tests::{
    cli::Apifence,
    netns::Namespace,
    table::loaded::{Filter, INTERFACE, add_interface},
};

/// The verifier gives up beyond this many instructions (`BPF_COMPLEXITY_LIMIT_INSNS` in `include/linux/bpf.h`).
const LIMIT: u32 = 1_000_000;

const ATTACH: [&str; 4] = [
    "--interface",
    INTERFACE,
    "--authorized-ip-ranges",
    "192.0.2.1",
];

fn verified(apifence: &Apifence<'_>, node: &Namespace) -> Result<u32> {
    Filter::open(apifence, node.ifindex(INTERFACE)?)?
        .program()
        .info()?
        .verified_instruction_count()
        .context("the kernel does not say how many instructions it verified")
}

/// The other half is for other kernels, whose verifiers go through more states of the same program.
#[test]
fn the_program_takes_less_than_half_of_the_verifiers_budget() -> Result<()> {
    let node = Namespace::new("node")?;
    add_interface(&node)?;
    let apifence = Apifence::new(&node)?;

    apifence.ok(&[&["attach"], &ATTACH[..]].concat())?;
    let silent = verified(&apifence, &node)?;
    apifence.ok(&["detach"])?;

    let mut daemon = apifence.start(&[&["run", "-v"], &ATTACH[..]].concat())?;
    daemon.line(|line| line.contains("guarding"))?;
    let logging = verified(&apifence, &node)?;

    println!("{silent} instructions verified, {logging} with the log");
    assert!(silent < logging, "the log is not on, or costs nothing");
    assert!(
        logging < LIMIT / 2,
        "{silent} instructions verified, {logging} with the log: the limit is {LIMIT}"
    );
    Ok(())
}
