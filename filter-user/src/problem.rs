//! What can go wrong, as the user reads it: `verb object: cause`, then a hint with the next step.

use std::fmt;

use nix::errno::Errno;

/// Wrong usage or bad input: the user can mend it in what was typed or written.
pub const EXIT_INPUT: u8 = 2;
/// It failed.
pub const EXIT_FAILED: u8 = 3;

/// A failure with a hint and an exit code. [`anyhow::Error`] carries it; `main` alone prints it.
#[derive(Debug)]
pub struct Problem {
    /// The complaint.
    pub cause: String,
    /// What to do next.
    pub hint: String,
    /// The process's exit code.
    pub exit: u8,
    /// Nothing is wrong with what was asked for, but it does harm: it is done if somebody insists.
    pub refused: bool,
    /// What is to be read after the hint, a line each: what would have changed, and whom that would cut.
    pub details: Vec<String>,
}

impl Problem {
    /// A change that is possible, and is not made unless somebody insists: `details` say what it would do.
    pub fn refused(
        cause: impl Into<String>,
        hint: impl Into<String>,
        details: Vec<String>,
    ) -> anyhow::Error {
        Self {
            cause: cause.into(),
            hint: hint.into(),
            exit: EXIT_INPUT,
            refused: true,
            details,
        }
        .into()
    }

    /// Something failed that the user's input did not cause.
    pub fn failed(cause: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self {
            cause: cause.into(),
            hint: hint.into(),
            exit: EXIT_FAILED,
            refused: false,
            details: Vec::new(),
        }
        .into()
    }

    /// The user's input is at fault.
    pub fn input(cause: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self {
            cause: cause.into(),
            hint: hint.into(),
            exit: EXIT_INPUT,
            refused: false,
            details: Vec::new(),
        }
        .into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Problem {}

/// Several refusals at once: all errors of a file are reported in one go.
#[derive(Debug)]
pub struct Refusals {
    /// The complaints, each with its hint.
    pub list: Vec<(String, String)>,
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes: Vec<&str> = self.list.iter().map(|(cause, _)| cause.as_str()).collect();
        f.write_str(&causes.join("; "))
    }
}

impl std::error::Error for Refusals {}

/// What to do about an I/O error: `otherwise`, unless it is a shortage of descriptors, which nothing that is specific to a file mends.
pub fn hint<'a>(error: &std::io::Error, otherwise: &'a str) -> &'a str {
    match error.raw_os_error() {
        Some(nix::libc::EMFILE) => {
            "this process may open too few files: `ulimit -n 1024`, or `LimitNOFILE=` in a unit; what was in force stays in force"
        }
        Some(nix::libc::ENFILE) => {
            "all processes of this node together have too many files open: end some, or raise `fs.file-max`; what was in force stays in force"
        }
        _ => otherwise,
    }
}

/// The words for an I/O error: the system's own, in lower case, without its number.
pub fn errno(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        // The kernel's own ENOTSUPP, which libc does not know.
        Some(524) => "operation not supported".to_owned(),
        Some(number) => match Errno::from_raw(number) {
            Errno::UnknownErrno => format!("error {number}"),
            known => lower_first(known.desc()),
        },
        None => error.to_string(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // `I/O error` stays as it is.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
