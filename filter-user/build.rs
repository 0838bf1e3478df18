//! Builds filter-ebpf into `OUT_DIR/apifence-xdp`, the eBPF object inside the loader.
//!
//! The packaged crate has the object inside, and needs no tool for it. Elsewhere, without
//! bpf-linker or rust-src, an ordinary build uses an empty object, so that any machine can check
//! and test everything that needs no object; the loader refuses to load an empty one. A release
//! build fails.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The path of the package with the XDP program, relative to this one.
const EBPF_PACKAGE: &str = "../filter-ebpf";

/// The name of its binary, and of the object.
const OBJECT: &str = "apifence-xdp";

/// The object in the packaged crate, where `EBPF_PACKAGE` does not exist. `cargo xtask dist` puts
/// it there before it packages the crate.
const PACKAGED: &str = "apifence-xdp.o";

/// Further inputs of the object: the classifier, the versions and profiles, and the compiler.
const INPUTS: [&str; 4] = [
    "../filter-common",
    "../Cargo.toml",
    "../Cargo.lock",
    "../rust-toolchain.toml",
];

fn main() -> Result<()> {
    let object = PathBuf::from(variable("OUT_DIR")?).join(OBJECT);
    if !Path::new(EBPF_PACKAGE).exists() {
        println!("cargo:rerun-if-changed={PACKAGED}");
        fs::copy(PACKAGED, &object).with_context(|| format!("copy `{PACKAGED}`"))?;
        return Ok(());
    }
    for input in INPUTS.iter().chain(&["build.rs"]) {
        println!("cargo:rerun-if-changed={input}");
    }
    let missing = missing()?;
    if missing.is_empty() {
        build()?;
        // AYA_BUILD_SKIP makes aya-build succeed without output.
        if object.exists() {
            strip(&object)?;
        }
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
        // A stale object would pass for one of the present sources.
        fs::write(&object, []).with_context(|| format!("write `{}`", object.display()))?;
    }
    if !object.exists() {
        fs::write(&object, []).with_context(|| format!("write `{}`", object.display()))?;
    }
    Ok(())
}

/// Builds the object with the toolchain of this build.
fn build() -> Result<()> {
    // SAFETY: build scripts have one thread until they start another, and this one has started
    // none: no other thread reads the environment meanwhile.
    unsafe {
        // Makes a stable toolchain accept `-Z build-std=core`: the eBPF target comes without a
        // built `core`.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // No path of this machine stays in the line table of the object: it is the same wherever it
        // is built.
        env::set_var("CARGO_UNSTABLE_TRIM_PATHS", "true");
        env::set_var("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all");
        // aya-build turns each line of the inner cargo into a warning: this leaves only the
        // compiler's.
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

/// Removes the DWARF, four fifths of the object, and keeps the BTF that was made from it.
fn strip(object: &Path) -> Result<()> {
    let built = fs::read(object).with_context(|| format!("read `{}`", object.display()))?;
    let mut elf = Builder::read(built.as_slice()).context("read the eBPF object")?;
    for section in elf.sections.iter_mut() {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM keeps the names of sections among those of symbols; the crate wants a table for them.
    let names = elf.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("write the eBPF object")?;
    fs::write(object, stripped).with_context(|| format!("write `{}`", object.display()))
}

/// The toolchain by rustup's name: the running one, or the pinned one if cargo was started without
/// rustup.
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

/// The missing tools for an eBPF object. Makes cargo run this again once they may be installed.
fn missing() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    if !has_linker() {
        missing.push("bpf-linker");
    }
    let rustlib = sysroot()?.join("lib/rustlib");
    if !rustlib.join("src/rust/library/core/src/lib.rs").exists() {
        missing.push("rust-src");
        // rustup's list of installed components.
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
    // rustup puts cargo's directory first in PATH for the programs that it starts.
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
        // The set-up installs it there. Cargo treats a missing path as changed in each build.
        if let Some(directory) = cargo_bin {
            println!("cargo:rerun-if-changed={}", directory.display());
        }
    }
    found
}

/// The directory of the toolchain.
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
