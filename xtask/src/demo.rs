//! `cargo xtask demo`: the main job on any Linux machine, between two network namespaces.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Builds and runs the demo, and returns its exit status.
pub(crate) fn run() -> Result<ExitCode> {
    workspace::run_as_root("demo", Purpose::Work, &[])
}
