//! `cargo xtask record`: the pictures of the README and the documents, from a real run.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup::Purpose, workspace};

/// Where the documents have their pictures.
const IMAGES: &str = "docs/images";

/// Builds and runs the recorder, and returns its exit status.
pub(crate) fn run() -> Result<ExitCode> {
    let directory = workspace::root().join(IMAGES).display().to_string();
    workspace::run_as_root("record", Purpose::Work, &[directory])
}
