//! The program's part of the verifier's budget.

use anyhow::{Context as _, Result};
use tests::{
    cli::Apifence,
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
};

/// The verifier gives up beyond this many instructions (`BPF_COMPLEXITY_LIMIT_INSNS` in
/// `include/linux/bpf.h`).
const LIMIT: u32 = 1_000_000;

/// A device whose frames start with the IP header.
const HEADLESS: &str = "headless";

fn verified(apifence: &Apifence, node: &Namespace, interface: &str) -> Result<u32> {
    Filter::open(apifence, node.ifindex(interface)?)?
        .program()
        .info()?
        .verified_instruction_count()
        .context("the kernel does not say how many instructions it verified")
}

/// The other half is for other kernels, whose verifiers process more states of the same program.
#[test]
fn the_programs_take_less_than_half_of_the_verifiers_budget() -> Result<()> {
    let node = Namespace::new("node")?;
    add_interface(&node)?;
    node.ip(&format!("tuntap add dev {HEADLESS} mode tun"))?;
    let apifence = Apifence::new(&node)?;
    let both = format!("{INTERFACE},{HEADLESS}");
    let words = ["--interface", &both, "--authorized-ip-ranges", "192.0.2.1"];
    let of_both = || -> Result<[u32; 2]> {
        Ok([
            verified(&apifence, &node, INTERFACE)?,
            verified(&apifence, &node, HEADLESS)?,
        ])
    };

    apifence.ok(&[&["attach"], &words[..]].concat())?;
    let silent = of_both()?;
    apifence.ok(&["detach"])?;

    let mut daemon = apifence.start(&[&["run", "-v"], &words[..]].concat())?;
    daemon.line(|line| line.contains("guarding") && line.contains(HEADLESS))?;
    let logging = of_both()?;

    println!("{silent:?} instructions verified, {logging:?} with the log");
    for (silent, logging) in silent.into_iter().zip(logging) {
        assert!(silent < logging, "the log is not on, or costs nothing");
        assert!(
            logging < LIMIT / 2,
            "{silent} instructions verified, {logging} with the log: the limit is {LIMIT}"
        );
    }
    Ok(())
}
