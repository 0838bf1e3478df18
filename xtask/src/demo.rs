//! `cargo xtask demo`: the main job on any Linux machine, between two network namespaces.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Builds and runs the demo, and passes its exit status on.
pub(crate) fn run() -> Result<ExitCode> {
    workspace::run_as_root("demo", Purpose::Work, &[])
}
