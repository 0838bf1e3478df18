//! `cargo xtask bench`: what a packet and a change of the list cost, as the README states it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Builds and runs the benchmark, and passes its exit status on.
pub(crate) fn run() -> Result<ExitCode> {
    workspace::run_as_root("bench", Purpose::Bench)
}
