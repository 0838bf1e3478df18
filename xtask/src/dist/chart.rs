//! The Helm chart, as an archive that `helm install` takes.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::archive;
use crate::{
    step,
    workspace::{self, VERSION, empty_directory},
};

/// Writes the archive of the chart into `directory`.
pub(super) fn write(directory: &Path) -> Result<()> {
    let staging = empty_directory("staging")?;
    let chart = staging.join("apifence");
    fs::create_dir(&chart).context("make a directory")?;
    step::run(
        std::process::Command::new("cp")
            .arg("-r")
            .arg(workspace::root().join("deploy/kubernetes/chart/."))
            .arg(&chart),
    )?;
    let archive = directory.join(format!("apifence-chart-{VERSION}.tgz"));
    archive::pack(&staging, "apifence", &archive)
}
