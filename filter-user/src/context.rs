//! The settings and paths that every command works with.

pub mod load;

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    config::{Config, Settings},
    kernel::{bpf::Maps, pins::Pins},
    ui::{error::UserError, output::Output},
};

/// The context of one command.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) global: Global,
    /// All settings, layered.
    pub(crate) config: Config,
    /// The config file, one of the layers.
    pub(crate) file: load::ConfigFile,
    pub(crate) pins: Pins,
}

/// The settings that every command uses.
#[derive(Clone)]
pub(crate) struct Global {
    pub(crate) ranges_file: PathBuf,
    pub(crate) output: Output,
    pub(crate) verbose: bool,
}

impl Context {
    /// The maps in use, if a filter is attached or was prepared.
    pub(crate) fn maps(&self) -> Result<Option<Maps>> {
        Maps::in_use(&self.pins)
    }

    /// The maps in use.
    pub(crate) fn attached_maps(&self) -> Result<Maps> {
        self.maps()?.ok_or_else(|| self.nothing_attached())
    }

    /// The settings to use if `have` are in force; `have` is none if no filter is attached.
    pub(crate) fn settings(&self, have: Option<&Settings>) -> Settings {
        match have {
            Some(have) => self.config.over(have, self.file.exists),
            None => self.config.settings(),
        }
    }

    /// Whether the ranges file's path is unknown: the unreadable config file may set it.
    pub(crate) fn is_list_unknown(&self) -> bool {
        self.config.has_unreadable(&["ranges_file"])
    }

    /// The failure of a command that needs an attached filter.
    pub(crate) fn nothing_attached(&self) -> anyhow::Error {
        UserError::failed(
            format!(
                "open pins in `{}`: no filter is attached",
                self.pins.root().display()
            ),
            "`apifence attach` attaches one",
        )
    }
}
