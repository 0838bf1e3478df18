//! One case: its name, its result, the line on the console.

use std::time::Instant;

use anyhow::Result;

/// The start of a line that `cargo xtask vm-test` reads.
const MARK: &str = "vm-case";

/// The result of a case.
pub(crate) enum Outcome {
    /// It passed; a few words for the table.
    Passed(String),
    /// It failed, for this cause.
    Failed(String),
    /// This kernel cannot run it, for this cause.
    NotRun(String),
}

impl Outcome {
    /// Prints the line of the case `name`, which took `seconds`.
    pub(crate) fn print(&self, name: &str, seconds: f32) {
        let (word, text) = match self {
            Self::Passed(text) => ("passed", text),
            Self::Failed(text) => ("failed", text),
            Self::NotRun(text) => ("not run", text),
        };
        let text = text.replace(['\n', '\r', '\t'], " ");
        println!("{MARK}\t{name}\t{word}\t{seconds:.1}\t{text}");
    }
}

/// Runs a case and prints its line; whether it did not fail.
pub(crate) fn case(name: &str, work: impl FnOnce() -> Result<Outcome>) -> bool {
    let started = Instant::now();
    let outcome = work().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    outcome.print(name, started.elapsed().as_secs_f32());
    !matches!(outcome, Outcome::Failed(_))
}

/// The same for a case that has nothing to tell.
pub(crate) fn plain(name: &str, work: impl FnOnce() -> Result<()>) -> bool {
    case(name, || work().map(|()| Outcome::Passed(String::new())))
}
