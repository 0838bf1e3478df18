//! The workspace: its directory, cargo's programs in it, and how they are started as root.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    machine::Privilege,
    setup::{self, Purpose},
};

/// The version of every package of the workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A `cargo` command, run at the top of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs `cargo build` and fails when it does.
pub(crate) fn build(arguments: &[&str]) -> Result<()> {
    println!(
        "  $ {}",
        [&["cargo", "build"], arguments].concat().join(" ")
    );
    let status = cargo(&["build"])
        .args(arguments)
        .status()
        .context("run `cargo`")?;
    if !status.success() {
        bail!("build the workspace: {status}");
    }
    Ok(())
}

/// Cargo's directory for everything that it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    // Cargo built this program into a directory of its profile.
    let own = env::current_exe().context("find own program")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target
        .context("find own program: it is in no directory")?
        .to_owned())
}

/// The absolute path of a program that [`build`] made; `profile` is the path from
/// [`target_directory`].
pub(crate) fn program(profile: &str, name: &str) -> Result<PathBuf> {
    let program = target_directory()?.join(profile).join(name);
    if !program.is_file() {
        bail!("find program `{name}`: nothing at `{}`", program.display());
    }
    Ok(program)
}

/// Sets up, builds, runs program `name` of the `tests` package as root with `words`, and returns
/// its exit status.
pub(crate) fn run_as_root(name: &str, purpose: Purpose, words: &[String]) -> Result<ExitCode> {
    let set_up = setup::ensure(purpose)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    let mut before = Privilege::probe().prefix_with_environment()?;
    // Together, so that cargo builds the common dependencies once.
    let mut arguments = vec!["--package", "filter-user", "--package", "tests", "--bins"];
    let mut profile = "debug";
    if purpose == Purpose::Bench {
        // The release profile, because users run that.
        arguments.push("--release");
        profile = "release";
        if before.is_empty() {
            // In a session of its own it may set that session's weight. Ctrl-C of the terminal does
            // not reach it there, so it ends with its parent, which sudo would not be.
            before.extend(["setsid", "--wait", "setpriv", "--pdeathsig", "KILL"]);
        }
    }
    build(&arguments)?;

    let own = program(profile, name)?;
    let mut command = before.iter().map(OsStr::new).chain([own.as_os_str()]);
    let status = Command::new(
        command
            .next()
            .expect("the program itself is one of the words"),
    )
    .args(command)
    .args(words)
    .env("APIFENCE_BIN", program(profile, "apifence")?)
    .status()
    .with_context(|| format!("run `{name}`"))?;
    // After a signal there is no exit code.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The top directory of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory of the workspace")
}

/// An empty directory `name` among the build's files.
pub(crate) fn empty_directory(name: &str) -> Result<PathBuf> {
    let directory = target_directory()?.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("remove `{}`", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("make `{}`", directory.display()))?;
    Ok(directory)
}

/// The time of the last commit, in seconds since 1970: the time of all files of the release, so
/// that two builds of one commit are equal.
pub(crate) fn source_date() -> Result<String> {
    last_commit("%ct")
}

/// The short name of the last commit, which `apifence version` shows.
pub(crate) fn commit() -> Result<String> {
    last_commit("%h")
}

/// A fact of the last commit, in the format of `git log`.
fn last_commit(format: &str) -> Result<String> {
    let output = Command::new("git")
        .args(["log", "-1", "--abbrev=12"])
        .arg(format!("--format={format}"))
        .current_dir(root())
        .output()
        .context("run `git`")?;
    if !output.status.success() {
        bail!("read the last commit: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
