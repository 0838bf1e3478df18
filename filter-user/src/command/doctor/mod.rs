//! `apifence doctor`: what is in order on this node, and what is not. It writes nothing but a
//! report that was asked for.

mod agent;
mod bundle;
mod checks;
mod diagnosis;

use anyhow::Result;

#[cfg(test)]
pub(super) use self::bundle::Bundle;
use self::checks::Examination;
pub(super) use self::diagnosis::Diagnosis;
use crate::{cli::DoctorArgs, cluster::Root, context::Context, ui::output::eprint};

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
