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
    list_file::ListFile,
    path::real_path,
    read::{MAX_LIST_LEN, read_regular},
};
use crate::{
    clock::to_second,
    kernel::pins::make_private,
    policy::author::Author,
    ranges::RangesFile,
    ui::error::{UserError, errno},
};

/// How many lists are kept: the active one, and ten before it.
const MAX_LISTS: usize = 11;

/// The earlier lists of a file.
pub struct History {
    directory: PathBuf,
    /// Where an older version kept them; nothing is added there.
    former: Option<PathBuf>,
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
                "`apifence ranges history` shows the kept lists",
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
        // A FIFO has a length, too.
        let read = |path| read_regular(path, MAX_LIST_LEN);
        Ok::<_, io::Error>(read(one)? == read(other)?)
    };
    same().unwrap_or(false)
}

/// The modification time of the file at `path`.
pub fn written(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(time).ok()
}

impl History {
    /// The history of a list, in the state directory.
    pub fn of(file: &ListFile) -> Self {
        Self {
            directory: file.history.clone(),
            former: file.former_history.clone(),
            target: real_path(file),
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
        // A FIFO would block the copy, and a device may never end.
        if !self.target.is_file() {
            return Ok(None);
        }
        self.copy().map_err(|error| self.explain("write", &error))
    }

    fn copy(&self) -> io::Result<Option<PathBuf>> {
        make_private(&self.directory)?;
        self.take_over()?;
        let last = numbered(&self.directory)?.pop();
        if let Some((_, path)) = &last
            && same(path, &self.target)
        {
            return Ok(Some(path.clone()));
        }
        let number = last.map_or(1, |(number, _)| number + 1);
        let path = self.directory.join(format!("{number:06}"));
        copy_with_time(&self.target, &path).inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(Some(path))
    }

    /// Moves the lists that an older version kept.
    fn take_over(&self) -> io::Result<()> {
        let Some(former) = &self.former else {
            return Ok(());
        };
        for (_, list) in numbered(former)? {
            for path in [Metadata::path(&list), list] {
                let name = path.file_name().unwrap_or_default();
                // The directory may be on another file system.
                if path.is_file() {
                    copy_with_time(&path, &self.directory.join(name))?;
                }
            }
        }
        fs::remove_dir_all(former)
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
        let read = |directory: &PathBuf| -> Result<Vec<(u64, PathBuf)>> {
            numbered(directory).map_err(|error| self.explain("read", &error))
        };
        let mut all = read(&self.directory)?;
        // A writer that died may have moved some of them.
        for former in self
            .former
            .iter()
            .map(read)
            .collect::<Result<Vec<_>>>()?
            .concat()
        {
            if all.iter().all(|(number, _)| *number != former.0) {
                all.push(former);
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn explain(&self, verb: &str, error: &io::Error) -> anyhow::Error {
        UserError::failed(
            format!(
                "{verb} history `{}`: {}",
                self.directory.display(),
                errno(error)
            ),
            "nothing changed: a change must first save the list that it replaces",
        )
    }
}

/// The lists in a directory, each with its number, in order. Other names are not ours.
fn numbered(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The highest number plus one must fit as well.
        if let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() {
            numbered.push((u64::from(number), entry.path()));
        }
    }
    numbered.sort_unstable();
    Ok(numbered)
}

/// Copies a file with its modification time.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let written = fs::metadata(from)?.modified()?;
    File::options().write(true).open(to)?.set_modified(written)
}
