//! `cargo xtask install`: the binary and the commented config file, where they belong.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    machine::Privilege,
    setup::{self, Purpose},
    step::Step,
    workspace,
};

/// Where the binary goes, below the root of the file system.
const BINARY: &str = "usr/local/bin/apifence";
/// Where the config file goes.
const CONFIG: &str = "etc/apifence/apifence.toml";

/// Builds the release, and places it below `root`.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Work)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    workspace::build(&["--release", "--package", "filter-user", "--bins"])?;
    let binary = workspace::program("release", "apifence")?;
    let example = workspace::root().join("deploy/apifence.toml");
    // A tree of the user's own needs no root.
    let step = if root == Path::new("/") {
        Step::root
    } else {
        Step::user
    };
    place(&binary, &example, root, step)?;
    Ok(ExitCode::SUCCESS)
}

/// Places `binary` and, where there is no config file, `example` below `root`, with commands that `step` makes.
fn place(binary: &Path, example: &Path, root: &Path, step: fn(&str) -> Step) -> Result<()> {
    copy(binary, "755", &root.join(BINARY), step)?;
    let config = root.join(CONFIG);
    if config.exists() {
        println!("  `{}` is there: left as it is", config.display());
        return Ok(());
    }
    copy(example, "644", &config, step)
}

/// Puts a copy of `file` at `target`; a process that runs the old one keeps it.
fn copy(file: &Path, mode: &str, target: &Path, step: fn(&str) -> Step) -> Result<()> {
    step("install -D -m")
        .words([
            mode.into(),
            file.to_string_lossy(),
            target.to_string_lossy(),
        ])
        .run(Privilege::probe())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn files_are_placed_and_an_existing_config_file_is_left_alone() -> Result<()> {
        let scratch = tempfile::TempDir::new()?;
        let root = scratch.path().join("the root");
        let (binary, example) = (scratch.path().join("built"), scratch.path().join("toml"));
        fs::write(&binary, "first")?;
        fs::write(&example, "# example\n")?;

        place(&binary, &example, &root, Step::user)?;
        let read = |name: &str| fs::read_to_string(root.join(name));
        let mode = |name: &str| anyhow::Ok(fs::metadata(root.join(name))?.permissions().mode());
        assert_eq!(read(BINARY)?, "first");
        assert_eq!(mode(BINARY)? & 0o777, 0o755);
        assert_eq!(read(CONFIG)?, "# example\n");
        assert_eq!(mode(CONFIG)? & 0o777, 0o644);

        fs::write(root.join(CONFIG), "mode = \"monitor\"\n")?;
        fs::write(&binary, "second")?;
        place(&binary, &example, &root, Step::user)?;
        assert_eq!(read(BINARY)?, "second");
        assert_eq!(read(CONFIG)?, "mode = \"monitor\"\n");
        Ok(())
    }
}
