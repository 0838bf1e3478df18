//! Builds filter-ebpf into `OUT_DIR/apifence-xdp`, the eBPF object that the loader carries.
//!
//! Without bpf-linker or rust-src an ordinary build goes on with an empty object, so that everything that needs no
//! object can be checked and tested on any machine; the loader refuses to load an empty one. A release build fails.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// The package with the XDP program, seen from this one.
const EBPF_PACKAGE: &str = "../filter-ebpf";

/// The name of its binary, and so of the object.
const OBJECT: &str = "apifence-xdp";

/// What else changes the object: the classifier, the versions and profiles, and the compiler.
const INPUTS: [&str; 4] = [
    "../filter-common",
    "../Cargo.toml",
    "../Cargo.lock",
    "../rust-toolchain.toml",
];

fn main() -> Result<()> {
    for input in INPUTS.iter().chain(&["build.rs"]) {
        println!("cargo:rerun-if-changed={input}");
    }
    let object = PathBuf::from(variable("OUT_DIR")?).join(OBJECT);
    let missing = missing()?;
    if missing.is_empty() {
        build()?;
    } else {
        println!("cargo:rerun-if-changed={EBPF_PACKAGE}");
        let message = format!(
            "the eBPF object needs {}: run `cargo xtask setup`",
            missing.join(" and ")
        );
        if variable("PROFILE")? == "release" {
            bail!("build the eBPF object: {message}");
        }
        println!("cargo:warning={message} (this build cannot attach a filter)");
        // A stale object would be mistaken for that of the present sources.
        fs::write(&object, []).with_context(|| format!("write `{}`", object.display()))?;
    }
    // AYA_BUILD_SKIP makes aya-build succeed and write nothing.
    if !object.exists() {
        fs::write(&object, []).with_context(|| format!("write `{}`", object.display()))?;
    }
    Ok(())
}

/// Builds the object with the toolchain that builds us.
fn build() -> Result<()> {
    // SAFETY: build scripts have one thread until they make another one, and this one has made none: nobody reads
    // the environment meanwhile.
    unsafe {
        // Lets a stable toolchain take `-Z build-std=core`: the eBPF target comes without a built `core`.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build turns each line of the inner cargo into a warning; leave it the compiler's own.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let toolchain = toolchain()?;
    let package = Package {
        name: "filter-ebpf",
        root_dir: EBPF_PACKAGE,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
}

/// The toolchain by rustup's name: the one that runs us, or the pinned one where cargo was started without rustup.
fn toolchain() -> Result<String> {
    if let Ok(toolchain) = env::var("RUSTUP_TOOLCHAIN") {
        return Ok(toolchain);
    }
    let pin = fs::read_to_string("../rust-toolchain.toml").context("read `rust-toolchain.toml`")?;
    let channel = pin
        .lines()
        .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    Ok(channel
        .context("read `rust-toolchain.toml`: no channel")?
        .to_owned())
}

/// What an eBPF object cannot be built without and is not here. Has cargo ask again when it may have come.
fn missing() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    if !has_linker() {
        missing.push("bpf-linker");
    }
    let rustlib = sysroot()?.join("lib/rustlib");
    if !rustlib.join("src/rust/library/core/src/lib.rs").exists() {
        missing.push("rust-src");
        // rustup's list of what it has installed.
        println!(
            "cargo:rerun-if-changed={}",
            rustlib.join("components").display()
        );
    }
    Ok(missing)
}

/// Whether rustc will find bpf-linker.
fn has_linker() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // rustup puts cargo's directory in front of PATH for what it runs.
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_bin = cargo_home
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .map(|home| home.join("bin"));
    let found = cargo_bin
        .iter()
        .cloned()
        .chain(env::split_paths(&path))
        .any(|directory| directory.join("bpf-linker").is_file());
    if !found {
        println!("cargo:rerun-if-env-changed=PATH");
        // Where set-up installs it. Cargo takes a path that does not exist for changed each time.
        if let Some(directory) = cargo_bin {
            println!("cargo:rerun-if-changed={}", directory.display());
        }
    }
    found
}

/// Where the toolchain that builds us is.
fn sysroot() -> Result<PathBuf> {
    let output = Command::new(variable("RUSTC")?)
        .args(["--print", "sysroot"])
        .output()
        .context("run `rustc`")?;
    let printed = String::from_utf8(output.stdout).context("read what `rustc` prints")?;
    Ok(Path::new(printed.trim()).to_owned())
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("read environment variable `{name}`"))
}
