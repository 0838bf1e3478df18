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
    step::run(&mut cargo(
        root,
        base,
        target,
        into,
        ["filter-user", "apifence"],
    )?)?;
    Ok(into.join(target.triple()).join("release/apifence"))
}

/// Builds the tests' program `name` as the release is built.
pub(crate) fn test_program(name: &str, target: Target, into: &Path) -> Result<PathBuf> {
    let root = workspace::root();
    let mut cargo = cargo(root, root, target, into, ["tests", name])?;
    // The C code in `ring` needs nothing of a C library: any compiler for the machine will do.
    let compiler = match target == Target::native()? {
        true => "cc",
        false => "clang",
    };
    let variable = format!("CC_{}", target.triple().replace('-', "_"));
    step::run(cargo.env(variable, compiler))?;
    Ok(into.join(target.triple()).join("release").join(name))
}

/// The command that builds the program `name` of `package`.
fn cargo(
    root: &Path,
    base: &Path,
    target: Target,
    into: &Path,
    [package, name]: [&str; 2],
) -> Result<Command> {
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
        .args(["build", "--locked", "--release", "--package", package])
        .args(["--bin", name, "--target", target.triple()])
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
    Ok(cargo)
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
