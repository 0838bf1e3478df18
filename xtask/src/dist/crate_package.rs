//! The crates, as `cargo install` builds them: without bpf-linker, from an object in the package.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    step,
    target::Target,
    workspace::{self, VERSION, target_directory},
};

/// Packages the crates into `directory` and builds the packaged program, with no bpf-linker in
/// `PATH`.
pub(super) fn write(directory: &Path) -> Result<()> {
    let object = workspace::root().join("filter-user/apifence-xdp.o");
    fs::copy(built_object()?, &object).context("copy the eBPF object")?;
    let packaged = package();
    fs::remove_file(&object).context("remove the eBPF object from the crate")?;
    packaged?;
    for member in ["filter-common", "filter-user"] {
        let name = format!("{member}-{VERSION}.crate");
        fs::copy(
            target_directory()?.join("package").join(&name),
            directory.join(&name),
        )
        .with_context(|| format!("copy `{name}`"))?;
    }
    Ok(())
}

fn package() -> Result<()> {
    // Without cargo's directory, where bpf-linker is installed; rustc is in the toolchain's, too.
    let path = env::var_os("PATH").unwrap_or_default();
    let without = env::split_paths(&path).filter(|one| !one.join("bpf-linker").is_file());
    let cargo = env::var_os("CARGO").map(PathBuf::from);
    let toolchain = cargo.as_deref().and_then(Path::parent).map(Path::to_owned);
    let without = toolchain.into_iter().chain(without);
    step::run(
        workspace::cargo(&["package", "--locked", "--allow-dirty"])
            .args(["--package", "filter-common", "--package", "filter-user"])
            .env("PATH", env::join_paths(without).context("shorten `PATH`")?),
    )
}

/// The eBPF object in the program that was built last.
fn built_object() -> Result<PathBuf> {
    let builds = target_directory()?
        .join(Target::native()?.triple())
        .join("release/build");
    let mut newest = None;
    for build in fs::read_dir(&builds).context("find the eBPF object")? {
        let object = build?.path().join("out/apifence-xdp");
        if let Ok(metadata) = fs::metadata(&object) {
            newest = newest.max(Some((metadata.modified()?, object)));
        }
    }
    match newest {
        Some((_, object)) => Ok(object),
        None => bail!("find the eBPF object: none in `{}`", builds.display()),
    }
}
