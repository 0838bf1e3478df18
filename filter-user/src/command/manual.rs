//! `apifence man`: the manual pages.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    cli,
    ui::{
        error::{UserError, errno},
        output::print_unescaped,
    },
};

/// Writes the manual page to stdout, or one page per command into `directory`.
pub(super) fn man(directory: Option<&Path>) -> Result<u8> {
    match directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(cli::command())
                .render(&mut page)
                .context("write manual page")?;
            print_unescaped(&String::from_utf8_lossy(&page))?;
        }
        Some(directory) => {
            clap_mangen::generate_to(cli::command(), directory).map_err(|error| {
                UserError::failed(
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
