//! The tests that `cargo xtask vm-test` runs inside a virtual machine: `vm-guest ROLE`.
//!
//! `/init` of the machine starts this program. It prints one line for each case on the console.

mod cards;
mod case;
mod devices;
mod generators;
mod guard;
mod pair;
mod verdicts;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            case::Outcome::Failed(format!("{error:#}")).print("set-up", 0.0);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (role, rest) = words.split_first().context("run `vm-guest`: no role")?;
    match role.as_str() {
        "guard" => guard::guard(true),
        "guard-short" => guard::guard(false),
        "refuse" => guard::refuse(),
        "cards" => cards::guard(rest),
        "generators" => generators::run(),
        _ => bail!("run `vm-guest {role}`: there is no such role"),
    }
}
