//! The kernels of `cargo xtask vm-test`: Debian's packages, by series and flavour.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{debian::Suite, machine, target::Target};

/// A kernel by its name in the table.
pub(super) struct Kernel {
    /// The name that `--kernel` takes.
    pub(super) name: &'static str,
    pub(super) arch: Target,
    suite: &'static str,
    /// The start of the release; the newest such package of the suite is taken.
    series: &'static str,
    flavour: &'static str,
    /// The part of the tests that the guest runs on it.
    pub(super) role: Role,
    /// Whether the short form runs it.
    pub(super) in_short_form: bool,
}

/// What a kernel is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The filter works.
    Guard,
    /// The filter is refused.
    Refuse,
    /// The filter works on emulated network cards.
    Cards,
    /// Traffic generators meet the filter.
    Generators,
}

/// All kernels, oldest first.
pub(super) const KERNELS: [Kernel; 11] = [
    Kernel {
        role: Role::Refuse,
        ..cloud("5.10", Target::X86_64, "bullseye", "5.10.")
    },
    Kernel {
        in_short_form: true,
        ..cloud("6.1", Target::X86_64, "bookworm", "6.1.")
    },
    Kernel {
        in_short_form: true,
        ..cloud("6.12", Target::X86_64, "trixie", "6.12.")
    },
    cloud("6.18", Target::X86_64, "trixie-backports", "6.18."),
    cloud("7", Target::X86_64, "trixie-backports", "7."),
    cloud("6.1-arm64", Target::Aarch64, "bookworm", "6.1."),
    cloud("6.12-arm64", Target::Aarch64, "trixie", "6.12."),
    Kernel {
        flavour: "arm64-16k",
        ..cloud("6.12-arm64-16k", Target::Aarch64, "trixie", "6.12.")
    },
    cards("6.1-cards", "bookworm", "6.1."),
    cards("6.12-cards", "trixie", "6.12."),
    // The kernels for virtual machines have no pktgen.
    Kernel {
        role: Role::Generators,
        ..cards("6.12-generators", "trixie", "6.12.")
    },
];

/// A kernel for machines, with the drivers that the others lack.
const fn cards(name: &'static str, suite: &'static str, series: &'static str) -> Kernel {
    Kernel {
        flavour: "amd64",
        role: Role::Cards,
        ..cloud(name, Target::X86_64, suite, series)
    }
}

/// A kernel for virtual machines.
const fn cloud(
    name: &'static str,
    arch: Target,
    suite: &'static str,
    series: &'static str,
) -> Kernel {
    Kernel {
        name,
        arch,
        suite,
        series,
        flavour: match arch {
            Target::X86_64 => "cloud-amd64",
            Target::Aarch64 => "cloud-arm64",
        },
        role: Role::Guard,
        in_short_form: false,
    }
}

/// A kernel that was fetched and extracted.
pub(super) struct Fetched {
    /// The release, as `uname -r` prints it.
    pub(super) release: String,
    /// The image that QEMU boots.
    pub(super) image: PathBuf,
    /// The directory with `modules.dep`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Fetches it into `directory`, unless it is there.
    pub(super) fn fetch(&self, directory: &Path) -> Result<Fetched> {
        let extracted = directory.join("kernels").join(self.name);
        if !extracted.is_dir() {
            let suite = Suite::open(directory, self.suite, self.arch)?;
            let release = self.newest(&suite)?;
            println!("vm: fetching Linux {release} ({})", self.suite);
            // Newer packages have the image and its modules in two packages, and an empty third.
            let parts =
                ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
            let known = suite.packages("linux-")?;
            let parts: Vec<_> = parts
                .into_iter()
                .filter(|part| known.contains(part))
                .collect();
            suite.extract(&parts, &extracted)?;
        }
        Fetched::open(&extracted)
    }

    /// The newest release of the series in `suite`.
    fn newest(&self, suite: &Suite) -> Result<String> {
        let packages = suite.packages(&format!("linux-image-{}", self.series))?;
        let releases = packages.iter().filter_map(|package| {
            let release = package.strip_prefix("linux-image-")?;
            Some((abi(release, self.flavour)?, release.to_owned()))
        });
        let newest = releases.max().with_context(|| {
            format!(
                "find kernel {}: no such package in {}",
                self.name, self.suite
            )
        })?;
        Ok(newest.1)
    }
}

impl Fetched {
    fn open(extracted: &Path) -> Result<Self> {
        // The directory moved below usr with Debian 13.
        let bases = ["", "usr"].map(|base| extracted.join(base));
        let found = bases.into_iter().find_map(|base| {
            let entry = fs::read_dir(base.join("lib/modules")).ok()?.next()?.ok()?;
            Some((base, entry.path()))
        });
        let found = found.with_context(|| format!("find modules in `{}`", extracted.display()));
        let (base, modules) = found?;
        let release = modules.file_name().unwrap_or_default();
        let release = release.to_string_lossy().into_owned();
        // With Linux 7 the image moved to its modules.
        let images = [
            extracted.join(format!("boot/vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ];
        let image = images.into_iter().find(|image| image.is_file());
        let image = image.with_context(|| format!("find image of {release}"))?;
        if !modules.join("modules.dep").is_file() {
            let depmod = machine::find_program("depmod").context("find `depmod`")?;
            let status = Command::new(depmod)
                .arg("-b")
                .arg(&base)
                .arg(&release)
                .status();
            if !status.context("run `depmod`")?.success() {
                bail!("run `depmod` for {release}");
            }
        }
        Ok(Self {
            image,
            release,
            modules,
        })
    }
}

/// The numbers of a release, for comparison; `None` if it is of another flavour.
fn abi(release: &str, flavour: &str) -> Option<Vec<u32>> {
    let abi = release.strip_suffix(flavour)?.strip_suffix('-')?;
    // Flavours are words after the ABI: `6.1.0-50`, `6.12.117+deb13`.
    let mut parts = abi.split('-').skip(1);
    let is_abi = parts.all(|part| part.parse::<u32>().is_ok());
    let numbers = abi.split(|letter: char| !letter.is_ascii_digit());
    is_abi.then(|| numbers.filter_map(|number| number.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::abi;

    #[test]
    fn releases_of_a_flavour_are_compared_by_their_numbers() {
        let of = |release| abi(release, "amd64");
        assert!(of("6.1.0-50-amd64") > of("6.1.0-9-amd64"));
        assert!(of("6.12.117+deb13-amd64") > of("6.12.95+deb13-amd64"));
        for other in [
            "6.1.0-50-cloud-amd64",
            "6.1.0-50-rt-amd64",
            "6.1.0-50-amd64-unsigned",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(abi("6.12.117+deb13-arm64-16k", "arm64-16k").is_some());
    }
}
