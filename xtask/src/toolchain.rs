//! The Rust toolchain that runs this program, pinned by `rust-toolchain.toml`.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

/// The components that a build of an eBPF object and the checks of `.ci/run` need: name, and the
/// path that shows its presence.
const COMPONENTS: [(&str, &str); 3] = [
    ("rust-src", "lib/rustlib/src/rust/library/core/src/lib.rs"),
    ("clippy", "bin/cargo-clippy"),
    ("rustfmt", "bin/cargo-fmt"),
];

/// Facts about `rustc`.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The release, like `1.95.0`.
    pub(crate) release: String,
    /// The major version of the LLVM that writes rustc's bitcode.
    pub(crate) llvm: u32,
    host: String,
    sysroot: PathBuf,
}

impl Toolchain {
    /// Asks `rustc`.
    pub(crate) fn probe() -> Result<Self> {
        let version = rustc(&["-vV"])?;
        let field = |name: &str| field_of(&version, name);
        let llvm = field("LLVM version")?
            .split('.')
            .next()
            .unwrap_or_default()
            .parse();
        Ok(Self {
            release: field("release")?,
            llvm: llvm.context("read version of `rustc`: LLVM without a number")?,
            host: field("host")?,
            sysroot: PathBuf::from(rustc(&["--print", "sysroot"])?.trim()),
        })
    }

    /// The components that are not installed.
    pub(crate) fn missing_components(&self) -> Vec<&'static str> {
        let missing = COMPONENTS
            .iter()
            .filter(|(_, witness)| !self.sysroot.join(witness).exists());
        missing.map(|&(name, _)| name).collect()
    }

    /// The `targets` without a standard library here.
    pub(crate) fn missing_targets(&self, targets: &[&'static str]) -> Vec<&'static str> {
        let libraries = self.sysroot.join("lib/rustlib");
        let missing = |target: &&str| !libraries.join(target).exists();
        targets.iter().copied().filter(missing).collect()
    }

    /// The environment variable for cargo's runner of tests.
    pub(crate) fn runner_variable(&self) -> String {
        format!(
            "CARGO_TARGET_{}_RUNNER",
            self.host.to_uppercase().replace('-', "_")
        )
    }

    /// The name of this toolchain in rustup.
    pub(crate) fn rustup_name(&self) -> String {
        env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| self.release.clone())
    }
}

/// The output of `rustc`.
fn rustc(arguments: &[&str]) -> Result<String> {
    // Cargo sets RUSTC for its subcommands only if the user chose another compiler.
    let program = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .with_context(|| format!("run `{program}`"))?;
    if !output.status.success() {
        bail!(
            "run `{program}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what `{program}` prints"))
}

/// The value of `name` in the output of `rustc -vV`.
fn field_of(version: &str, name: &str) -> Result<String> {
    let value = version
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value
        .map(str::to_owned)
        .with_context(|| format!("read version of `rustc`: no `{name}`"))
}
