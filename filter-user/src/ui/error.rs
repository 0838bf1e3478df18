//! Errors as the user reads them: `verb object: cause`, then a hint with the next step.

use std::{borrow::Cow, fmt};

use indicatif::HumanCount;
use nix::errno::Errno;

use super::visible::visible_in_line;

/// Wrong usage or bad input: the user can fix it in the typed or written text.
pub const EXIT_INPUT: u8 = 2;
/// The command failed.
pub const EXIT_FAILED: u8 = 3;

/// A failure with a hint and an exit code. [`anyhow::Error`] carries it; `main` alone prints it.
#[derive(Debug)]
pub struct UserError {
    /// The cause.
    pub cause: String,
    /// The next step.
    pub hint: String,
    /// The process's exit code.
    pub exit: u8,
    /// The request is valid but harmful: it is carried out with `--force`.
    pub refused: bool,
    /// Lines after the hint: the prevented changes, and the clients that they would cut.
    pub details: Vec<String>,
}

impl UserError {
    /// A valid change that is refused without `--force`; `details` say what it would do.
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

    /// A failure that the user's input did not cause.
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

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for UserError {}

/// Several refusals at once. All faults of a file are reported together, the first in words and the
/// rest as a number. Commands, logs, `status` and probes use the same text.
#[derive(Debug)]
pub struct InputErrors {
    first: Vec<(String, String)>,
    more: usize,
}

impl InputErrors {
    /// The number of refusals in words.
    pub const MAX_SHOWN: usize = 10;
    /// The maximum length of each, in characters.
    const MAX_LEN: usize = 1000;

    /// The causes, each with its hint.
    pub fn new(list: Vec<(String, String)>) -> Self {
        Self::counted(list, 0)
    }

    /// Like [`new`](Self::new), with `more` further ones that were not kept.
    pub fn counted(mut list: Vec<(String, String)>, more: usize) -> Self {
        let more = more + list.len().saturating_sub(Self::MAX_SHOWN);
        list.truncate(Self::MAX_SHOWN);
        for (cause, hint) in &mut list {
            shorten(cause);
            shorten(hint);
        }
        Self { first: list, more }
    }

    /// The first causes, and the number of the others.
    pub fn causes(&self) -> Vec<String> {
        let first = self.first.iter().map(|(cause, _)| cause.clone());
        first.chain(self.and_more()).collect()
    }

    /// The first causes with their hints, as they are printed.
    pub fn lines(&self) -> Vec<String> {
        let first = self.first.iter();
        let first = first.map(|(cause, hint)| format!("error: {cause}\nhint: {hint}"));
        let more = self.and_more().map(|more| format!("error: {more}"));
        first.chain(more).collect()
    }

    fn and_more(&self) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more like these", HumanCount(self.more as u64)))
    }
}

/// Makes a text one readable line, and cuts a very long one.
fn shorten(text: &mut String) {
    if let Cow::Owned(visible) = visible_in_line(text) {
        *text = visible;
    }
    if let Some((end, _)) = text.char_indices().nth(InputErrors::MAX_LEN) {
        text.truncate(end);
        text.push_str("...");
    }
}

impl fmt::Display for InputErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.causes().join("; "))
    }
}

impl std::error::Error for InputErrors {}

/// The hint for an I/O error: `otherwise`, unless descriptors are short, which no advice about a
/// file fixes.
pub fn hint<'a>(error: &std::io::Error, otherwise: &'a str) -> &'a str {
    match error.raw_os_error() {
        Some(nix::libc::EMFILE) => {
            "too many open files in this process: raise the limit with `ulimit -n 1024`, or `LimitNOFILE=` in a unit; the policy stays in force"
        }
        Some(nix::libc::ENFILE) => {
            "too many open files on this node: end some processes, or raise `fs.file-max`; the policy stays in force"
        }
        _ => otherwise,
    }
}

/// The text of an I/O error: the system's own, in lower case, without its number.
pub fn errno(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        // The kernel's internal ENOTSUPP, which libc does not know.
        Some(524) => "operation not supported".to_owned(),
        Some(number) => match Errno::from_raw(number) {
            Errno::UnknownErrno => format!("error {number}"),
            known => lower_first(known.desc()),
        },
        // An error that is wrapped with a path has no number.
        None if error.kind() == std::io::ErrorKind::StorageFull => {
            Errno::ENOSPC.desc().to_lowercase()
        }
        None => error.to_string(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // `I/O error` keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_the_first_and_a_count() {
        let list = |count: usize| {
            (0..count)
                .map(|n| (format!("fault {n}"), "mend it".to_owned()))
                .collect()
        };
        assert_eq!(InputErrors::new(list(10)).causes().len(), 10);
        let refusals = InputErrors::counted(list(12), 59_988);
        assert_eq!(refusals.causes().len(), 11);
        assert_eq!(
            refusals.lines().last().map(String::as_str),
            Some("error: and 59,990 more like these")
        );
        assert!(
            refusals
                .to_string()
                .ends_with("fault 9; and 59,990 more like these")
        );
        let long = InputErrors::new(vec![("\u{e9}".repeat(100_000), String::new())]);
        assert!(long.to_string().len() < 3_000);
        let lines = InputErrors::new(vec![("`a\nerror: b\x1b`".to_owned(), String::new())]);
        assert_eq!(lines.to_string(), "`a\\u{a}error: b\\u{1b}`");
    }
}
