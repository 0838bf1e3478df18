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
    workspace::{self, VERSION, source_date},
};

/// A program, as the release has it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    package: &'static str,
    name: &'static str,
    /// The profile that it is built with.
    profile: &'static str,
}

impl Program {
    /// The filter.
    pub(crate) const APIFENCE: Self = Self {
        package: "filter-user",
        name: "apifence",
        profile: "release",
    };

    /// The agent in Kubernetes.
    pub(crate) const AGENT: Self = Self {
        package: "filter-kube",
        name: "apifence-kube",
        profile: "small",
    };

    /// The tests' program `name`.
    pub(crate) const fn of_tests(name: &'static str) -> Self {
        Self {
            package: "tests",
            name,
            profile: "release",
        }
    }

    /// The name of its file.
    pub(crate) const fn name(self) -> &'static str {
        self.name
    }

    /// The crate that it is in.
    pub(super) const fn package(self) -> &'static str {
        self.package
    }

    /// Builds it for `target` into the target directory `into`.
    pub(crate) fn build(self, target: Target, into: &Path) -> Result<PathBuf> {
        self.build_from(workspace::root(), workspace::root(), target, into)
    }

    /// Like [`Program::build`], from the sources at `root`. It names files below `base` by their
    /// path below it.
    pub(crate) fn build_from(
        self,
        root: &Path,
        base: &Path,
        target: Target,
        into: &Path,
    ) -> Result<PathBuf> {
        step::run(&mut self.cargo(root, base, target, into)?)?;
        Ok(self.path(target, into))
    }

    /// Where it is once it was built.
    pub(crate) fn path(self, target: Target, into: &Path) -> PathBuf {
        let directory = into.join(target.triple()).join(self.profile);
        directory.join(self.name)
    }

    /// Its bill of materials, in the release's directory.
    pub(super) fn sbom(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}-{VERSION}.cdx.json", self.name))
    }

    /// The command that builds it.
    fn cargo(self, root: &Path, base: &Path, target: Target, into: &Path) -> Result<Command> {
        let cargo_home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(env::home_dir()?.join(".cargo")))
            .context("find cargo's directory")?;
        // No path of this machine stays in the program: it is the same wherever it is built.
        let flags = [
            format!("--remap-path-prefix={}=apifence", base.display()),
            format!("--remap-path-prefix={}=cargo", cargo_home.display()),
        ];
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(root)
            .args(["build", "--locked", "--profile", self.profile])
            .args(["--package", self.package, "--bin", self.name])
            .args(["--target", target.triple(), "--target-dir"])
            .arg(into)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            // A sixth of the program is names of functions, which only a backtrace shows.
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("SOURCE_DATE_EPOCH", source_date()?)
            .env("APIFENCE_COMMIT", workspace::commit()?);
        let triple = target.triple().replace('-', "_");
        // The C code in `ring` needs nothing of a C library: any compiler for the machine will do.
        let compiler = match target == Target::native()? {
            true => "cc",
            false => "clang",
        };
        cargo.env(format!("CC_{triple}"), compiler);
        if target != Target::native()? {
            // The toolchain's own: no cross compiler is needed.
            let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase());
            cargo.env(linker, "rust-lld");
            // An archive has no machine.
            cargo.env(format!("AR_{triple}"), "ar");
        }
        Ok(cargo)
    }
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
