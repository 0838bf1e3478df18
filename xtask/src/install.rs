//! `cargo xtask install` builds the release for this machine, and installs it as a tarball's
//! `install.sh` does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    dist::archive::{self, Pages},
    machine::Privilege,
    setup::{self, Purpose},
    step::Step,
    workspace::{self, empty_directory},
};

/// Builds the release, and installs it below `root`.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Work)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    workspace::build(&["--release", "--package", "filter-user", "--bins"])?;
    let program = workspace::program("release", "apifence")?;
    let files = empty_directory("install")?.join("apifence");
    archive::stage(&program, &Pages::write(&program)?, &files)?;
    place(&files, root)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is in `files` below `root`.
fn place(files: &Path, root: &Path) -> Result<()> {
    let script = files.join("install.sh");
    let script = script.to_string_lossy();
    if root == Path::new("/") {
        return Step::root(&script).run(Privilege::probe());
    }
    // A directory of the user's own needs no root.
    fs::create_dir_all(root).with_context(|| format!("make `{}`", root.display()))?;
    let root: PathBuf = root
        .canonicalize()
        .context("find the root to install into")?;
    Step::user(&script)
        .words(["--root".into(), root.to_string_lossy()])
        .run(Privilege::probe())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        process::Command,
    };

    use super::*;

    #[test]
    fn files_are_placed_and_removed_and_a_config_file_is_left_alone() -> Result<()> {
        let scratch = tempfile::TempDir::new()?;
        let root = scratch.path().join("the root");
        let program = scratch.path().join("program");
        let stage = |name: &str, output: &str| -> Result<PathBuf> {
            // The pages are written by the program, and here only their places count.
            let pages = "touch \"$2/apifence.1\" \"$2/apifence.toml.5\"";
            let script = format!("#!/bin/sh\n[ \"$1\" != man ] || {pages}; echo {output}\n");
            fs::write(&program, script)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            let files = scratch.path().join(name);
            archive::stage(
                &program,
                &Pages::write_into(&program, &scratch.path().join(format!("{name} pages")))?,
                &files,
            )?;
            Ok(files)
        };
        let read = |name: &str| fs::read_to_string(root.join(name));
        let mode =
            |name: &str| anyhow::Ok(fs::metadata(root.join(name))?.permissions().mode() & 0o777);
        let (binary, config) = ("usr/local/bin/apifence", "etc/apifence/apifence.toml");
        let unit = "usr/local/lib/systemd/system/apifence.service";

        let first = stage("first", "first")?;
        place(&first, &root)?;
        assert!(read(binary)?.contains("echo first"));
        assert_eq!(mode(binary)?, 0o755);
        let example = fs::read_to_string(workspace::root().join("deploy/apifence.toml"))?;
        assert_eq!(read(config)?, example);
        assert_eq!(mode(config)?, 0o644);
        assert_eq!(mode(unit)?, 0o644);
        for page in [
            "man/man1/apifence.1",
            "man/man5/apifence.toml.5",
            "bash-completion/completions/apifence",
        ] {
            assert_eq!(mode(&format!("usr/local/share/{page}"))?, 0o644, "{page}");
        }
        // systemd finds the program wherever it was installed.
        assert!(
            read(unit)?
                .lines()
                .any(|line| line == "ExecStart=apifence run")
        );

        let manifest = "usr/local/share/doc/apifence/kubernetes/overlays/agent/kustomization.yaml";
        assert_eq!(mode(manifest)?, 0o644);
        if Privilege::is_root() {
            let lists = fs::metadata(root.join("etc/apifence/ranges.d/kubernetes"))?;
            assert_eq!((lists.uid(), lists.gid()), (60843, 60843));
            assert_eq!(lists.mode() & 0o777, 0o755);
        }

        fs::write(root.join(config), "mode = \"monitor\"\n")?;
        let second = stage("second", "second")?;
        place(&second, &root)?;
        assert!(read(binary)?.contains("echo second"));
        assert_eq!(read(config)?, "mode = \"monitor\"\n");

        fs::write(second.join("apifence.toml"), "mode = \"enforce\"\n")?;
        let damaged = place(&second, &root).expect_err("a file is not the release's");
        assert!(damaged.to_string().contains("install.sh"), "{damaged}");

        let removed = Command::new(first.join("install.sh"))
            .arg("--uninstall")
            .arg("--root")
            .arg(&root)
            .status()?;
        assert!(removed.success());
        assert!(!root.join(binary).exists() && !root.join(unit).exists());
        assert_eq!(read(config)?, "mode = \"monitor\"\n");
        Ok(())
    }
}
