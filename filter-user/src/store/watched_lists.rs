//! Detection of changes in the files of the lists.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{lists::ListFiles, watched_file::FileStamp};
use crate::ranges::ListName;

/// How long files in directories of lists may keep changing before they are read all the same:
/// their owner holds up no other list.
const MAX_CHANGING: Duration = Duration::from_secs(1);

#[derive(Clone, Default, PartialEq, Eq)]
struct Stamps {
    /// Of the files that root writes.
    own: BTreeMap<PathBuf, FileStamp>,
    /// Of the directories of lists.
    directories: BTreeMap<PathBuf, FileStamp>,
    /// Of the files in them.
    others: BTreeMap<PathBuf, FileStamp>,
}

/// The files of all lists, or those of the cluster, polled; a file that comes or goes is a change,
/// too.
pub struct WatchedLists {
    files: ListFiles,
    stamps: fn(&ListFiles) -> Stamps,
    read: Stamps,
    last: Stamps,
    /// Since when files in directories of lists change with each poll.
    changing_since: Option<Instant>,
}

impl WatchedLists {
    /// Polls the files of the lists, which are read just now.
    pub fn new(files: ListFiles) -> Self {
        Self::with(files, stamps)
    }

    /// Polls the files of the cluster, which are read just now.
    pub fn of_cluster(files: ListFiles) -> Self {
        Self::with(files, stamps_of_cluster)
    }

    fn with(files: ListFiles, stamps: fn(&ListFiles) -> Stamps) -> Self {
        let now = stamps(&files);
        Self {
            files,
            stamps,
            read: now.clone(),
            last: now,
            changing_since: None,
        }
    }

    /// Whether they changed since they were read, and are stable: a file that is being written
    /// changes with each poll.
    pub fn changed(&mut self) -> bool {
        let now = (self.stamps)(&self.files);
        let is_stable = now == self.last;
        let is_own_stable = now.own == self.last.own;
        self.last = now;
        self.changing_since = match is_stable {
            true => None,
            false => self.changing_since.or_else(|| Some(Instant::now())),
        };
        let is_due = |since: Instant| since.elapsed() >= MAX_CHANGING;
        let is_stable = is_stable || is_own_stable && self.changing_since.is_some_and(is_due);
        is_stable && self.last != self.read
    }

    /// Whether a directory of lists changed since the last poll: a file was renamed there. This
    /// takes one system call for each directory.
    pub fn renamed(&self) -> bool {
        let mut directories = self.last.directories.iter();
        directories.any(|(path, stamp)| FileStamp::of(path) != *stamp)
    }

    /// Whether there are directories of lists.
    pub fn has_directories(&self) -> bool {
        !self.last.directories.is_empty()
    }

    /// Whether they changed since they were read, stable or not.
    pub fn differ(&mut self) -> bool {
        self.last = (self.stamps)(&self.files);
        self.is_changing()
    }

    /// Whether they had changed at the last poll.
    pub fn is_changing(&self) -> bool {
        self.last != self.read
    }

    /// Marks their present state as read.
    pub fn mark_read(&mut self) {
        self.read = (self.stamps)(&self.files);
        self.last.clone_from(&self.read);
        self.changing_since = None;
    }
}

/// The stamps of the files of all lists. Without their directory there is the ranges file alone.
fn stamps(files: &ListFiles) -> Stamps {
    let mut stamps = Stamps::default();
    let default = files.path(&ListName::default());
    stamps.own.insert(default.clone(), FileStamp::of(&default));
    // Its modes count, too.
    let directory = FileStamp::of(files.directory());
    stamps.own.insert(files.directory().to_owned(), directory);
    if !directory.exists() {
        return stamps;
    }
    let found = files.names().unwrap_or_default();
    for name in found.lists {
        let path = files.path(&name);
        match name.place() {
            None => stamps.own.insert(path.clone(), FileStamp::of(&path)),
            Some(_) => stamps
                .others
                .insert(path.clone(), FileStamp::of_list(&path)),
        };
    }
    for name in found.directories {
        let path = files.path(&name);
        stamps
            .directories
            .insert(path.clone(), FileStamp::of(&path));
    }
    stamps
}

/// The stamps of the files of the cluster.
fn stamps_of_cluster(files: &ListFiles) -> Stamps {
    let mut stamps = Stamps::default();
    for name in ListName::all_of_cluster() {
        let path = files.path(&name);
        let (stamp, is_own) = match path.starts_with(files.directory()) {
            true => (FileStamp::of_list(&path), false),
            false => (FileStamp::of(&path), true),
        };
        let of = if is_own {
            &mut stamps.own
        } else {
            &mut stamps.others
        };
        of.insert(path, stamp);
    }
    stamps
}
