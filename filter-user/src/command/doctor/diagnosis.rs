//! The checks with their results, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::ui::visible::visible_in_line;

/// A check, and its result.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Check {
    /// Its name, for scripts.
    pub(super) check: &'static str,
    /// Its result.
    pub(super) result: CheckResult,
    /// What was found, in words.
    pub(super) message: String,
    /// What to do, in words; null if all is well.
    pub(super) fix: Option<String>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckResult {
    /// In order.
    Ok,
    /// An operator should know.
    Warn,
    /// Something is open, cut or broken, or will be.
    Fail,
}

/// A check of something in order.
pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Check {
    let (result, message, fix) = (CheckResult::Ok, message.into(), None);
    Check {
        check,
        result,
        message,
        fix,
    }
}

/// A check with a warning.
pub(super) fn warn(
    check: &'static str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Check {
    Check {
        result: CheckResult::Warn,
        fix: Some(fix.into()),
        ..ok(check, message)
    }
}

/// A check that failed.
pub(super) fn fail(
    check: &'static str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Check {
    Check {
        result: CheckResult::Fail,
        ..warn(check, message, fix)
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Diagnosis {
    /// The checks, in the order of the text.
    checks: Vec<Check>,
    /// How many warned.
    warned: usize,
    /// How many failed.
    pub(super) failed: usize,
}

impl Diagnosis {
    /// The result of all checks.
    pub(super) fn new(checks: Vec<Check>) -> Self {
        let count = |wanted| checks.iter().filter(|one| one.result == wanted).count();
        let (warned, failed) = (count(CheckResult::Warn), count(CheckResult::Fail));
        Self {
            checks,
            warned,
            failed,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let result = match check.result {
                CheckResult::Ok => "OK  ",
                CheckResult::Warn => "WARN",
                CheckResult::Fail => "FAIL",
            };
            // Names from files and of programs must not look like another check.
            let message = visible_in_line(&check.message);
            writeln!(f, "{result}  {:<11} {message}", check.check)?;
            if let Some(fix) = &check.fix {
                writeln!(f, "      fix: {}", visible_in_line(fix))?;
            }
        }
        let ok = self.checks.len() - self.warned - self.failed;
        write!(
            f,
            "{ok} ok, {} warnings, {} failed",
            self.warned, self.failed
        )
    }
}
