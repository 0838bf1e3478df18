//! The result of a command, and what a test requires of it.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};

use super::schema::Asked;

/// Result of a command that has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    command: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// The result of `apifence` with these arguments.
    ///
    /// # Errors
    /// If JSON that it printed is not as its schema says.
    pub fn new(arguments: &[&str], output: &Output) -> Result<Self> {
        let ran = Self::of("apifence", arguments, output);
        // A process that was killed may have written a part.
        if let (Some(asked), Some(_)) = (Asked::of(arguments), ran.code) {
            let checked = asked.check(&ran.stdout);
            let checked = checked.and_then(|()| match asked.is_log() && asked.json {
                true => asked.check(&ran.stderr),
                false => Ok(()),
            });
            checked.with_context(|| ran.to_string())?;
        }
        Ok(ran)
    }

    /// The result of another program with these arguments.
    pub fn of(program: &str, arguments: &[&str], output: &Output) -> Self {
        Self {
            command: format!("{program} {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Requires exit code 0.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(self.code == Some(0), "wanted exit code 0; {self}");
        Ok(self)
    }

    /// Requires each of these words on stderr.
    pub fn stderr_has(&self, words: &[&str]) -> Result<()> {
        words.iter().try_for_each(|word| {
            ensure!(
                self.stderr.contains(word),
                "`{word}` is not on stderr; {self}"
            );
            Ok(())
        })
    }

    /// Requires none of these words on stderr.
    pub fn stderr_lacks(&self, words: &[&str]) -> Result<()> {
        words.iter().try_for_each(|word| {
            ensure!(!self.stderr.contains(word), "`{word}` is on stderr; {self}");
            Ok(())
        })
    }
}

/// Exit code for wrong usage and invalid input.
pub const INPUT: i32 = 2;
/// Exit code for a runtime failure.
pub const FAILED: i32 = 3;

/// Requires this exit code, nothing on stdout, a line `error: ...` or `refused: ...` with all of
/// `words`, and a line `hint: ...` after it.
pub fn refused(ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    ensure!(ran.code == Some(code), "wanted exit code {code}; {ran}");
    ensure!(ran.stdout.is_empty(), "wanted no data; {ran}");
    let mut lines = ran
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("error: ") && !line.starts_with("refused: "));
    let error = lines.next().unwrap_or_default();
    ensure!(!error.is_empty(), "no line `error: ...`; {ran}");
    for word in words {
        ensure!(error.contains(word), "`{word}` is not in the error; {ran}");
    }
    // A thread of the metrics server prints these lines at any time.
    let mut lines = lines.filter(|line| !line.starts_with("metrics at"));
    let hint = lines.next().unwrap_or_default();
    ensure!(
        hint.starts_with("hint: "),
        "no line `hint: ...` follows; {ran}"
    );
    Ok(())
}

impl Ran {
    /// The command and its output as a terminal shows them, with the exit code unless it is 0.
    pub fn transcript(&self) -> String {
        let code = match self.code {
            Some(0) => String::new(),
            Some(code) => format!("[exit code {code}]\n"),
            None => "[killed]\n".to_owned(),
        };
        format!("$ {}\n{}{}{code}", self.command, self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "`{command}` ended with {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}"
        )
    }
}
