//! `apifence explain`: explains a warning.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::{
    codes::{Code, Severity, Text, Unknown, listed},
    context::Context,
    ui::{error::UserError, output::table},
};

/// The explanation of some codes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Explained {
    /// The warning that was asked for, or all of them.
    warnings: Vec<Explanation>,
    /// Whether the text output has one line per code.
    #[serde(skip)]
    short: bool,
}

/// A kind of warning.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Explanation {
    /// Its number, like `W08`. It never changes its meaning.
    code: Code,
    /// Its name, like `tunnel`.
    name: &'static str,
    /// Whether it needs the operator's attention.
    severity: Severity,
    /// Whether `apifence status --ack` can silence it.
    can_be_acknowledged: bool,
    /// What it is, in a few words.
    title: &'static str,
    /// What it means.
    means: &'static str,
    /// What can happen.
    harm: &'static str,
    /// What to do.
    fix: &'static str,
    /// How to silence it.
    silence: String,
}

impl Explanation {
    fn of(code: Code) -> Self {
        let Text {
            title,
            means,
            harm,
            fix,
        } = code.text();
        Self {
            code,
            name: code.name(),
            severity: code.severity(),
            can_be_acknowledged: code.can_be_acknowledged(),
            title,
            means,
            harm,
            fix,
            silence: code.silence(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (severity, name) = (self.severity.label(), self.name);
        writeln!(f, "{} {name} ({severity})\n{}", self.code, self.title)?;
        for (heading, text) in [
            ("What it means", self.means),
            ("What can happen", self.harm),
            ("What to do", self.fix),
            ("How to silence it", &self.silence),
        ] {
            writeln!(f, "\n{heading}")?;
            wrapped(f, text)?;
        }
        Ok(())
    }
}

/// Writes `text` indented, in lines that fit a terminal.
fn wrapped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    const WIDTH: usize = 78;
    let mut line = String::from(" ");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.len() + 1 + word.len() > WIDTH {
            writeln!(f, "{line}")?;
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(f, "{line}")
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.short {
            return self.warnings.iter().try_for_each(|one| one.fmt(f));
        }
        let row = |one: &Explanation| {
            let (code, severity) = (one.code.to_string(), one.severity.label().to_owned());
            vec![code, severity, one.name.to_owned(), one.title.to_owned()]
        };
        let header = ["code", "severity", "name", "meaning"];
        writeln!(f, "{}", table(&header, self.warnings.iter().map(row)))?;
        write!(f, "`apifence explain CODE` explains one code")
    }
}

/// Runs the command for `code`, or for all codes in short.
pub(super) fn run(context: &Context, code: Option<&str>) -> Result<u8> {
    let codes = match code {
        None => Code::ALL.to_vec(),
        Some(text) => vec![text.parse().map_err(|Unknown| {
            UserError::input(
                format!("explain warning: unknown warning `{text}`"),
                format!("the codes are {}", listed()),
            )
        })?],
    };
    context.global.output.write(&Explained {
        warnings: codes.into_iter().map(Explanation::of).collect(),
        short: code.is_none(),
    })?;
    Ok(0)
}
