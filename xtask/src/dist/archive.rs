//! The tarball, and the pages, completions and changes that the packages have, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    step,
    target::Target,
    workspace::{self, VERSION, empty_directory, source_date},
};

/// What each shell calls the file with the completions of `apifence`.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "apifence.bash"),
    ("zsh", "_apifence"),
    ("fish", "apifence.fish"),
];

/// The files of the repository that go into the tarball, with their names there.
const FILES: [(&str, &str); 11] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-GPL2", "LICENSE-GPL2"),
    ("deploy/install.sh", "install.sh"),
    ("deploy/apifence.service", "apifence.service"),
    ("deploy/apifence.toml", "apifence.toml"),
    ("deploy/kubelet.service.d/apifence.conf", "kubelet.conf"),
    ("deploy/prometheus/apifence.rules.yml", "apifence.rules.yml"),
    ("deploy/grafana/apifence.json", "grafana-dashboard.json"),
];

/// The manual pages and completions, written by the program itself.
pub(crate) struct Pages {
    directory: PathBuf,
}

impl Pages {
    /// Has `program` write them to `target/pages`, where the packages expect them.
    pub(crate) fn write(program: &Path) -> Result<Self> {
        Self::write_into(program, &empty_directory("pages")?)
    }

    /// Has `program` write them to `directory`.
    pub(crate) fn write_into(program: &Path, directory: &Path) -> Result<Self> {
        let (man, completions) = (directory.join("man"), directory.join("completions"));
        fs::create_dir_all(&man).context("make a directory")?;
        fs::create_dir_all(&completions).context("make a directory")?;
        step::run(Command::new(program).arg("man").arg(&man))?;
        for (shell, file) in SHELLS {
            let output = Command::new(program)
                .args(["completions", shell])
                .output()
                .context("run `apifence completions`")?;
            if !output.status.success() {
                bail!("write completions for {shell}: {}", output.status);
            }
            fs::write(completions.join(file), output.stdout).context("write completions")?;
        }
        // Debian's name for it, and form.
        step::run(
            Command::new("sh")
                .args(["-ec", "gzip -9nc \"$1\" > \"$2/changelog.gz\"", "sh"])
                .arg(workspace::root().join("CHANGELOG.md"))
                .arg(directory),
        )?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }
}

/// Writes the tarball for `target` into `directory`.
pub(super) fn write(target: Target, program: &Path, pages: &Pages, directory: &Path) -> Result<()> {
    let name = format!("apifence-{VERSION}-linux-{target}");
    let staging = empty_directory("staging")?;
    stage(program, pages, &staging.join(&name))?;
    pack(&staging, &name, &directory.join(format!("{name}.tar.gz")))
}

/// Packs the directory `name` in `staging` into `archive`.
pub(super) fn pack(staging: &Path, name: &str, archive: &Path) -> Result<()> {
    // Owner, order and time do not depend on this machine, and gzip writes no time of its own.
    step::run(
        Command::new("tar")
            .args([
                "--create",
                "--sort=name",
                "--owner=root:0",
                "--group=root:0",
            ])
            .args(["--mode=go+rX,u+rwX,go-w", "--use-compress-program=gzip -9n"])
            .arg(format!("--mtime=@{}", source_date()?))
            .arg("--file")
            .arg(archive)
            .arg("--directory")
            .arg(staging)
            .arg(name),
    )
}

/// Makes the directory `top` with everything that `install.sh` installs, and the digests of it.
pub(crate) fn stage(program: &Path, pages: &Pages, top: &Path) -> Result<()> {
    fs::create_dir(top).context("make a directory")?;
    let copy = |from: &Path, to: &str| {
        fs::copy(from, top.join(to))
            .map(drop)
            .with_context(|| format!("copy `{}`", from.display()))
    };
    copy(program, "apifence")?;
    for (from, to) in FILES {
        copy(&workspace::root().join(from), to)?;
    }
    step::run(
        Command::new("cp")
            .arg("-r")
            .arg(pages.directory.join("man"))
            .arg(pages.directory.join("completions"))
            .arg(workspace::root().join("deploy/feeds"))
            .arg(workspace::root().join("deploy/kubernetes"))
            .arg(workspace::root().join("docs"))
            .arg(top),
    )?;
    let sums =
        "find . -type f -printf '%P\\0' | sort -z | xargs -0 sha256sum > ../SUMS; mv ../SUMS .";
    step::run(Command::new("sh").args(["-ec", sums]).current_dir(top))
}
