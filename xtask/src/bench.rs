//! `cargo xtask bench`: what a packet, a flood and a change of the list cost, as `docs/benchmarks.md` states it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Builds and runs the benchmark, and passes its exit status on.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    workspace::run_as_root("bench", Purpose::Bench, arguments)
}
