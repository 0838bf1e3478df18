//! The context that a command runs in, from its command line.

use std::{env, path::PathBuf};

use anyhow::Result;
use clap::{ArgMatches, CommandFactory as _};

use crate::{
    cli::Cli,
    config::{Config, DEFAULT_RUNTIME_DIR},
    context::{Context, Global, load},
    kernel::pins::Pins,
    ui::output::{Output, log_as_json},
};

/// The directory of what `run` tells other programs, which is where they look. The variable is for
/// several filters on one node.
fn runtime_dir() -> PathBuf {
    let named = env::var_os("APIFENCE_RUNTIME_DIR").filter(|named| !named.is_empty());
    named.map_or_else(|| DEFAULT_RUNTIME_DIR.into(), PathBuf::from)
}

/// How data is written.
fn output(cli: &Cli, config: &Config) -> Output {
    match cli.global.look.json {
        true => Output::Json,
        false => *config.output,
    }
}

/// Whether a command line that `clap` refuses is `run` with `-o json`.
pub(super) fn is_run_with_json() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    let run = matches
        .ok()
        .and_then(|mut matches| matches.remove_subcommand());
    let Some((verb, matches)) = run else {
        return false;
    };
    let output = matches.try_get_one::<Output>("output").ok().flatten();
    let is_short = matches.try_get_one::<bool>("json").ok().flatten();
    verb == "run" && (output == Some(&Output::Json) || is_short == Some(&true))
}

/// The context of a command.
///
/// # Errors
/// If a setting that it needs is unknown.
pub(super) fn context_of(cli: &Cli, matches: &ArgMatches) -> Result<Context> {
    // `run` writes all messages as JSON, those about its settings as well.
    let choose_log = |config: &Config| {
        if output(cli, config) == Output::Json {
            log_as_json();
        }
    };
    let (config, file) = load::load(cli, matches, choose_log)?;
    Ok(Context {
        global: Global {
            ranges_file: config.ranges_file.to_path_buf(),
            runtime_dir: runtime_dir(),
            output: output(cli, &config),
            verbose: *config.verbose,
        },
        pins: Pins::new(config.bpffs.to_path_buf()),
        config,
        file,
    })
}
