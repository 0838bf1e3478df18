//! The file of a list: read and replaced as a whole.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::Result;

use super::{
    attributes::{Attributes, refuse_unwritable},
    history::History,
    input::read_ranges,
    path::{folder, real_path, sibling},
    watched_file::FileStamp,
};
use crate::{
    ranges::RangesFile,
    ui::error::{UserError, errno},
};

/// A new file of a list that is written, but not yet in place; or the removal of a file.
pub struct Staged {
    /// `None` for a removal.
    content: Option<Content>,
    /// The path of the list, which may be a link to the file.
    path: PathBuf,
    target: PathBuf,
    /// The stamp of the file that it is to replace.
    replaces: FileStamp,
}

struct Content {
    file: tempfile::NamedTempFile,
    /// Syncs it to the disk, in parallel with the kernel's side of the change.
    synced: JoinHandle<io::Result<()>>,
}

impl Content {
    /// Waits for the disk, then gives the file its name.
    fn persist(self, path: &Path) -> io::Result<()> {
        join(self.synced)?;
        self.file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Staged {
    /// The removal of the file at `path`.
    ///
    /// # Errors
    /// If the kernel would refuse it.
    pub fn removal(path: &Path) -> Result<Self> {
        // Not of the file that a link points to: the link is what names the list.
        refuse_unwritable(path)?;
        Ok(Self {
            content: None,
            path: path.to_owned(),
            target: path.to_owned(),
            replaces: FileStamp::of(path),
        })
    }

    /// Checks, before an edit begins, that the file at `path` can be replaced.
    ///
    /// # Errors
    /// If the kernel would refuse: the file is in a read-only folder, or is a mount point.
    pub fn expect_any(path: &Path) -> Result<()> {
        refuse_unwritable(&real_path(path))
    }

    /// Writes `file` next to `path`.
    ///
    /// # Errors
    /// If the folder is not writable, as with a ConfigMap; nothing changed then.
    pub fn write(path: &Path, file: &RangesFile) -> Result<Self> {
        let target = real_path(path);
        let replaces = FileStamp::of(&target);
        let explain = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room on its disk; nothing changed"
                }
                _ => {
                    "name a file in a writable folder with `--ranges-file`, or change the list where it comes from (a ConfigMap); nothing changed"
                }
            };
            UserError::failed(
                format!("write ranges file `{}`: {}", path.display(), errno(&error)),
                hint,
            )
        };
        let folder = folder(&target);
        fs::create_dir_all(folder).map_err(explain)?;
        refuse_unwritable(&target)?;
        let attributes = Attributes::of(&target).map_err(explain)?;
        // A fixed name, so that crashed writers leave one file at most. Writers hold the lock.
        let name = sibling(&target, ".new");
        remove(&name).map_err(explain)?;
        let mut staged = tempfile::Builder::new()
            .prefix(name.file_name().unwrap_or_default())
            .rand_bytes(0)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(explain)?;
        if let Some(attributes) = &attributes {
            attributes.give(staged.as_file()).map_err(|(what, error)| {
                UserError::failed(
                    format!(
                        "write ranges file `{}`: its {what} cannot be kept: {}",
                        path.display(),
                        errno(&error)
                    ),
                    format!("take the {what} off the file, or write the list with an editor and `apifence ranges reload`; nothing changed"),
                )
            })?;
        }
        staged
            .write_all(file.to_string().as_bytes())
            .map_err(explain)?;
        let handle = staged.as_file().try_clone().map_err(explain)?;
        let synced = thread::Builder::new()
            .spawn(move || handle.sync_all())
            .map_err(explain)?;
        Ok(Self {
            content: Some(Content {
                file: staged,
                synced,
            }),
            path: path.to_owned(),
            target,
            replaces,
        })
    }

    /// Sets the stamp that the change is based on: a file that was edited since is not replaced.
    #[must_use]
    pub fn based_on(self, seen: FileStamp) -> Self {
        Self {
            replaces: seen,
            ..self
        }
    }

    /// Puts the file in place. From here on a reader sees the whole new list, even after a power
    /// cut. The history keeps the replaced one.
    ///
    /// # Errors
    /// If that fails, or the old file was edited meanwhile; the old file then stays in place.
    pub fn commit(self) -> Result<Committed> {
        let target = self.target;
        Committed::make(&self.path, &target, || {
            if FileStamp::of(&target) != self.replaces {
                return Err(io::Error::other("somebody edited it meanwhile"));
            }
            match self.content {
                Some(content) => content.persist(&target),
                None => fs::remove_file(&target),
            }
        })
    }

    /// Stores the file as the pending list, which waits for a confirmation.
    ///
    /// # Errors
    /// If that fails; nothing changed then.
    pub fn park(self) -> Result<Pending> {
        let path = sibling(&self.target, ".pending");
        let target = self.target;
        let parked = match self.content {
            Some(content) => content.persist(&path),
            None => Err(io::Error::other("a removal cannot be on trial")),
        };
        match parked.and_then(|()| sync(folder(&target))) {
            Ok(()) => Ok(Pending {
                path,
                list: self.path,
                target,
            }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(UserError::failed(
                    format!("write pending list `{}`: {}", path.display(), errno(&error)),
                    "nothing changed",
                ))
            }
        }
    }
}

/// An active list that is not yet in the file.
pub struct Pending {
    path: PathBuf,
    /// The path of the list, which may be a link to the file.
    list: PathBuf,
    target: PathBuf,
}

impl Pending {
    /// The pending list next to the ranges file at `path`, if it exists.
    pub fn find(path: &Path) -> Option<Self> {
        let pending = Self::of(path);
        pending.path.exists().then_some(pending)
    }

    /// The pending list of the ranges file at `path`, whether it exists or not.
    pub fn of(path: &Path) -> Self {
        let target = real_path(path);
        Self {
            path: sibling(&target, ".pending"),
            list: path.to_owned(),
            target,
        }
    }

    /// Parses it.
    ///
    /// # Errors
    /// If it cannot be read or parsed.
    pub fn read(&self) -> Result<RangesFile> {
        read_ranges(&self.path)?.ok_or_else(|| {
            UserError::failed(
                format!("read pending list `{}`: no such file", self.path.display()),
                "make the change again",
            )
        })
    }

    /// Puts it in place, as [`Staged::commit`] does.
    ///
    /// # Errors
    /// If that fails; the old file then stays in place, and this list stays pending.
    pub fn commit(&self) -> Result<Committed> {
        Committed::make(&self.list, &self.target, || {
            fs::rename(&self.path, &self.target)
        })
    }

    /// Deletes it.
    pub fn remove(&self) {
        // A list that stays is deleted the next time.
        let _ = fs::remove_file(&self.path);
    }

    /// Reverts a [`commit`](Self::commit) whose other half failed: the list is pending again.
    ///
    /// # Errors
    /// If the file system refuses that, too.
    pub fn take_back(&self, committed: Committed) -> Result<()> {
        // A second name keeps the new list while the old one is put back.
        let _ = fs::hard_link(&self.target, &self.path);
        committed.undo()
    }
}

/// A new file that is in place, while the kernel may not have its policy yet.
pub struct Committed {
    target: PathBuf,
    /// The path of the old file in the history, if it existed.
    old: Option<PathBuf>,
    /// Owner and modes of that file, which the copy in the history may lack.
    attributes: Option<Attributes>,
}

impl Committed {
    /// Keeps the file at `target` in the history of the list at `path`, and replaces it by
    /// `replace`.
    fn make(path: &Path, target: &Path, replace: impl FnOnce() -> io::Result<()>) -> Result<Self> {
        let committed = Self {
            attributes: Attributes::of(target).ok().flatten(),
            old: History::of(path).keep()?,
            target: target.to_owned(),
        };
        let failed = |error: &io::Error| {
            UserError::failed(
                format!(
                    "replace ranges file `{}`: {}",
                    target.display(),
                    errno(error)
                ),
                "the list in force stays in force, and the file stays as it is; `apifence ranges reload --dry-run` shows what that would change",
            )
        };
        replace().map_err(|error| failed(&error))?;
        if let Err(error) = sync(folder(target)) {
            committed.undo()?;
            return Err(failed(&error));
        }
        Ok(committed)
    }

    /// Puts the old file back.
    ///
    /// # Errors
    /// If the file system refuses. The file then holds the new list, and `status` reports that.
    pub fn undo(self) -> Result<()> {
        let undone = match &self.old {
            Some(old) => put_in_place(old, &self.target),
            None => remove(&self.target),
        };
        if let (Ok(()), Some(attributes), Ok(file)) =
            (&undone, &self.attributes, File::open(&self.target))
        {
            // Only the list matters here.
            let _ = attributes.give(&file);
        }
        undone
            .and_then(|()| sync(folder(&self.target)))
            .map_err(|error| {
                UserError::failed(
                    format!(
                        "restore ranges file `{}`: {}",
                        self.target.display(),
                        errno(&error)
                    ),
                    "the file holds the new list, and the old one is in force: `apifence status` shows both",
                )
            })
    }
}

/// Moves a file of the history to `target`, which may be on another file system.
fn put_in_place(old: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(old, target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut copy = tempfile::NamedTempFile::new_in(folder(target))?;
            copy.write_all(&fs::read(old)?)?;
            copy.persist(target).map_err(|error| error.error)?;
            fs::remove_file(old)
        }
        moved => moved,
    }
}

/// Removes a file; it may be absent.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(super) fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Syncs the names in a folder to the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
