//! The list as somebody edits it: a copy of the ranges file, and what the file said when the copy was made. It stays until what it says is
//! in the ranges file: whatever ends the editor, the terminal or a trial loses nothing of it.
//!
//! ```text
//! STATE_DIR/edits/DIGEST/NAME     the copy; DIGEST is that of the path of the ranges file, NAME its name
//! STATE_DIR/edits/DIGEST/.base    what the ranges file said
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
    read::{MOST_OF_LIST, read_regular},
};
use crate::{kernel::pins::make_private, ranges::RangesFile};

/// Only root may read what is not in force yet.
const MODE: u32 = 0o600;

/// An edit of a ranges file, and the right to make it: one at a time.
pub struct Draft {
    directory: PathBuf,
    copy: PathBuf,
    _lock: File,
}

impl Draft {
    /// That of the ranges file at `path`; `None` if somebody else is at it.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn open(state_dir: &Path, path: &Path) -> io::Result<Option<Self>> {
        let (directory, copy) = places(state_dir, path);
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

    /// Forgets the edit of the ranges file at `path` if it says the same as `file`, which is in
    /// force for good, and nobody is at it.
    pub fn settle(state_dir: &Path, path: &Path, file: &RangesFile) {
        let (_, copy) = places(state_dir, path);
        if !copy.exists() {
            return;
        }
        // One that stays is compared with the file before anybody goes on with it.
        if let Ok(Some(draft)) = Self::open(state_dir, path)
            && let Ok(Some(text)) = draft.text()
            && says(&text).as_ref() == Some(file)
        {
            draft.forget();
        }
    }

    /// The copy that is edited.
    pub fn path(&self) -> &Path {
        &self.copy
    }

    /// What the copy says; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self) -> io::Result<Option<Vec<u8>>> {
        present(read_regular(&self.copy, MOST_OF_LIST))
    }

    /// What the ranges file said when the copy was made; `None` if nobody noted it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn base(&self) -> io::Result<Option<Vec<u8>>> {
        present(fs::read(self.base_path()))
    }

    /// Begins anew with `text`, where the ranges file says `base`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, base: &[u8], text: &[u8]) -> io::Result<()> {
        self.forget();
        self.rebase(base)?;
        write(&self.copy, text)
    }

    /// The ranges file says `base` by now, and whoever edits knows it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn rebase(&self, base: &[u8]) -> io::Result<()> {
        write(&self.base_path(), base)
    }

    /// Keeps what an editor saved, with modes of its own, from others.
    pub fn close(&self) {
        // Nobody else may enter the directory.
        let _ = fs::set_permissions(&self.copy, Permissions::from_mode(MODE));
    }

    /// Removes the edit, and what an editor left beside it.
    pub fn forget(&self) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            // What says the same as the ranges file is not gone on with.
            let _ = fs::remove_file(entry.path());
        }
    }

    fn base_path(&self) -> PathBuf {
        self.directory.join(".base")
    }
}

/// The list that an edit says, if it is one. The save is whole, whether its last line ends with a line feed or not.
fn says(text: &[u8]) -> Option<RangesFile> {
    RangesFile::parse(&whole(std::str::from_utf8(text).ok()?)).ok()
}

/// A text with its last line ended.
fn whole(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}")
}

/// Whether two texts are the same list, comments included.
pub fn is_same_list(one: &[u8], other: &[u8]) -> bool {
    one == other || says(one).is_some_and(|file| says(other).as_ref() == Some(&file))
}

/// Where the edit of the ranges file at `path` is.
fn places(state_dir: &Path, path: &Path) -> (PathBuf, PathBuf) {
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
