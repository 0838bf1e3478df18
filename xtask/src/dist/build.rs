//! The static programs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    step,
    target::Target,
    workspace::{self, source_date},
};

/// Builds the program for `target` into the target directory `into`.
pub(crate) fn program(target: Target, into: &Path) -> Result<PathBuf> {
    program_of(workspace::root(), workspace::root(), target, into)
}

/// Like [`program`], from the sources at `root`. The program names files below `base` by their path
/// below it.
pub(crate) fn program_of(root: &Path, base: &Path, target: Target, into: &Path) -> Result<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .context("find cargo's directory")?;
    // No path of this machine stays in the program, so that it is the same wherever it is built.
    let flags = [
        format!("--remap-path-prefix={}=apifence", base.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--release", "--package", "filter-user"])
        .args(["--bin", "apifence", "--target", target.triple()])
        .arg("--target-dir")
        .arg(into)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // A sixth of the program is names of functions, which only a backtrace shows.
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("SOURCE_DATE_EPOCH", source_date()?);
    if target != Target::native()? {
        // The toolchain's own: no cross compiler is needed.
        let variable = format!(
            "CARGO_TARGET_{}_LINKER",
            target.triple().to_uppercase().replace('-', "_")
        );
        cargo.env(variable, "rust-lld");
    }
    step::run(&mut cargo)?;
    Ok(into.join(target.triple()).join("release/apifence"))
}

/// Copies the files that git tracks to `directory`, as they are in the working tree.
pub(super) fn copy_workspace(directory: &Path) -> Result<()> {
    step::run(
        Command::new("sh")
            .arg("-ec")
            .arg("mkdir -p \"$1\"; git ls-files -z | tar -c --null -T - | tar -x -C \"$1\"")
            .args(["sh".as_ref(), directory.as_os_str()])
            .current_dir(workspace::root()),
    )
}
