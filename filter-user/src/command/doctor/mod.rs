//! `apifence doctor`: what is in order on this node, and what is not. It writes nothing but a
//! report that was asked for.

mod bundle;
mod checks;

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use self::checks::Examination;
use crate::{cli::DoctorArgs, cluster::Root, context::Context, ui::output::eprint};

/// A check, and its result.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// Its name, for scripts.
    check: &'static str,
    result: CheckResult,
    message: String,
    /// What to do; none if all is well.
    fix: Option<String>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckResult {
    /// In order.
    Ok,
    /// An operator should know.
    Warn,
    /// Something is open, cut or broken, or will be.
    Fail,
}

#[derive(Serialize)]
struct Diagnosis {
    checks: Vec<Check>,
    warned: usize,
    failed: usize,
}

impl Diagnosis {
    fn new(checks: Vec<Check>) -> Self {
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
            writeln!(f, "{result}  {:<11} {}", check.check, check.message)?;
            if let Some(fix) = &check.fix {
                writeln!(f, "      fix: {fix}")?;
            }
        }
        let ok = self.checks.len() - self.warned - self.failed;
        write!(
            f,
            "{ok} in order, {} warned, {} failed",
            self.warned, self.failed
        )
    }
}

/// Runs the command.
pub(super) fn run(context: &Context, args: &DoctorArgs) -> Result<u8> {
    let root = Root::new(args.root.from_root.clone());
    let examination = Examination::new(context, &root)?;
    let diagnosis = Diagnosis::new(examination.checks());
    context.global.output.write(&diagnosis)?;
    if let Some(path) = &args.bundle {
        bundle::write(context, path, &diagnosis, &examination, args.with_addresses)?;
        eprint(format_args!("report written to `{}`", path.display()));
    }
    Ok(u8::from(diagnosis.failed > 0))
}
