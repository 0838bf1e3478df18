//! This machine: its distribution, its programs, and the ways to act as root.

use std::{
    env, fs,
    io::IsTerminal as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

/// A way to run a command as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// `sudo` asks for no password.
    Sudo,
    /// `sudo` will ask for a password, and there is a terminal to ask on.
    Ask,
    /// There is no way.
    None,
}

impl Privilege {
    /// Finds the way, without a prompt.
    pub(crate) fn probe() -> Self {
        if Self::is_root() {
            return Self::Root;
        }
        if find_program("sudo").is_none() {
            return Self::None;
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if sudo.is_ok_and(|status| status.success()) {
            Self::Sudo
        } else if std::io::stdin().is_terminal() {
            Self::Ask
        } else {
            Self::None
        }
    }

    /// Whether this process is root already.
    pub(crate) fn is_root() -> bool {
        fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
    }

    /// Whether something may be installed without a prompt.
    pub(crate) fn may_install(self) -> bool {
        matches!(self, Self::Root | Self::Sudo)
    }

    /// The words in front of a command that needs root.
    pub(crate) fn prefix(self) -> Result<&'static [&'static str]> {
        match self {
            Self::Root => Ok(&[]),
            Self::Sudo => Ok(&["sudo", "-n"]),
            Self::Ask => Ok(&["sudo"]),
            Self::None => bail!(
                "become root: `sudo` does not work here\n\
                 hint: `sudo -E env \"PATH=$PATH\" cargo xtask ...` where sudo may ask for a password"
            ),
        }
    }

    /// Like [`Privilege::prefix`], for a program that needs our environment.
    pub(crate) fn prefix_with_environment(self) -> Result<Vec<&'static str>> {
        let mut words = self.prefix()?.to_vec();
        if !words.is_empty() {
            words.push("-E");
        }
        Ok(words)
    }
}

/// The family of distributions, by its package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Debian, Ubuntu and their descendants: the only family that set-up installs on.
    Debian,
    /// Fedora, RHEL and their descendants.
    Fedora,
    /// Arch Linux and its descendants.
    Arch,
    /// openSUSE and SLES.
    Suse,
    /// Alpine Linux.
    Alpine,
    /// Any other.
    Other,
}

impl Distribution {
    /// Reads `/etc/os-release`.
    pub(crate) fn probe() -> Self {
        Self::from_os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    /// Finds the first known name in `ID`, then in `ID_LIKE` (os-release(5)).
    fn from_os_release(text: &str) -> Self {
        let field = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches(['"', '\''])
        };
        let known = |id: &str| match id {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "arch" => Some(Self::Arch),
            "suse" | "opensuse" => Some(Self::Suse),
            "alpine" => Some(Self::Alpine),
            _ => None,
        };
        let mut ids = [field("ID"), field("ID_LIKE")]
            .into_iter()
            .flat_map(str::split_whitespace);
        ids.find_map(known).unwrap_or(Self::Other)
    }

    /// The command that installs packages, without their names.
    pub(crate) fn install_command(self) -> Option<&'static str> {
        match self {
            Self::Debian => Some("apt-get install -y --no-install-recommends"),
            Self::Fedora => Some("dnf install -y"),
            Self::Arch => Some("pacman -S --needed --noconfirm"),
            Self::Suse => Some("zypper --non-interactive install"),
            Self::Alpine => Some("apk add"),
            Self::Other => None,
        }
    }
}

/// The path of `name`, searched in `PATH` and in the system directories that an ordinary user's
/// `PATH` lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` is an executable file.
fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
}

/// The `packages` that dpkg does not report as installed.
pub(crate) fn missing_packages(packages: &[String]) -> Vec<String> {
    let installed = |package: &String| {
        let query = Command::new("dpkg-query")
            .args(["-W", "-f=${db:Status-Status}", package])
            .output();
        query.is_ok_and(|query| query.stdout == b"installed")
    };
    packages
        .iter()
        .filter(|package| !installed(package))
        .cloned()
        .collect()
}

/// The `packages` without a version in apt.
pub(crate) fn unavailable_packages(packages: &[String]) -> Vec<String> {
    let available = |package: &String| {
        // `apt-cache policy` prints nothing for an unknown name.
        let policy = Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C")
            .output();
        policy.is_ok_and(|policy| {
            let text = String::from_utf8_lossy(&policy.stdout).into_owned();
            text.contains("Candidate:") && !text.contains("Candidate: (none)")
        })
    };
    packages
        .iter()
        .filter(|package| !available(package))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Distribution;

    #[test]
    fn a_descendant_counts_as_its_ancestor() {
        let of = Distribution::from_os_release;
        assert_eq!(of("ID=debian\nVERSION_ID=\"12\"\n"), Distribution::Debian);
        assert_eq!(
            of("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            Distribution::Debian
        );
        assert_eq!(
            of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            Distribution::Fedora
        );
        assert_eq!(
            of("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n"),
            Distribution::Suse
        );
        assert_eq!(of("ID=nixos\n"), Distribution::Other);
        assert_eq!(of(""), Distribution::Other);
    }
}
