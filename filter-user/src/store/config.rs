//! The config file: read whole.

use std::{io, path::Path};

use anyhow::Result;

use super::read::{MOST_OF_CONFIG, read_regular};
use crate::ui::error::{UserError, errno};

/// What was found at the path of the config file.
pub enum ConfigText {
    /// No file: the defaults hold.
    Absent,
    /// This.
    Text(String),
    /// A file that cannot be read, and why.
    Unreadable(String),
}

/// Reads the config file. One that was `named`, by a flag or the environment, must be there.
///
/// # Errors
/// If it must, and is not.
pub fn read_config(path: &Path, named: bool) -> Result<ConfigText> {
    let bytes = match read_regular(path, MOST_OF_CONFIG) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named => {
            return Err(UserError::input(
                format!("read config file `{}`: no such file", path.display()),
                "name one that is there with `--config` or `APIFENCE_CONFIG`, or none for the defaults",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ConfigText::Absent),
        Err(error) => return Ok(ConfigText::Unreadable(errno(&error))),
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) => ConfigText::Text(text),
        Err(_) => ConfigText::Unreadable("it is no UTF-8 text".to_owned()),
    })
}
