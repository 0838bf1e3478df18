//! Commands that are printed before they run, or printed instead.

use std::{fmt, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::machine::Privilege;

/// A command line that prints as a person would type it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Environment variables of this command only.
    variables: Vec<(String, String)>,
    words: Vec<String>,
    as_root: bool,
}

impl Step {
    /// A command that the calling user may run, from its words separated by single spaces.
    pub(crate) fn user(line: &str) -> Self {
        Self {
            variables: Vec::new(),
            words: line.split(' ').map(str::to_owned).collect(),
            as_root: false,
        }
    }

    /// A command that only root may run.
    pub(crate) fn root(line: &str) -> Self {
        Self {
            as_root: true,
            ..Self::user(line)
        }
    }

    /// Adds an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Adds words at the end.
    pub(crate) fn words<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// Prints the command and runs it; fails if it fails.
    pub(crate) fn run(&self, privilege: Privilege) -> Result<()> {
        println!("  $ {self}");
        let mut words = Vec::new();
        if self.as_root {
            words.extend(privilege.prefix()?.iter().map(|&word| word.to_owned()));
        }
        if !self.variables.is_empty() {
            // Through env(1), because sudo passes no variables on.
            words.push("env".to_owned());
            words.extend(
                self.variables
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            );
        }
        words.extend(self.words.iter().cloned());
        let [program, arguments @ ..] = words.as_slice() else {
            bail!("run an empty command: this is a bug")
        };
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("run `{program}`"))?;
        if !status.success() {
            bail!("run `{self}`: {status}");
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_root && !Privilege::is_root() {
            f.write_str("sudo ")?;
        }
        for (name, value) in &self.variables {
            write!(f, "{name}={value} ")?;
        }
        let words: Vec<_> = self.words.iter().map(|word| quoted(word)).collect();
        f.write_str(&words.join(" "))
    }
}

/// `word`, quoted for a shell.
fn quoted(word: &str) -> String {
    if word.contains([' ', '$', ';', '*']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

/// Runs `command` and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("  $ {command:?}");
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("run `{program}`"))?;
    if !status.success() {
        bail!("run `{program}`: {status}");
    }
    Ok(())
}

/// What a command prints, if it succeeds; its errors otherwise.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run `{name}`"))?;
    if !output.status.success() {
        bail!(
            "run `{name}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
