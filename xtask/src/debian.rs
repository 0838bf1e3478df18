//! Debian packages of any suite and architecture, with package lists that are not the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{step::output, target::Target};

/// Debian's keys, from the package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite for one architecture.
pub(crate) struct Suite {
    /// The directory of its package lists.
    directory: PathBuf,
    arch: Target,
}

impl Suite {
    /// Opens it below `directory`; fetches its package lists if they are not there.
    pub(crate) fn open(directory: &Path, name: &str, arch: Target) -> Result<Self> {
        Self::with_types(directory, name, arch, &["deb"])
    }

    /// The same with source packages, for [`Self::source`].
    pub(crate) fn with_sources(directory: &Path, name: &str, arch: Target) -> Result<Self> {
        Self::with_types(directory, name, arch, &["deb", "deb-src"])
    }

    fn with_types(directory: &Path, name: &str, arch: Target, types: &[&str]) -> Result<Self> {
        ensure!(
            Path::new(KEYS).is_file(),
            "read Debian's keys: no `{KEYS}`: install `debian-archive-keyring` and `apt`"
        );
        let suite = Self {
            directory: directory.join(format!("apt/{name}-{}", arch.debian())),
            arch,
        };
        let complete = suite.directory.join("complete");
        if complete.is_file() {
            return Ok(suite);
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.directory.join(part))?;
        }
        fs::write(suite.directory.join("status"), "")?;
        let arch = arch.debian();
        let mirror = mirror()?;
        let line =
            |kind: &&str| format!("{kind} [arch={arch} signed-by={KEYS}] {mirror} {name} main\n");
        let lines: String = types.iter().map(line).collect();
        fs::write(suite.directory.join("sources.list"), lines)?;
        suite.run("apt-get", &["-q", "update"], directory)?;
        fs::write(complete, "")?;
        Ok(suite)
    }

    /// The names of its packages with this start.
    pub(crate) fn packages(&self, start: &str) -> Result<Vec<String>> {
        let names = self.run("apt-cache", &["pkgnames", start], &self.directory)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Fetches packages and extracts them into `target`, which is there only if all succeeded.
    pub(crate) fn extract<S: AsRef<str>>(&self, packages: &[S], target: &Path) -> Result<()> {
        let mut part = target.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        let archives = part.join("archives");
        fs::create_dir_all(&archives).with_context(|| format!("make `{}`", archives.display()))?;
        let mut words = vec!["-q", "download"];
        words.extend(packages.iter().map(AsRef::as_ref));
        self.run("apt-get", &words, &archives)?;
        for archive in fs::read_dir(&archives)? {
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("-x").arg(archive?.path()).arg(&part);
            output(&mut dpkg)?;
        }
        fs::remove_dir_all(archives)?;
        fs::rename(&part, target).with_context(|| format!("make `{}`", target.display()))
    }

    /// Fetches the files of a source package into `target`, without unpacking them.
    pub(crate) fn source(&self, package: &str, target: &Path) -> Result<()> {
        let words = ["-q", "source", "--download-only", package];
        self.run("apt-get", &words, target).map(drop)
    }

    /// Runs an apt program on these lists alone, in `directory`; returns what it prints.
    fn run(&self, program: &str, words: &[&str], directory: &Path) -> Result<String> {
        let mut command = Command::new(program);
        let of = |part: &str| self.directory.join(part).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", of("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", of("lists")),
            format!("Dir::State::Status={}", of("status")),
            format!("Dir::Cache={}", of("cache")),
            format!("APT::Architecture={}", self.arch.debian()),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        output(command.args(words).current_dir(directory))
    }
}

/// The mirror of Debian that this machine takes its own packages from.
fn mirror() -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let is_debian = |uri: &&str| uri.trim_end_matches('/').ends_with("/debian");
    let found = targets.lines().find(is_debian);
    found.map(str::to_owned).context(
        "find a mirror of Debian: apt of this machine has none: \
         add one to /etc/apt/sources.list, then `apt-get update`",
    )
}
