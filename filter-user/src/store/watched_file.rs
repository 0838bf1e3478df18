//! Detection of a changed file.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::path::is_own;

/// A file's metadata, links followed. It changes when an editor writes into the file, a rename
/// replaces it, or a link on its path is swapped.
///
/// The file is polled, not watched with inotify. An inotify watch is on one folder. It reports
/// nothing of folders after a link, of folders that do not exist yet, and of network file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp(Option<FileState>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    /// The change time: unlike the modification time it cannot be set by a user.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path` now; all missing files have the same stamp.
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|found| FileState::new(&found)))
    }

    /// The same, where another user may have put a link into the place of the file. It is not
    /// followed: it may lead to a file system that never answers.
    pub(super) fn of_list(path: &Path) -> Self {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() && is_own(found.uid()) => Self::of(path),
            found => Self(found.ok().map(|found| FileState::new(&found))),
        }
    }
}

impl FileState {
    fn new(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl FileStamp {
    /// Whether there was a file.
    pub(super) const fn exists(self) -> bool {
        self.0.is_some()
    }
}

/// A file that is polled.
pub struct WatchedFile {
    path: PathBuf,
    /// The stamp when it was last read.
    read: FileStamp,
    /// The stamp of the last poll.
    last: FileStamp,
}

impl WatchedFile {
    /// Polls the file at `path`, which was read just now.
    pub fn new(path: PathBuf) -> Self {
        let now = FileStamp::of(&path);
        Self {
            path,
            read: now,
            last: now,
        }
    }

    /// Polls the file at `path`, which had the stamp `read` before it was read.
    pub fn since(path: PathBuf, read: FileStamp) -> Self {
        let last = FileStamp::of(&path);
        Self { path, read, last }
    }

    /// Whether it changed since it was read, and is stable: a file that is being written changes
    /// with each poll.
    pub fn changed(&mut self) -> bool {
        let now = FileStamp::of(&self.path);
        let is_stable = now == self.last;
        self.last = now;
        is_stable && now != self.read
    }

    /// Whether it had changed at the last poll: it is being written, or is due to be read.
    pub fn is_changing(&self) -> bool {
        self.last != self.read
    }

    /// Marks its present state as read.
    pub fn mark_read(&mut self) {
        self.read = FileStamp::of(&self.path);
        self.last = self.read;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let [file, other, link] = ["file", "other", "link"].map(|name| folder.path().join(name));
        let mut looks = vec![FileStamp::of(&link)];
        let mut differs = |step: &str| {
            let look = FileStamp::of(&link);
            assert!(!looks.contains(&look), "{step}");
            looks.push(look);
        };
        fs::write(&file, "10.0.0.0/8\n").expect("written");
        symlink(&file, &link).expect("linked");
        differs("it is there");
        // File systems without finer timestamps use clock ticks.
        let wait = || std::thread::sleep(std::time::Duration::from_millis(20));
        wait();
        fs::write(&file, "11.0.0.0/8\n").expect("written");
        differs("written in place, as long as it was");
        fs::write(&other, "12.0.0.0/8\n").expect("written");
        wait();
        fs::rename(&other, &file).expect("renamed");
        differs("replaced");
        wait();
        fs::write(&other, "13.0.0.0/8\n").expect("written");
        symlink(&other, folder.path().join("new")).expect("linked");
        fs::rename(folder.path().join("new"), &link).expect("renamed");
        differs("a link swapped");
        assert_eq!(FileStamp::of(&link), FileStamp::of(&link));
        fs::remove_file(&other).expect("removed");
        assert_eq!(FileStamp::of(&link), looks[0]);
    }
}
