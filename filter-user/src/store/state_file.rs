//! `state.json`: what is in force, for programs that may not ask the kernel.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::trust::foreign_writer;
use crate::ui::error::{UserError, errno};

const NAME: &str = "state.json";

/// The file, in a directory that only root may write.
pub struct StateFile {
    directory: PathBuf,
    /// Whether the directory was examined.
    is_ready: bool,
}

impl StateFile {
    /// The file in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            is_ready: false,
        }
    }

    /// Replaces the file by one with `text`: a reader sees all of it, or the one before. Every user
    /// may read it. It is not synced to the disk: after a boot it is without meaning.
    ///
    /// # Errors
    /// If the directory cannot be made or written, or another user may write there.
    pub fn write(&mut self, text: &[u8]) -> Result<()> {
        let explain = |error: io::Error| {
            UserError::failed(
                format!(
                    "write `{}`: {}",
                    self.directory.join(NAME).display(),
                    errno(&error)
                ),
                "`apifence status` shows the same",
            )
        };
        if !self.is_ready {
            self.prepare().map_err(explain)?;
        }
        let written = self.replace(text);
        // It may have been removed: it is made and examined again.
        self.is_ready = written.is_ok();
        written.map_err(explain)
    }

    /// Makes the directory, and examines it.
    fn prepare(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o755).create(&self.directory) {
            // The mask of a service takes rights away.
            Ok(()) => fs::set_permissions(&self.directory, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        foreign_writer(&self.directory).map_or(Ok(()), |cause| Err(io::Error::other(cause)))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.directory.join(".state.json.new");
        let create = || {
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o644).open(&new)
        };
        let mut file = match create() {
            // Of a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&new)?;
                create()?
            }
            file => file?,
        };
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text)?;
        fs::rename(&new, self.directory.join(NAME))
    }
}
