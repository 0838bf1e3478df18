//! The earlier lists: a copy of each list that was activated, and of each file that a change
//! replaced. Copies instead of hard links, since an editor may write into the file in place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    input::read_ranges,
    path::{is_in_own_folder, real_path},
};
use crate::{
    clock::to_second,
    policy::author::Author,
    ranges::RangesFile,
    ui::error::{UserError, errno},
};

/// How many lists are kept: the active one, and ten before it.
const MAX_LISTS: usize = 11;

/// The lists kept next to a ranges file.
pub struct History {
    directory: PathBuf,
    target: PathBuf,
}

/// A list that was active, or in the file.
pub struct HistoryEntry {
    /// The time of its activation; else the file's modification time, if it was never activated, or
    /// that was not recorded.
    pub written: Option<Timestamp>,
    /// The author of the activation, if recorded.
    pub by: Option<Author>,
    path: PathBuf,
}

/// Metadata of a list: `N.json` next to `N`.
#[derive(Serialize, Deserialize)]
struct Metadata {
    at: Timestamp,
    by: Author,
}

impl Metadata {
    fn path(list: &Path) -> PathBuf {
        list.with_extension("json")
    }

    fn read(list: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(list)).ok()?).ok()
    }
}

impl HistoryEntry {
    fn at(path: PathBuf) -> Self {
        let (at, by) = match Metadata::read(&path) {
            Some(Metadata { at, by }) => (Some(at), Some(by)),
            None => (written(&path), None),
        };
        Self {
            written: at,
            by,
            path,
        }
    }

    /// Parses the list.
    ///
    /// # Errors
    /// If it is not a list: a broken file that was replaced is kept, too.
    pub fn read(&self) -> Result<RangesFile> {
        read_ranges(&self.path)?.ok_or_else(|| {
            UserError::failed(
                format!("read kept list `{}`: no such file", self.path.display()),
                "`apifence ranges history` shows what is kept",
            )
        })
    }
}

/// Whether two files hold the same bytes.
fn same(one: &Path, other: &Path) -> bool {
    let same = || {
        if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
            return Ok(false);
        }
        Ok::<_, io::Error>(fs::read(one)? == fs::read(other)?)
    };
    same().unwrap_or(false)
}

/// The modification time of the file at `path`.
pub fn written(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(time).ok()
}

impl History {
    /// The history of the list in the file at `path`. It is next to the file, or next to the link
    /// to it where another user may make files: a link in the place of a copy would have root
    /// write into the file of that user's choice.
    pub fn of(path: &Path) -> Self {
        let target = real_path(path);
        let beside = match is_in_own_folder(&target) {
            true => &*target,
            false => path,
        };
        let mut name = beside.as_os_str().to_owned();
        name.push(".history");
        Self {
            directory: name.into(),
            target,
        }
    }

    /// The lists before the one in the file, the newest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn before(&self) -> Result<Vec<HistoryEntry>> {
        let mut numbered = self.numbered()?;
        if numbered
            .last()
            .is_some_and(|(_, path)| same(path, &self.target))
        {
            numbered.pop();
        }
        Ok(numbered
            .into_iter()
            .rev()
            .map(|(_, path)| HistoryEntry::at(path))
            .collect())
    }

    /// The list in the file, if it was activated unchanged.
    pub fn current(&self) -> Option<HistoryEntry> {
        let (_, last) = self.numbered().ok()?.pop()?;
        same(&last, &self.target).then(|| HistoryEntry::at(last))
    }

    /// Whether the file exists, and differs from the list that was activated last.
    pub fn is_edited(&self) -> bool {
        self.target.is_file() && self.current().is_none()
    }

    /// Keeps a copy of the file, unless it equals the newest copy; returns the path of the copy,
    /// `None` without a file.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn keep(&self) -> Result<Option<PathBuf>> {
        let explain = |error: io::Error| self.explain("write", &error);
        // A FIFO would block the copy, and a device may never end.
        if !self.target.is_file() {
            return Ok(None);
        }
        let last = self.numbered()?.pop();
        if let Some((_, path)) = &last
            && same(path, &self.target)
        {
            return Ok(Some(path.clone()));
        }
        fs::create_dir_all(&self.directory).map_err(explain)?;
        let number = last.map_or(1, |(number, _)| number + 1);
        let path = self.directory.join(format!("{number:06}"));
        let copy = || {
            fs::copy(&self.target, &path)?;
            let written = fs::metadata(&self.target)?.modified()?;
            File::options()
                .write(true)
                .open(&path)?
                .set_modified(written)
        };
        copy().map_err(|error| {
            let _ = fs::remove_file(&path);
            explain(error)
        })?;
        Ok(Some(path))
    }

    /// Keeps the list that `by` just activated, and removes the oldest ones.
    pub fn record(&self, by: &Author) {
        // The next change keeps a missing copy; a read-only folder keeps none.
        if let Ok(Some(kept)) = self.keep() {
            let path = Metadata::path(&kept);
            let note = Metadata {
                at: to_second(Timestamp::now()),
                by: by.clone(),
            };
            if let (false, Ok(text)) = (path.exists(), serde_json::to_vec(&note)) {
                let _ = fs::write(path, text);
            }
        }
        self.prune();
    }

    fn prune(&self) {
        let numbered = self.numbered().unwrap_or_default();
        for (_, path) in numbered.iter().rev().skip(MAX_LISTS) {
            // One list too many is harmless.
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(Metadata::path(path));
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
            // Other names are not ours. The highest number plus one must fit as well.
            if let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() {
                numbered.push((u64::from(number), entry.path()));
            }
        }
        numbered.sort_unstable();
        Ok(numbered)
    }

    fn explain(&self, verb: &str, error: &io::Error) -> anyhow::Error {
        UserError::failed(
            format!(
                "{verb} history `{}`: {}",
                self.directory.display(),
                errno(error)
            ),
            "nothing changed; every change keeps the list that it replaces",
        )
    }
}
