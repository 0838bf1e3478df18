//! The config file: read and written as a whole.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use super::{
    path::folder,
    ranges_file::sync,
    read::{MAX_CONFIG_LEN, read_regular},
};
use crate::ui::error::{UserError, errno};

/// The content at the path of the config file.
pub enum ConfigText {
    /// No file: the defaults apply.
    Absent,
    /// The file's text.
    Text(String),
    /// A file that cannot be read, and the cause.
    Unreadable(String),
}

/// Reads the config file. It must exist if it was `named` by a flag or the environment.
///
/// # Errors
/// If it must exist, and does not.
pub fn read_config(path: &Path, named: bool) -> Result<ConfigText> {
    let bytes = match read_regular(path, MAX_CONFIG_LEN) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named => {
            return Err(UserError::input(
                format!("read config file `{}`: no such file", path.display()),
                "name an existing file with `--config` or `APIFENCE_CONFIG`; without one, the defaults apply",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ConfigText::Absent),
        Err(error) => return Ok(ConfigText::Unreadable(errno(&error))),
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) => ConfigText::Text(text),
        Err(_) => ConfigText::Unreadable("it is not UTF-8 text".to_owned()),
    })
}

/// Puts `text` at `path` in one step: the whole of it, or what was there before. Missing folders
/// are made. `mode` is that of the file.
///
/// # Errors
/// If the folder is not writable, or its disk is full.
pub fn write_text(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(folder)
}
