//! The file of a list: read and replaced as a whole.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::Result;
use nix::libc;

use super::{
    attributes::{Attributes, refuse_unwritable},
    history::History,
    input::read_ranges,
    list_file::ListFile,
    path::{folder, real_path, sibling},
    read::{MAX_LIST_LEN, read_regular},
    watched_file::FileStamp,
};
use crate::{
    ranges::RangesFile,
    ui::{
        error::{UserError, errno},
        output::eprint,
    },
};

/// Whether the file at `path` holds the list `file`, to the letter.
pub fn holds(path: &Path, file: &RangesFile) -> bool {
    let text = read_regular(path, MAX_LIST_LEN);
    text.is_ok_and(|text| file.is(&String::from_utf8_lossy(&text)))
}

/// A new file of a list that is written, but not yet in place; or the removal of a file.
pub struct Staged {
    /// `None` for a removal.
    content: Option<Content>,
    /// The file of the list, which may be a link to the target.
    list: ListFile,
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
    /// The removal of the file of a list.
    ///
    /// # Errors
    /// If the kernel would refuse it.
    pub fn removal(list: &ListFile) -> Result<Self> {
        // Not of the file that a link points to: the link is what names the list.
        refuse_unwritable(list)?;
        Ok(Self {
            content: None,
            list: list.clone(),
            target: list.to_path_buf(),
            replaces: FileStamp::of(list),
        })
    }

    /// Checks, before an edit begins, that the file at `path` can be replaced.
    ///
    /// # Errors
    /// If the kernel would refuse: the file is in a read-only folder, or is a mount point.
    pub fn expect_any(path: &Path) -> Result<()> {
        refuse_unwritable(&real_path(path))
    }

    /// Writes `file` next to the file of a list.
    ///
    /// # Errors
    /// If the folder is not writable, as with a ConfigMap; nothing changed then.
    pub fn write(list: &ListFile, file: &RangesFile) -> Result<Self> {
        let (path, target): (&Path, _) = (list, real_path(list));
        let replaces = FileStamp::of(&target);
        let explain = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space on its disk; nothing changed"
                }
                _ => {
                    "name a file in a writable folder with `--ranges-file`, or change the source of the file (a ConfigMap); nothing changed"
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
                    format!("remove the {what} from the file; or edit the file by hand, then run `apifence ranges reload`; nothing changed"),
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
            list: list.clone(),
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
        let (list, target) = (self.list.clone(), self.target.clone());
        Committed::make(&list, &target, || self.replace())
    }

    /// The same without a history: that of a list belongs to root.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_unkept(self) -> Result<()> {
        let target = self.target.clone();
        let replaced = self.replace().and_then(|()| sync(folder(&target)));
        replaced.map_err(|error| unreplaced(&target, &error))
    }

    fn replace(self) -> io::Result<()> {
        if FileStamp::of(&self.target) != self.replaces {
            return Err(io::Error::other("another process edited it meanwhile"));
        }
        match self.content {
            Some(content) => content.persist(&self.target),
            None => fs::remove_file(&self.target),
        }
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
                list: self.list,
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
    /// The file of the list, which may be a link to the target.
    list: ListFile,
    target: PathBuf,
}

impl Pending {
    /// The pending list next to the file of a list, if it exists.
    pub fn find(list: &ListFile) -> Option<Self> {
        let pending = Self::of(list);
        pending.path.exists().then_some(pending)
    }

    /// The pending list of a file, whether it exists or not.
    pub fn of(list: &ListFile) -> Self {
        let target = real_path(list);
        Self {
            path: sibling(&target, ".pending"),
            list: list.clone(),
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
    /// The old file, if it existed.
    old: Option<Vec<u8>>,
    /// Owner and modes of that file.
    attributes: Option<Attributes>,
}

impl Committed {
    /// Keeps the file at `target` in the history of its list, and replaces it by `replace`.
    fn make(
        list: &ListFile,
        target: &Path,
        replace: impl FnOnce() -> io::Result<()>,
    ) -> Result<Self> {
        // Without room for a copy the change is still made: it may let an operator back in.
        if let Err(error) = History::of(list).keep() {
            eprint(format_args!(
                "warning: {error:#}: the previous list is not kept"
            ));
        }
        let committed = Self {
            attributes: Attributes::of(target).ok().flatten(),
            old: read_regular(target, MAX_LIST_LEN).ok(),
            target: target.to_owned(),
        };
        replace().map_err(|error| unreplaced(target, &error))?;
        if let Err(error) = sync(folder(target)) {
            committed.undo()?;
            return Err(unreplaced(target, &error));
        }
        Ok(committed)
    }

    /// Puts the old file back.
    ///
    /// # Errors
    /// If the file system refuses. The file then holds the new list, and `status` reports that.
    pub fn undo(self) -> Result<()> {
        let undone = match &self.old {
            Some(old) => put_back(old, &self.target),
            None => remove(&self.target),
        };
        if let (Ok(()), Some(attributes), Ok(file)) =
            (&undone, &self.attributes, open_without_link(&self.target))
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
                    "the file has the new list, but the old list is in force: `apifence status` shows both",
                )
            })
    }
}

/// Opens a file, which its directory's owner may have replaced by a link: what the link leads to
/// must not be given to that user.
fn open_without_link(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(path)
}

/// The failure of a file that could not be replaced.
fn unreplaced(target: &Path, error: &io::Error) -> anyhow::Error {
    UserError::failed(
        format!(
            "replace ranges file `{}`: {}",
            target.display(),
            errno(error)
        ),
        "list and file stay as they are; `apifence ranges reload --dry-run` shows their difference",
    )
}

/// Makes `bytes` the content of the file at `target`, in one step.
fn put_back(bytes: &[u8], target: &Path) -> io::Result<()> {
    let mut copy = tempfile::NamedTempFile::new_in(folder(target))?;
    copy.write_all(bytes)?;
    copy.persist(target).map_err(|error| error.error)?;
    Ok(())
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
