//! The one directory that the agent writes. Each file is replaced by rename, so that a reader sees
//! the old or the new one, and a crash leaves one of them.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tempfile::Builder;

use crate::{addresses::Known, record::Record};

/// What the agent remembers over restarts.
const MEMORY: &str = ".agent.json";

/// The beginning of the names of files that are being written.
const UNFINISHED: &str = ".new-";

/// The directory of the lists.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// What the agent remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The lists, by name.
    pub records: BTreeMap<String, Record>,
    /// The addresses of the nodes.
    pub nodes: Known,
    /// The pod ranges.
    pub pods: Known,
}

impl Directory {
    /// The directory at `path`.
    ///
    /// # Errors
    /// If this process cannot make files in it.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Self::at(path);
        directory.remove_unfinished().and_then(|()| {
            Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(path)
                .map(drop)
        }).with_context(|| {
            format!(
                "write lists in `{0}` as user {1} (a package of apifence makes it; by hand: `install -d -o {1} -g {1} {0}`)",
                path.display(),
                nix::unistd::geteuid()
            )
        })?;
        Ok(directory)
    }

    /// The directory at `path`, to read it.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The name of the directory, which is the first part of its lists' names.
    pub fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Removes what a killed agent left.
    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes `text` the file `name`.
    ///
    /// # Errors
    /// If it cannot be written; the file is as before.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        let written = || -> io::Result<()> {
            let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o644))?;
            // A node that loses power must not find an empty list.
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(&self.0)?.sync_all()
        };
        written().with_context(|| format!("write `{}`", path.display()))
    }

    /// The text of the file `name`; `None` if there is none that can be read.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok()
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove `{}`", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// What was remembered; nothing if it cannot be read.
    pub fn memory(&self) -> Memory {
        self.json(MEMORY).unwrap_or_default()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn remember(&self, memory: &Memory) -> Result<()> {
        self.write(MEMORY, &(serde_json::to_string(memory)? + "\n"))
    }

    /// The JSON in the file `name`; `None` if there is none.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(&self.read(name)?).ok()
    }

    /// Makes `value` the file `name`, without waiting for the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.0.join(name);
        let written = || -> io::Result<()> {
            let file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.0)?;
            serde_json::to_writer(file.as_file(), value)?;
            file.persist(&path)?;
            Ok(())
        };
        written().with_context(|| format!("write `{}`", path.display()))
    }
}
