//! The lists before the one in the file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use jiff::Timestamp;

use super::file::{read_list, real_path};
use crate::{
    problem::{Problem, errno},
    ranges::RangesFile,
};

/// How many lists are kept.
const KEPT: usize = 10;

/// The lists kept beside a ranges file.
pub struct History {
    directory: PathBuf,
}

/// A list that was replaced.
pub struct Kept {
    /// When it was written.
    pub written: Option<Timestamp>,
    path: PathBuf,
}

impl Kept {
    /// Reads the list.
    ///
    /// # Errors
    /// If it holds none: a broken file that was replaced is kept, too.
    pub fn read(&self) -> Result<RangesFile> {
        read_list(&self.path)?.ok_or_else(|| {
            Problem::failed(
                format!("read kept list `{}`: no such file", self.path.display()),
                "`apifence ranges history` shows what is kept",
            )
        })
    }
}

/// When the file at `path` was written.
pub fn written(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(time).ok()
}

impl History {
    /// The history of the ranges file at `path`.
    pub fn of(path: &Path) -> Self {
        let mut name = real_path(path).into_os_string();
        name.push(".history");
        Self {
            directory: name.into(),
        }
    }

    /// The kept lists, the last one first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn lists(&self) -> Result<Vec<Kept>> {
        let mut lists = Vec::new();
        for (_, path) in self.numbered()?.into_iter().rev() {
            lists.push(Kept {
                written: written(&path),
                path,
            });
        }
        Ok(lists)
    }

    /// Gives the file at `target` a second name here, so that replacing it loses nothing; `None` if there is no file.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(super) fn keep(&self, target: &Path) -> Result<Option<PathBuf>> {
        let explain = |error: io::Error| self.explain("write", &error);
        let file = match fs::metadata(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(explain)?,
        };
        fs::create_dir_all(&self.directory).map_err(explain)?;
        let last = self.numbered()?.pop();
        if let Some((_, path)) = &last {
            let kept = fs::metadata(path).map_err(explain)?;
            if (kept.dev(), kept.ino()) == (file.dev(), file.ino()) {
                // A change got this far and no further.
                return Ok(Some(path.clone()));
            }
        }
        let number = last.map_or(1, |(number, _)| number + 1);
        let path = self.directory.join(format!("{number:06}"));
        if fs::hard_link(target, &path).is_err() {
            // Not every file system has hard links.
            fs::copy(target, &path).map_err(explain)?;
        }
        Ok(Some(path))
    }

    /// Lets go of the oldest lists.
    pub(super) fn prune(&self) {
        let numbered = self.numbered().unwrap_or_default();
        for (_, path) in numbered.iter().rev().skip(KEPT) {
            // One list too many does no harm.
            let _ = fs::remove_file(path);
        }
    }

    fn numbered(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.explain("read", &error))?,
        };
        let mut numbered = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.explain("read", &error))?;
            if let Ok(number) = entry.file_name().to_string_lossy().parse() {
                numbered.push((number, entry.path()));
            }
        }
        numbered.sort_unstable();
        Ok(numbered)
    }

    fn explain(&self, verb: &str, error: &io::Error) -> anyhow::Error {
        Problem::failed(
            format!(
                "{verb} history `{}`: {}",
                self.directory.display(),
                errno(error)
            ),
            "nothing changed; every change keeps the list that it replaces",
        )
    }
}
