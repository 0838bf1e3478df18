//! `apifence stats`: the counters, by verdict, interface and reason.

use anyhow::Result;

use crate::{
    cli::StatsArgs,
    context::Context,
    view::stats::{read, read_all},
};

/// Runs the command without `--watch`.
pub(super) fn run(context: &Context, args: &StatsArgs) -> Result<u8> {
    let stats = match args.all {
        true => read_all(context)?,
        false => read(context)?,
    };
    if stats.interfaces.is_empty() {
        return Err(context.nothing_attached());
    }
    context.global.output.screen(&stats)?;
    Ok(0)
}
