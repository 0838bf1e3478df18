//! `apifence man`: the manual pages, made from the command line's own description, the table of
//! keys of the config file, and the examples of the help.

mod commands;
mod formats;
mod page;
#[cfg(test)]
mod tests;

use std::{fs, io, path::Path};

use anyhow::Result;

use crate::{
    cli,
    ui::{
        error::{UserError, errno},
        output::print_unescaped,
    },
};

/// Writes the manual page to stdout, or every page into `directory`.
pub(super) fn man(directory: Option<&Path>) -> Result<u8> {
    let pages = pages();
    let Some(directory) = directory else {
        let first = pages.first().map(|(_, text)| text.as_str());
        print_unescaped(first.unwrap_or_default())?;
        return Ok(0);
    };
    let write = || -> io::Result<()> {
        for (name, text) in &pages {
            fs::write(directory.join(name), text)?;
        }
        Ok(())
    };
    write().map_err(|error| {
        UserError::failed(
            format!(
                "write manual pages into `{}`: {}",
                directory.display(),
                errno(&error)
            ),
            "name a directory that exists and can be written",
        )
    })?;
    Ok(0)
}

/// Every page with the name of its file, the page of the program first.
fn pages() -> Vec<(String, String)> {
    let mut pages = commands::pages(cli::command());
    pages.extend(formats::pages());
    pages
}
