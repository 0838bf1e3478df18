//! The context that a command runs in, from its command line.

use std::{env, path::PathBuf};

use anyhow::Result;
use clap::ArgMatches;

use crate::{
    cli::Cli,
    config::DEFAULT_RUNTIME_DIR,
    context::{Context, Global, load},
    kernel::pins::Pins,
    ui::output::Output,
};

/// The directory of what `run` tells other programs, which is where they look. The variable is for
/// several filters on one node.
fn runtime_dir() -> PathBuf {
    let named = env::var_os("APIFENCE_RUNTIME_DIR").filter(|named| !named.is_empty());
    named.map_or_else(|| DEFAULT_RUNTIME_DIR.into(), PathBuf::from)
}

/// The context of a command.
///
/// # Errors
/// If a setting that it needs is unknown.
pub(super) fn context_of(cli: &Cli, matches: &ArgMatches) -> Result<Context> {
    let (config, file) = load::load(cli, matches)?;
    Ok(Context {
        global: Global {
            ranges_file: config.ranges_file.to_path_buf(),
            runtime_dir: runtime_dir(),
            output: match cli.global.look.json {
                true => Output::Json,
                false => *config.output,
            },
            verbose: *config.verbose,
        },
        pins: Pins::new(config.bpffs.to_path_buf()),
        config,
        file,
    })
}
