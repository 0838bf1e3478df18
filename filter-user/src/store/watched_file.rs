//! Whether a file changed.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What a file looks like from outside, links followed: another one as soon as an editor wrote into it, a rename replaced it, or a link on
/// the way to it was swapped.
///
/// Looked at again and again, and not watched with inotify: a watch is on one folder, and says nothing of the folders behind links, of those
/// that do not exist yet, and of network file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp(Option<FileLook>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileLook {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    /// Cannot be set by hand, as the time of modification can.
    changed: (i64, i64),
}

impl FileStamp {
    /// The file at `path` as it looks now; a missing one looks like any other missing one.
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|metadata| FileLook {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

/// A file that is followed.
pub struct WatchedFile {
    path: PathBuf,
    /// As it looked when it was read the last time.
    read: FileStamp,
    /// As it looked the last time that anybody looked.
    last: FileStamp,
}

impl WatchedFile {
    /// Follows the file at `path`, which was read just now.
    pub fn new(path: PathBuf) -> Self {
        let now = FileStamp::of(&path);
        Self {
            path,
            read: now,
            last: now,
        }
    }

    /// Follows the file at `path`, which looked like `read` before it was read.
    pub fn since(path: PathBuf, read: FileStamp) -> Self {
        let last = FileStamp::of(&path);
        Self { path, read, last }
    }

    /// Whether it changed since it was read, and has come to rest: a file that is being written looks another way each time.
    pub fn changed(&mut self) -> bool {
        let now = FileStamp::of(&self.path);
        let is_stable = now == self.last;
        self.last = now;
        is_stable && now != self.read
    }

    /// Whether it looked another way the last time than when it was read: it is being written, or is to be read.
    pub fn moves(&self) -> bool {
        self.last != self.read
    }

    /// It is about to be read, as it looks now.
    pub fn reading(&mut self) {
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
        // File systems without finer stamps have those of the clock's ticks.
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
