//! Data on stdout, as text or as JSON; talk on stderr.

use std::{
    fmt::Display,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs: one object
    Json,
}

impl Output {
    /// Writes what a change came to, for programs; people are told on stderr as it happens.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn result<T: Serialize>(self, data: &T) -> Result<()> {
        match self {
            Self::Text => Ok(()),
            Self::Json => Ok(writeln!(io::stdout().lock(), "{}", json(data)?)?),
        }
    }

    /// Writes one of many things, a line each, as long as the command runs.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn line<T: Serialize + Display>(self, data: &T) -> Result<()> {
        let text = match self {
            Self::Text => data.to_string(),
            Self::Json => serde_json::to_string(data).context("write JSON")?,
        };
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// Writes `data` to stdout.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn write<T: Serialize + Display>(self, data: &T) -> Result<()> {
        let text = match self {
            Self::Text => data.to_string(),
            Self::Json => json(data)?,
        };
        writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'))?;
        Ok(())
    }
}

fn json<T: Serialize>(data: &T) -> Result<String> {
    serde_json::to_string_pretty(data).context("write JSON")
}

/// Says something that is no data.
pub fn say(text: impl Display) {
    // Nobody to tell if even stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether whoever read our stdout went away, though we have nothing to tell.
pub fn is_closed() -> bool {
    let stdout = io::stdout();
    let mut ask = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut ask, PollTimeout::ZERO).is_ok()
        && ask[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// A table without borders, its columns aligned.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}
