//! Detection of changes in the files of the lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{lists::ListFiles, watched_file::FileStamp};
use crate::ranges::ListName;

/// The files of all lists, polled; a file that comes or goes is a change, too.
pub struct WatchedLists {
    files: ListFiles,
    read: BTreeMap<PathBuf, FileStamp>,
    last: BTreeMap<PathBuf, FileStamp>,
}

impl WatchedLists {
    /// Polls the files, which are read just now.
    pub fn new(files: ListFiles) -> Self {
        let now = stamps(&files);
        Self {
            files,
            read: now.clone(),
            last: now,
        }
    }

    /// Whether they changed since they were read, and are stable: a file that is being written
    /// changes with each poll.
    pub fn changed(&mut self) -> bool {
        let now = stamps(&self.files);
        let is_stable = now == self.last;
        self.last = now;
        is_stable && self.last != self.read
    }

    /// Whether they changed since they were read, stable or not.
    pub fn differ(&mut self) -> bool {
        self.last = stamps(&self.files);
        self.is_changing()
    }

    /// Whether they had changed at the last poll.
    pub fn is_changing(&self) -> bool {
        self.last != self.read
    }

    /// Marks their present state as read.
    pub fn mark_read(&mut self) {
        self.read = stamps(&self.files);
        self.last.clone_from(&self.read);
    }
}

/// The stamps of the files of all lists. Without their directory there is the ranges file alone.
fn stamps(files: &ListFiles) -> BTreeMap<PathBuf, FileStamp> {
    // Its modes count, too.
    let directory = FileStamp::of(files.directory());
    let names = match directory.exists() {
        true => files.names().unwrap_or_default().0,
        false => BTreeSet::new(),
    };
    let paths = names.iter().map(|name| files.path(name));
    let paths = paths.chain([files.path(&ListName::default())]);
    let stamps = paths.map(|path| (path.clone(), FileStamp::of(&path)));
    let own = (files.directory().to_owned(), directory);
    stamps.chain([own]).collect()
}
