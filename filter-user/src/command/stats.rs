//! `apifence stats`: the counters, by interface and reason.

use anyhow::Result;

use crate::{context::Context, view::stats::read};

/// Runs the command without `--watch`.
pub(super) fn run(context: &Context) -> Result<u8> {
    let stats = read(context)?;
    if stats.interfaces.is_empty() {
        return Err(context.nothing_attached());
    }
    context.global.output.write(&stats)?;
    Ok(0)
}
