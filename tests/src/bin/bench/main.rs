//! `cargo xtask bench`: what a packet costs, and how long a change of the list takes; each beside its peers, in one interleaved run.

mod micro;
mod packet;
mod update;

use anyhow::Result;

fn main() -> Result<()> {
    println!(
        "Linux {}",
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    );
    packet::run()?;
    println!();
    micro::run()?;
    println!();
    update::run()
}

/// The middle one of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
