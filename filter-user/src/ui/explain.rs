//! Turns a kernel error into a sentence and a hint.

use std::{error::Error, io};

use caps::{CapSet, Capability};

use super::error::{self, UserError, errno};

/// The hint where the kernel refuses a process its request.
pub const NEEDS_RIGHTS: &str = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// The error of `verb object`, with the cause that matters and a hint.
pub fn explain(verb: &str, error: &(dyn Error + Send + Sync + 'static)) -> anyhow::Error {
    match io_error(error) {
        Some(cause) => {
            let text = format!("{verb}: {}", errno(cause));
            match verifier_line(error) {
                Some(line) => UserError::failed(format!("{text}: {line}"), verifier_hint()),
                None => UserError::failed(text, error::hint(cause, hint(cause))),
            }
        }
        None => UserError::failed(
            format!("{verb}: {}", innermost(error)),
            "this is unexpected; please report it with the output of `apifence status` and `uname -r`",
        ),
    }
}

/// The I/O error at the bottom of `error`, if there is one.
pub fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => NEEDS_RIGHTS,
        Some(nix::libc::ENOMEM | nix::libc::E2BIG | nix::libc::ENOSPC) => {
            "free memory or shorten the list; the policy stays in force"
        }
        Some(nix::libc::EOPNOTSUPP) => "use `--xdp-mode auto`, or `generic`, which is slower",
        Some(nix::libc::ENOENT) => {
            "the pins are incomplete: `apifence detach`, then `apifence attach`; the ports are open in between"
        }
        Some(nix::libc::EINVAL) => {
            "this is unexpected; please report it with the output of `apifence status` and `uname -r`"
        }
        _ => "`apifence status` shows what is in force",
    }
}

fn verifier_hint() -> &'static str {
    let perfmon = caps::has_cap(None, CapSet::Effective, Capability::CAP_PERFMON);
    if let Ok(false) = perfmon {
        return "run it as root, or add CAP_PERFMON: without it the verifier refuses the program";
    }
    "this kernel's verifier refuses the program; please report it with the output of `uname -r`"
}

/// The line of a verifier log with the error: the last one before its statistics.
fn verifier_line(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((_, log)) = text.split_once("Verifier output:") {
            return log
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .rfind(|line| {
                    !line.starts_with("processed ")
                        && !line.starts_with("verification time")
                        && !line.starts_with("stack depth")
                })
                .map(str::to_owned);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("the BPF_PROG_LOAD syscall failed. Verifier output: {log}")]
    struct Refused {
        log: &'static str,
        source: io::Error,
    }

    /// Privilege is not the cause, although the errno is the same.
    #[test]
    fn a_verifier_error_is_reported_as_one() {
        let error = Refused {
            log: "1: (79) r2 = *(u64 *)(r0 +64)\nR0 unbounded memory access\nprocessed 2 insns (limit 1000000)\n",
            source: io::Error::from_raw_os_error(nix::libc::EACCES),
        };
        let error = explain("load program `apifence`", &error);
        assert_eq!(
            error.to_string(),
            "load program `apifence`: permission denied: R0 unbounded memory access"
        );
        let problem = error.downcast_ref::<UserError>().expect("a problem");
        assert!(problem.hint.contains("verifier"), "{problem:?}");
    }

    #[test]
    fn the_systems_own_words_are_found_at_the_bottom() {
        let error = Outer(io::Error::from_raw_os_error(nix::libc::EPERM));
        assert_eq!(
            explain("load program `apifence`", &error).to_string(),
            "load program `apifence`: operation not permitted"
        );
    }
}
