//! `cargo xtask bench` measures packets, floods and changes of the list for `docs/benchmarks.md`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Builds and runs the benchmark, and returns its exit status.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    workspace::run_as_root("bench", Purpose::Bench, arguments)
}
