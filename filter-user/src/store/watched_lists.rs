//! Detection of changes in the files of the lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{lists::ListFiles, watched_file::FileStamp};
use crate::ranges::ListName;

type Stamps = BTreeMap<PathBuf, FileStamp>;

/// The files of all lists, or those of the cluster, polled; a file that comes or goes is a change,
/// too.
pub struct WatchedLists {
    files: ListFiles,
    stamps: fn(&ListFiles) -> Stamps,
    read: Stamps,
    last: Stamps,
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
        }
    }

    /// Whether they changed since they were read, and are stable: a file that is being written
    /// changes with each poll.
    pub fn changed(&mut self) -> bool {
        let now = (self.stamps)(&self.files);
        let is_stable = now == self.last;
        self.last = now;
        is_stable && self.last != self.read
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
    }
}

/// The stamps of the files of all lists. Without their directory there is the ranges file alone.
fn stamps(files: &ListFiles) -> Stamps {
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

/// The stamps of the files of the cluster.
fn stamps_of_cluster(files: &ListFiles) -> Stamps {
    let paths = ListName::all_of_cluster().map(|name| files.path(&name));
    let stamps = paths.into_iter().map(|path| {
        let stamp = FileStamp::of(&path);
        (path, stamp)
    });
    stamps.collect()
}
