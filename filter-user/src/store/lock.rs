//! One writer at a time, and one `run`.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{major, minor};
use procfs::process::Process;

use super::path::{folder, real_path, sibling};
use crate::{
    kernel::pins::{WRITE, is_layout, make_private},
    ui::error::{UserError, errno, hint},
};

/// The right to change the list and the pins; released on drop, or when the process ends in any
/// way.
pub struct WriterLock {
    _files: Vec<File>,
}

/// How long `run` waits for commands that only test the lock: each holds it for a moment.
const PROBE: Duration = Duration::from_secs(1);

/// How long a second writer waits: a change takes a fraction of it.
const TIMEOUT: Duration = Duration::from_secs(5);

impl WriterLock {
    /// Takes the lock. For the ranges file it is on a file next to it that only its owner can open,
    /// so that another user cannot block the operator. For the pins it is on a directory in that of
    /// the `pins`, if that exists.
    ///
    /// # Errors
    /// If another process holds it: names that process.
    pub fn take(ranges_file: &Path, pins: &Path) -> Result<Self> {
        Self::take_within(ranges_file, pins, TIMEOUT)?
    }

    /// Takes the lock of a list alone, for a user who may write nothing but its file.
    ///
    /// # Errors
    /// If another process holds it: names that process.
    pub fn take_list(path: &Path) -> Result<Self> {
        let target = real_path(path);
        let file = lock_file(&target)?.map(|file| lock(file, &target, TIMEOUT));
        Ok(Self {
            _files: file.transpose()?.transpose()?.into_iter().collect(),
        })
    }

    /// Like [`take`](Self::take), without waiting; `None` if another process holds it.
    ///
    /// # Errors
    /// If the lock cannot be tried, as where no descriptor is left.
    pub fn take_now(ranges_file: &Path, pins: &Path) -> Result<Option<Self>> {
        Ok(Self::take_within(ranges_file, pins, Duration::ZERO)?.ok())
    }

    /// The inner error says that another process holds it.
    fn take_within(ranges_file: &Path, pins: &Path, patience: Duration) -> Result<Result<Self>> {
        let target = real_path(ranges_file);
        let mut files = Vec::new();
        // Always in this order, so that two writers cannot wait for each other.
        if let Some(file) = lock_file(&target)? {
            match lock(file, &target, patience)? {
                Ok(file) => files.push(file),
                Err(kept) => return Ok(Err(kept)),
            }
        }
        if pins.exists() {
            // Only its owner can open it, whatever the modes of its parent directory.
            let directory = pins.join(WRITE);
            let verb = || format!("lock `{}`", directory.display());
            make_private(&directory).with_context(verb)?;
            let file = File::open(&directory).with_context(verb)?;
            let file = match lock(file, &directory, patience)? {
                Ok(file) => file,
                Err(kept) => return Ok(Err(kept)),
            };
            // The last holder may have removed the directory: a lock on a removed one excludes no
            // other process.
            if !same(&file, &directory) {
                return Ok(Err(UserError::failed(
                    format!("{}: it was removed meanwhile", verb()),
                    "another command detached the filter; try again",
                )));
            }
            files.push(file);
        }
        Ok(Ok(Self { _files: files }))
    }
}

/// The right to reconcile the filter: held by `run` while it is up, released when it ends in any
/// way.
pub struct WatchLock {
    file: File,
}

impl WatchLock {
    /// Creates the directory in bpffs, and takes the lock on it.
    ///
    /// # Errors
    /// If another `run` holds it: names its process.
    pub fn take(directory: &Path) -> Result<Self> {
        let verb = || format!("lock `{}`", directory.display());
        make_private(directory).with_context(verb)?;
        Self::refuse(directory, "run")?;
        let file = File::open(directory).with_context(verb)?;
        let deadline = Instant::now() + PROBE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                // The holder may be a command that only tests the lock.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(held_by_run(&file, "run")),
                Err(TryLockError::Error(error)) => return Err(error).with_context(verb),
            }
        }
    }

    /// Refuses `command` while a `run` is active, which would undo its change. Tests the lock of
    /// `directory` without keeping it, and those of binaries of other versions in the directories
    /// of their layouts.
    ///
    /// # Errors
    /// If a `run` is active: names its process.
    pub fn refuse(directory: &Path, command: &str) -> Result<()> {
        match locked_watch(directory)? {
            None => Ok(()),
            Some(file) => Err(held_by_run(&file, command)),
        }
    }

    /// The active `run`, if there is one.
    ///
    /// # Errors
    /// If the lock cannot be tested.
    pub fn watcher(directory: &Path) -> Result<Option<Watcher>> {
        let kept = locked_watch(directory)?;
        Ok(kept.map(|file| Watcher {
            process: holder_process(&file),
        }))
    }

    /// Whether the lock is on the present `directory`, and not on a removed one.
    pub fn holds(&self, directory: &Path) -> bool {
        same(&self.file, directory)
    }
}

/// An active `run`.
pub struct Watcher {
    /// The process; `None` if it is not visible here, as in another pid namespace.
    pub process: Option<Process>,
}

impl fmt::Display for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(process) => write!(f, "`apifence run` (pid {})", process.pid()),
            None => f.write_str("`apifence run`"),
        }
    }
}

/// The locked file of an active `run`: that of `directory`, or of a binary of another version.
fn locked_watch(directory: &Path) -> Result<Option<File>> {
    for directory in watches(directory) {
        let Ok(file) = File::open(&directory) else {
            continue;
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock `{}`", directory.display()));
            }
        }
    }
    Ok(None)
}

/// `directory`, and the directories of the same name in each layout: up to layout 7 the lock was
/// there.
fn watches(directory: &Path) -> Vec<PathBuf> {
    let (Some(root), Some(name)) = (directory.parent(), directory.file_name()) else {
        return vec![directory.to_owned()];
    };
    let layouts = fs::read_dir(root).into_iter().flatten().flatten();
    let layouts = layouts.filter(|entry| is_layout(&entry.file_name().to_string_lossy()));
    let mut watches: Vec<PathBuf> = layouts.map(|layout| layout.path().join(name)).collect();
    watches.push(directory.to_owned());
    watches
}

/// The error of `command` while a `run` holds the lock of `file`.
fn held_by_run(file: &File, command: &str) -> anyhow::Error {
    let process = holder_process(file);
    let stop = format!("`systemctl stop apifence && apifence {command}`");
    UserError::failed(
        format!("{} manages this filter", Watcher { process }),
        match command {
            "detach" => stop,
            _ => format!("change the config file or the ranges file, which it follows; or {stop}"),
        },
    )
}

/// Whether `file` is still the file at `path`.
fn same(file: &File, path: &Path) -> bool {
    let same = fs::metadata(path).and_then(|now| {
        let own = file.metadata()?;
        Ok((now.dev(), now.ino()) == (own.dev(), own.ino()))
    });
    same.unwrap_or(false)
}

/// The lock file next to `target`; `None` where the target cannot be replaced anyway, as with a
/// ConfigMap or a full disk: `detach` must work there, too.
fn lock_file(target: &Path) -> Result<Option<File>> {
    let path = sibling(target, ".lock");
    let open = || {
        fs::create_dir_all(folder(target))?;
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    match open() {
        Ok(file) => Ok(Some(file)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(UserError::failed(
            format!("lock ranges file `{}`: {}", target.display(), errno(&error)),
            hint(
                &error,
                "name a file in an existing folder with `--ranges-file`",
            ),
        )),
    }
}

/// Locks `file`, the one at `path`. The inner error says that another process holds it.
fn lock(file: File, path: &Path, patience: Duration) -> Result<Result<File>> {
    let verb = || format!("lock `{}`", path.display());
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Ok(file)),
            Err(TryLockError::Error(error)) => return Err(error).with_context(verb),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Ok(Err(UserError::failed(
                    format!("{}: {} holds it", verb(), holder(&file)),
                    "only one change can run at a time; try again later",
                )));
            }
        }
    }
}

/// The holder of the lock on `file`, in words.
fn holder(file: &File) -> String {
    let named = |process: &Process| {
        let command = process.cmdline().ok()?.join(" ");
        Some(format!("process {} (`{command}`)", process.pid()))
    };
    holder_process(file)
        .as_ref()
        .and_then(named)
        .unwrap_or_else(|| "another process".to_owned())
}

/// The holder of the lock on `file`, from the kernel's own table.
fn holder_process(file: &File) -> Option<Process> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let lock = procfs::locks().ok()?.into_iter().find(|lock| {
        lock.inode == metadata.ino()
            && u64::from(lock.devmaj) == major(device)
            && u64::from(lock.devmin) == minor(device)
    })?;
    Process::new(lock.pid?).ok()
}
