//! The file of a list, and the place of its history.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

/// The file of a list. It is its path where a path is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    path: PathBuf,
    /// The directory of its history.
    pub(super) history: PathBuf,
    /// The directory in which version 0.1 kept its history, if it did.
    pub(super) former_history: Option<PathBuf>,
}

impl ListFile {
    /// The file at `path`, with its history in the directory `history`; or in `former_history`, as
    /// long as only that is there.
    pub(super) const fn new(
        path: PathBuf,
        history: PathBuf,
        former_history: Option<PathBuf>,
    ) -> Self {
        Self {
            path,
            history,
            former_history,
        }
    }
}

impl AsRef<Path> for ListFile {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Deref for ListFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}
