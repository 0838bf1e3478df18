//! The .deb and the .rpm. What is in them is listed in filter-user/Cargo.toml.

use std::path::Path;

use anyhow::Result;

use crate::{
    step,
    target::Target,
    workspace::{self, source_date, target_directory},
};

/// Writes both packages for `target` into `directory`, from the program that was built.
pub(super) fn write(target: Target, directory: &Path) -> Result<()> {
    deb(workspace::root(), target, directory, &[])?;
    step::run(
        workspace::cargo(&[
            "generate-rpm",
            "--package",
            "filter-user",
            "--auto-req",
            "disabled",
        ])
        .args(["--payload-compress", "xz", "--target", target.triple()])
        .arg("--target-dir")
        .arg(target_directory()?)
        .args(["--source-date", &source_date()?])
        .arg("--output")
        .arg(directory),
    )
}

/// Writes the .deb for `target` to `output`, a file or a directory, from the sources at `root` and
/// the program that was built. `more` are further arguments for `cargo deb`.
pub(crate) fn deb(root: &Path, target: Target, output: &Path, more: &[&str]) -> Result<()> {
    step::run(
        workspace::cargo(&[
            "deb",
            "--no-build",
            "--no-strip",
            "--package",
            "filter-user",
        ])
        .args(["--target", target.triple(), "--output"])
        .arg(output)
        .args(more)
        .env("CARGO_TARGET_DIR", target_directory()?)
        .env("SOURCE_DATE_EPOCH", source_date()?)
        .current_dir(root),
    )
}
