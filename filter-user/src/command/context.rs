//! The context that a command runs in, from its command line.

use anyhow::Result;
use clap::ArgMatches;

use crate::{
    cli::Cli,
    context::{Context, Global, load},
    kernel::pins::Pins,
};

/// The context of a command.
///
/// # Errors
/// If a setting that it needs is unknown.
pub(super) fn context_of(cli: &Cli, matches: &ArgMatches) -> Result<Context> {
    let (config, file) = load::load(cli, matches)?;
    Ok(Context {
        global: Global {
            ranges_file: config.ranges_file.to_path_buf(),
            output: *config.output,
            verbose: *config.verbose,
        },
        pins: Pins::new(config.bpffs.to_path_buf()),
        config,
        file,
    })
}
