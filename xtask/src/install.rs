//! `cargo xtask install` places the binary, the commented config file, the service's unit and an
//! example of a drop-in.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    machine::Privilege,
    setup::{self, Purpose},
    step::Step,
    workspace,
};

/// Path of the binary below the root of the file system.
const BINARY: &str = "usr/local/bin/apifence";
/// Path of the config file.
const CONFIG: &str = "etc/apifence/apifence.toml";

/// Path of the unit.
const UNIT: &str = "usr/local/lib/systemd/system/apifence.service";

/// Path of an example of a drop-in that makes the kubelet wait for a guarded port. systemd does not
/// read it there.
const EXAMPLE: &str = "usr/local/share/doc/apifence/kubelet.service.d/apifence.conf";

/// Builds the release, and installs it below `root`.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Work)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    workspace::build(&["--release", "--package", "filter-user", "--bins"])?;
    let binary = workspace::program("release", "apifence")?;
    let deploy = workspace::root().join("deploy");
    // A directory of the user's own needs no root.
    let step = if root == Path::new("/") {
        Step::root
    } else {
        Step::user
    };
    place(&binary, &deploy, root, step)?;
    Ok(ExitCode::SUCCESS)
}

/// Places `binary`, the unit, the example of a drop-in and, if there is no config file, the example
/// of one from `deploy` below `root`. `step` makes the commands.
fn place(binary: &Path, deploy: &Path, root: &Path, step: fn(&str) -> Step) -> Result<()> {
    copy(binary, "755", &root.join(BINARY), step)?;
    copy(
        &deploy.join("apifence.service"),
        "644",
        &root.join(UNIT),
        step,
    )?;
    copy(
        &deploy.join("kubelet.service.d/apifence.conf"),
        "644",
        &root.join(EXAMPLE),
        step,
    )?;
    let config = root.join(CONFIG);
    if config.exists() {
        println!("  `{}` is there: left as it is", config.display());
        return Ok(());
    }
    copy(&deploy.join("apifence.toml"), "644", &config, step)
}

/// Copies `file` to `target`; a process that runs the old file keeps that.
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
        let binary = scratch.path().join("built");
        let deploy = workspace::root().join("deploy");
        fs::write(&binary, "first")?;

        place(&binary, &deploy, &root, Step::user)?;
        let read = |name: &str| fs::read_to_string(root.join(name));
        let mode = |name: &str| anyhow::Ok(fs::metadata(root.join(name))?.permissions().mode());
        assert_eq!(read(BINARY)?, "first");
        assert_eq!(mode(BINARY)? & 0o777, 0o755);
        let example = fs::read_to_string(deploy.join("apifence.toml"))?;
        assert_eq!(read(CONFIG)?, example);
        assert_eq!(mode(CONFIG)? & 0o777, 0o644);

        fs::write(root.join(CONFIG), "mode = \"monitor\"\n")?;
        fs::write(&binary, "second")?;
        place(&binary, &deploy, &root, Step::user)?;
        assert_eq!(read(BINARY)?, "second");
        assert_eq!(read(CONFIG)?, "mode = \"monitor\"\n");
        assert_eq!(mode(UNIT)? & 0o777, 0o644);
        // The unit starts the installed binary.
        let start = format!("ExecStart=/{BINARY} run");
        assert!(read(UNIT)?.lines().any(|line| line == start));
        // The drop-in runs it as well.
        let ask = format!("ExecStartPre=/{BINARY} status --check");
        assert!(read(EXAMPLE)?.lines().any(|line| line == ask));
        Ok(())
    }
}
