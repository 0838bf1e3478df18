//! The names of the lists that have files: in `ranges.d`, and in the directories of lists there.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry},
    io,
    path::Path,
};

use anyhow::{Error, Result};

use crate::{
    ranges::ListName,
    ui::error::{UserError, errno},
};

/// The most lists in one directory of lists. Its owner, who need not be root, must not make `run`
/// busy without end.
pub(super) const MAX_LISTS: usize = 256;
/// The most names that are read in one such directory, hidden ones included.
const MAX_NAMES: usize = 4 * MAX_LISTS;

/// What is in `ranges.d`.
#[derive(Default)]
pub struct ListNames {
    /// The lists besides `default` that have a file.
    pub lists: BTreeSet<ListName>,
    /// Files that no list can have, by their path in `ranges.d`.
    pub ignored: Vec<String>,
    /// The directories of lists, which are named as a list is.
    pub directories: BTreeSet<ListName>,
    /// The directories of lists that cannot be read, each with the cause.
    pub faults: Vec<(ListName, Error)>,
}

impl ListNames {
    /// Reads them in `directory`. Hidden files, which a ConfigMap's mount has, are no lists.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let mut names = Self::default();
        let read = each_name(directory, usize::MAX, |name, entry| {
            let parsed = name.parse::<ListName>().ok();
            let parsed = parsed.filter(|name| !name.is_default() && name.place().is_none());
            match (is_directory(entry), parsed) {
                (true, Some(name)) => drop(names.directories.insert(name)),
                (false, Some(name)) => drop(names.lists.insert(name)),
                (true, None) => {}
                (false, None) => names.ignored.push(name),
            }
        });
        read.map_err(|error| explain(directory, &error))?;
        for name in names.directories.clone() {
            names.read_in(&name, &directory.join(name.as_str()));
        }
        names.ignored.sort_unstable();
        Ok(names)
    }

    /// Reads the names in a directory of lists. What is wrong with it harms no list elsewhere.
    fn read_in(&mut self, directory: &ListName, path: &Path) {
        let (mut lists, mut ignored) = (Vec::new(), Vec::new());
        let read = each_name(path, MAX_NAMES, |name, entry| {
            // The files of the cluster.
            if name.starts_with('@') || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                return;
            }
            match ListName::in_directory(directory, &name) {
                Some(name) => lists.push(name),
                None => ignored.push(format!("{directory}/{name}")),
            }
        });
        match read {
            Ok(()) => {
                self.lists.extend(lists);
                self.ignored.append(&mut ignored);
            }
            // Which of its names came first is chance. Lists in force are read all the same.
            Err(error) => self.faults.push((directory.clone(), explain(path, &error))),
        }
    }
}

/// Calls `take` with each name in `directory` that is not hidden. A directory that is not there has
/// none.
fn each_name(
    directory: &Path,
    most: usize,
    mut take: impl FnMut(String, &DirEntry),
) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for (count, entry) in entries.enumerate() {
        if count >= most {
            return Err(io::Error::other(format!("it has more than {most} files")));
        }
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            take(name, &entry);
        }
    }
    Ok(())
}

/// Whether it is a directory, or a link to one. Only root makes links here.
fn is_directory(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
        Ok(kind) => kind.is_dir(),
        Err(_) => false,
    }
}

fn explain(directory: &Path, error: &io::Error) -> Error {
    UserError::failed(
        format!("read lists in `{}`: {}", directory.display(), errno(error)),
        "the lists in force stay in force",
    )
}
