//! `apifence completions` and `apifence man`: what the command line says of itself, for the shell and for the manual.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    cli::Cli,
    problem::{Problem, errno},
};

/// Writes completions for `shell` to stdout.
pub(super) fn completions(shell: Shell) -> u8 {
    clap_complete::generate(shell, &mut Cli::command(), "apifence", &mut io::stdout());
    0
}

/// Writes the manual page to stdout, or one for each command into `directory`.
pub(super) fn man(directory: Option<&Path>) -> Result<u8> {
    match directory {
        None => clap_mangen::Man::new(Cli::command())
            .render(&mut io::stdout())
            .context("write manual page")?,
        Some(directory) => {
            clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
                Problem::failed(
                    format!(
                        "write manual pages into `{}`: {}",
                        directory.display(),
                        errno(&error)
                    ),
                    "name a directory that exists and can be written",
                )
            })?;
        }
    }
    Ok(0)
}
