//! `bpf-linker`, which turns rustc's bitcode into an eBPF object.

use std::{fmt, path::Path, process::Command};

use crate::{machine::find_program, step::Step};

/// The version that set-up builds.
const VERSION: &str = "0.13.0";

/// The last version whose prebuilt binary has LLVM 22 inside, for machines that have no LLVM
/// packages.
const PREBUILT_LLVM_22: &str = "0.10.4";

/// State of the installed `bpf-linker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    /// It fits rustc; the text is its version.
    Fits(String),
    /// It is not installed.
    Missing,
    /// It does not start, usually because its LLVM library is gone.
    Broken,
    /// It was built with another LLVM major than rustc.
    ///
    /// An older LLVM cannot read rustc's bitcode. A newer one can, but may write wrong type
    /// information (BTF) without an error.
    OtherLlvm(u32),
}

impl Linker {
    /// Inspects the `bpf-linker` that rustc would find.
    pub(crate) fn probe(rustc_llvm: u32) -> Self {
        let Some(file) = find_program("bpf-linker") else {
            return Self::Missing;
        };
        let Some(version) = version(&file) else {
            return Self::Broken;
        };
        match llvm_of(&file) {
            Some(llvm) if llvm != rustc_llvm => Self::OtherLlvm(llvm),
            // A binary that does not report its LLVM is accepted: the build fails if it does not
            // fit.
            _ => Self::Fits(version),
        }
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits(version) => write!(f, "bpf-linker {version}"),
            Self::Missing => f.write_str("bpf-linker is not installed"),
            Self::Broken => f.write_str("the installed bpf-linker does not start and is replaced"),
            Self::OtherLlvm(llvm) => write!(
                f,
                "the installed bpf-linker has LLVM {llvm} and is replaced"
            ),
        }
    }
}

/// The Debian packages that a build of `bpf-linker` needs, besides a C compiler.
pub(crate) fn packages(llvm: u32) -> Vec<String> {
    vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

/// The command that builds and installs `bpf-linker` with Debian's LLVM.
pub(crate) fn install(llvm: u32) -> Step {
    Step::user("cargo install bpf-linker --version")
        .words([
            VERSION,
            "--locked",
            "--force",
            "--no-default-features",
            "--features",
        ])
        .words([format!("llvm-{llvm}")])
        .variable("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
}

/// Instructions for a machine without the LLVM packages: lines for a person.
pub(crate) fn advice(llvm: u32, apt: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if apt {
        lines.push(format!(
            "# LLVM {llvm} is not in this system's package lists; from LLVM's own repository:"
        ));
        lines.push(Step::root("apt-get install -y wget lsb-release gnupg").to_string());
        lines.push("wget https://apt.llvm.org/llvm.sh".to_owned());
        lines.push(Step::root(&format!("bash llvm.sh {llvm}")).to_string());
        lines.push(
            Step::root("apt-get install -y")
                .words(packages(llvm))
                .to_string(),
        );
        lines.push(
            "# or, instead of the above, a prebuilt bpf-linker, which needs no LLVM packages:"
                .to_owned(),
        );
    } else {
        lines.push(format!("# a prebuilt bpf-linker with LLVM {llvm} inside:"));
    }
    let version = if llvm == 22 {
        format!("@{PREBUILT_LLVM_22}")
    } else {
        String::new()
    };
    lines.push("cargo install cargo-binstall --locked".to_owned());
    lines.push(format!("cargo binstall bpf-linker{version}"));
    lines
}

/// The version that the program reports, like `0.13.0`.
fn version(file: &Path) -> Option<String> {
    let output = Command::new(file)
        .arg("--version")
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(
        String::from_utf8(output.stdout)
            .ok()?
            .split_whitespace()
            .nth(1)?
            .to_owned(),
    )
}

/// The LLVM major that `file` is linked with, dynamically or statically.
fn llvm_of(file: &Path) -> Option<u32> {
    let printed = |command: &mut Command| {
        let output = command.arg(file).env("LC_ALL", "C").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let libraries = printed(&mut Command::new("ldd"))?;
    // A binary with LLVM inside has the name of the bitcode's producer, like `LLVM22.1.8`, among
    // its strings. It has some hundred megabytes, too: grep(1) is faster than an unoptimized build
    // of this program.
    let producer = || {
        printed(Command::new("grep").args([
            "-a",
            "-o",
            "-m1",
            "-E",
            "LLVM[0-9]+\\.[0-9]+\\.[0-9]+",
        ]))
    };
    llvm_of_libraries(&libraries).or_else(|| leading_number(producer()?.strip_prefix("LLVM")?))
}

/// The LLVM major in the output of ldd(1): `libLLVM.so.22.1`, or `libLLVM-17.so.1` before LLVM 18.
fn llvm_of_libraries(libraries: &str) -> Option<u32> {
    let name = libraries
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libLLVM"))?;
    leading_number(name.trim_start_matches(['.', '-', 's', 'o']))
}

/// The number at the start of `text`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_of_libraries;

    #[test]
    fn llvm_of_a_shared_library_is_read() {
        let ldd = "\tlinux-vdso.so.1 (0x7f)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)\n";
        assert_eq!(llvm_of_libraries(ldd), Some(22));
        assert_eq!(
            llvm_of_libraries("\tlibLLVM-17.so.1 => /usr/lib/libLLVM-17.so.1 (0x7f)\n"),
            Some(17)
        );
        assert_eq!(
            llvm_of_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n"),
            None
        );
        assert_eq!(llvm_of_libraries("\tstatically linked\n"), None);
    }
}
