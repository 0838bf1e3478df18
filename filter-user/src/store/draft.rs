//! An edit of the list: a copy of the ranges file, and the file's content when the copy was made.
//! It stays until its content is in the ranges file, so that a crash of the editor, the terminal or
//! a rolled back change loses nothing.
//!
//! ```text
//! STATE_DIR/edits/DIGEST/NAME     the copy; DIGEST of the ranges file's path, and its NAME
//! STATE_DIR/edits/DIGEST/.base    the content of the ranges file
//! ```

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    path::folder,
    read::{MAX_LIST_LEN, read_regular},
};
use crate::{kernel::pins::make_private, ranges::RangesFile};

/// Only root may read a list that is not active yet.
const MODE: u32 = 0o600;

/// An edit of a ranges file, and the right to make it: one at a time.
pub struct Draft {
    directory: PathBuf,
    copy: PathBuf,
    _lock: File,
}

impl Draft {
    /// Opens the edit of the ranges file at `path`; `None` if another process is editing.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn open(state_dir: &Path, path: &Path) -> io::Result<Option<Self>> {
        let (directory, copy) = paths(state_dir, path);
        make_private(&directory)?;
        let lock = File::open(&directory)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self {
                directory,
                copy,
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Deletes the edit of the ranges file at `path` if its list equals `file`, which is active for
    /// good, and no other process is editing.
    pub fn delete_applied(state_dir: &Path, path: &Path, file: &RangesFile) {
        let (_, copy) = paths(state_dir, path);
        if !copy.exists() {
            return;
        }
        // A remaining edit is compared with the file before it is resumed.
        if let Ok(Some(draft)) = Self::open(state_dir, path)
            && let Ok(Some(text)) = draft.text()
            && parse(&text).as_ref() == Some(file)
        {
            draft.forget();
        }
    }

    /// The path of the copy.
    pub fn path(&self) -> &Path {
        &self.copy
    }

    /// The content of the copy; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self) -> io::Result<Option<Vec<u8>>> {
        present(read_regular(&self.copy, MAX_LIST_LEN))
    }

    /// The content of the ranges file when the copy was made; `None` if it was not stored.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn base(&self) -> io::Result<Option<Vec<u8>>> {
        present(fs::read(self.base_path()))
    }

    /// Starts a new edit with `text`, where the ranges file contains `base`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, base: &[u8], text: &[u8]) -> io::Result<()> {
        self.forget();
        self.rebase(base)?;
        write(&self.copy, text)
    }

    /// Stores `base` as the new content of the ranges file, which the user has seen.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn rebase(&self, base: &[u8]) -> io::Result<()> {
        write(&self.base_path(), base)
    }

    /// Makes the copy private again: editors may save with other modes.
    pub fn close(&self) {
        // The directory is private, so a failure is harmless.
        let _ = fs::set_permissions(&self.copy, Permissions::from_mode(MODE));
    }

    /// Removes the edit, and an editor's files next to it.
    pub fn forget(&self) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            // A remaining copy equals the ranges file, so it is not resumed.
            let _ = fs::remove_file(entry.path());
        }
    }

    fn base_path(&self) -> PathBuf {
        self.directory.join(".base")
    }
}

/// The list in the text of an edit, if it is valid. The save is complete, even if its last line
/// lacks a line feed.
fn parse(text: &[u8]) -> Option<RangesFile> {
    RangesFile::parse(&with_line_feed(std::str::from_utf8(text).ok()?)).ok()
}

/// The text with a line feed at the end.
fn with_line_feed(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}")
}

/// Whether two texts are the same list, comments included.
pub fn is_same_list(one: &[u8], other: &[u8]) -> bool {
    one == other || parse(one).is_some_and(|file| parse(other).as_ref() == Some(&file))
}

/// The directory and the copy for the ranges file at `path`.
fn paths(state_dir: &Path, path: &Path) -> (PathBuf, PathBuf) {
    let around = folder(path);
    let around = fs::canonicalize(around).unwrap_or_else(|_| around.to_owned());
    let name = path.file_name().unwrap_or_default();
    let digest = Sha256::digest(around.join(name).as_os_str().as_encoded_bytes());
    let digest: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let directory = state_dir.join("edits").join(digest);
    let copy = directory.join(name);
    (directory, copy)
}

fn present(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
