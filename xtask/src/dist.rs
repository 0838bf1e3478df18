//! `cargo xtask dist` makes what a release consists of, in `target/dist`.

pub(crate) mod archive;
pub(crate) mod build;
mod chart;
mod crate_package;
mod image;
pub(crate) mod packages;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use build::Program;
use image::Image;

use crate::{
    setup::{self, Purpose},
    step,
    target::Target,
    workspace::{self, empty_directory, source_date, target_directory},
};

/// Makes the release for `targets`, or for all.
pub(crate) fn run(targets: &[Target]) -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Dist)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    let all = [Target::X86_64, Target::Aarch64];
    let targets = if targets.is_empty() { &all } else { targets };
    let directory = make(targets)?;
    crate_package::write(&directory)?;
    write_sums(&directory)?;
    step::run(Command::new("ls").arg("-l").arg(&directory))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes what machines and clusters install: tarballs, packages, images, the chart. Returns their
/// directory.
pub(crate) fn make(targets: &[Target]) -> Result<PathBuf> {
    let directory = empty_directory("dist")?;
    // The pages and completions of every target are the same text.
    let native = Target::native()?;
    let pages = archive::Pages::write(&Program::APIFENCE.build(native, &target_directory()?)?)?;
    for &target in targets {
        let program = Program::APIFENCE.build(target, &target_directory()?)?;
        archive::write(target, &program, &pages, &directory)?;
        packages::write(target, &directory)?;
        Program::AGENT.build(target, &target_directory()?)?;
    }
    chart::write(&directory)?;
    write_sboms(&directory)?;
    for image in [Image::APIFENCE, Image::AGENT] {
        image.write(targets, &directory)?;
    }
    Ok(directory)
}

/// Builds this machine's programs twice, from two places into two directories, and fails if the
/// results differ.
pub(crate) fn check_reproducible() -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Dist)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    let target = Target::native()?;
    let elsewhere = empty_directory("elsewhere")?;
    let copy = elsewhere.join("a copy of the workspace");
    build::copy_workspace(&copy)?;
    for program in [Program::APIFENCE, Program::AGENT] {
        let name = program.name();
        let first = program.build(target, &target_directory()?)?;
        let second = program.build_from(&copy, &copy, target, &elsewhere.join("target"))?;
        let (first, second) = (digest(&first)?, digest(&second)?);
        if first != second {
            bail!("build `{name}` for {target} twice: {first} and {second} are different programs");
        }
        println!("reproducible: both builds of {name} for {target} have the SHA-256 {first}");
    }
    fs::remove_dir_all(&elsewhere).context("remove the second build")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the bills of materials of the programs, in CycloneDX's JSON.
fn write_sboms(directory: &Path) -> Result<()> {
    // For every member of the workspace; cargo-cyclonedx writes next to its Cargo.toml.
    let status = workspace::cargo(&["cyclonedx", "--format", "json", "--all", "--quiet"])
        .args(["--override-filename", "sbom.cdx", "--manifest-path"])
        .arg(workspace::root().join("filter-user/Cargo.toml"))
        .env("SOURCE_DATE_EPOCH", source_date()?)
        .status()
        .context("run `cargo cyclonedx`")?;
    if !status.success() {
        bail!("write the SBOM: {status}");
    }
    for member in [
        "filter-common",
        "filter-ebpf",
        "filter-kube",
        "filter-user",
        "tests",
        "xtask",
    ] {
        let written = workspace::root().join(member).join("sbom.cdx.json");
        for program in [Program::APIFENCE, Program::AGENT] {
            if program.package() == member {
                fs::copy(&written, program.sbom(directory)).context("copy the SBOM")?;
            }
        }
        if written.exists() {
            fs::remove_file(&written).context("remove the SBOM in the crate")?;
        }
    }
    Ok(())
}

/// Writes the digests of all files of the release.
fn write_sums(directory: &Path) -> Result<()> {
    let list = "sha256sum -- * > SHA256SUMS.new; mv SHA256SUMS.new SHA256SUMS";
    step::run(
        Command::new("sh")
            .args(["-ec", list])
            .current_dir(directory),
    )
}

/// The SHA-256 of `file`, in hexadecimal.
pub(crate) fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .context("run `sha256sum`")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_once(' ') {
        // A backslash at the start says that the file's name is quoted.
        Some((digest, _)) if output.status.success() => Ok(digest.replace('\\', "")),
        _ => bail!("read `{}`: {}", file.display(), output.status),
    }
}
