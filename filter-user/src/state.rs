//! Files and locks: the ranges file is read whole and replaced whole, by one writer at a time.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{major, minor};

use crate::{
    problem::{Problem, Refusals, errno},
    ranges::RangesFile,
};

/// Reads the ranges file; `None` if there is none.
///
/// # Errors
/// If it cannot be read, or does not hold a list: all that is wrong with it, line by line.
pub fn read_ranges(path: &Path) -> Result<Option<RangesFile>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Problem::failed(
                format!("read ranges file `{}`: {}", path.display(), errno(&error)),
                "the list in force, if any, stays in force",
            ));
        }
        Ok(bytes) => bytes,
    };
    let name = path.display();
    let refuse = |list| Err(Refusals { list }.into());
    let Ok(text) = String::from_utf8(bytes) else {
        return refuse(vec![(
            format!("{name}: it is no UTF-8 text"),
            "write one range a line; the list in force, if any, stays in force".to_owned(),
        )]);
    };
    match RangesFile::parse(&text) {
        Ok(file) => Ok(Some(file)),
        Err(refusals) => refuse(
            refusals
                .into_iter()
                .map(|(line, refusal)| match line {
                    0 => (format!("{name}: {}", refusal.cause), refusal.hint),
                    _ => (format!("{name}:{line}: {}", refusal.cause), refusal.hint),
                })
                .collect(),
        ),
    }
}

/// What a ranges file is called until it is in place.
const STAGED: &str = ".apifence-ranges-new";

/// A ranges file that is written, synced, and not yet in place.
pub struct Staged {
    file: tempfile::NamedTempFile,
    target: PathBuf,
}

impl Staged {
    /// Writes `file` beside `path`.
    ///
    /// # Errors
    /// If the folder cannot be written, as with a ConfigMap; nothing changed then.
    pub fn write(path: &Path, file: &RangesFile) -> Result<Self> {
        // The file may be a link: what it points to is replaced, not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let explain = |error: io::Error| {
            Problem::failed(
                format!("write ranges file `{}`: {}", path.display(), errno(&error)),
                "nothing changed; name a file in a writable folder with `--ranges-file`, or change the list where it comes from (a ConfigMap)",
            )
        };
        let folder = folder(&target);
        fs::create_dir_all(folder).map_err(explain)?;
        let permissions = match fs::metadata(&target) {
            Ok(metadata) => metadata.permissions(),
            Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
        };
        // One name, so that a writer who died leaves no more than one file behind: writers hold the lock.
        match fs::remove_file(folder.join(STAGED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
            _ => {}
        }
        let mut staged = tempfile::Builder::new()
            .prefix(STAGED)
            .rand_bytes(0)
            .permissions(permissions)
            .tempfile_in(folder)
            .map_err(explain)?;
        staged
            .write_all(file.to_string().as_bytes())
            .map_err(explain)?;
        staged.as_file().sync_all().map_err(explain)?;
        Ok(Self {
            file: staged,
            target,
        })
    }

    /// Puts the file in place: from here on a reader sees the whole new list, after a power cut too.
    ///
    /// # Errors
    /// If the rename fails; the old file is then still there.
    pub fn commit(self) -> Result<()> {
        let target = self.target.display().to_string();
        let verb = || format!("replace ranges file `{target}`");
        self.file.persist(&self.target).with_context(verb)?;
        File::open(folder(&self.target))
            .and_then(|folder| folder.sync_all())
            .with_context(verb)
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The right to change the list and the pins; freed when dropped, or when the process ends however it ends.
pub struct WriterLock {
    _folders: Vec<File>,
}

/// How long a second writer waits: a change takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(5);

impl WriterLock {
    /// Takes the lock: on the folder of the ranges file, and on the directory of the pins where it exists.
    ///
    /// # Errors
    /// If somebody else keeps it: says who.
    pub fn take(ranges_file: &Path, pins: &Path) -> Result<Self> {
        let ranges_file = fs::canonicalize(ranges_file).unwrap_or_else(|_| ranges_file.to_owned());
        let mut folders = Vec::new();
        // Always in this order, so that two writers cannot wait for each other.
        for folder in [folder(&ranges_file), pins] {
            if folder.exists() {
                folders.push(lock(folder)?);
            }
        }
        Ok(Self { _folders: folders })
    }
}

fn lock(folder: &Path) -> Result<File> {
    let verb = || format!("lock `{}`", folder.display());
    let file = File::open(folder).with_context(verb)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => {
                // The last holder may have removed it: a lock on what is gone keeps nobody out.
                let same = fs::metadata(folder).and_then(|now| {
                    let own = file.metadata()?;
                    Ok((now.dev(), now.ino()) == (own.dev(), own.ino()))
                });
                return match same {
                    Ok(true) => Ok(file),
                    _ => Err(Problem::failed(
                        format!("{}: it was removed meanwhile", verb()),
                        "another apifence detached the filter; try again",
                    )),
                };
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(verb),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Problem::failed(
                    format!("{}: {} holds it", verb(), holder(&file)),
                    "only one change at a time; try again when it is done",
                ));
            }
        }
    }
}

/// Who holds the lock on `file`, from the kernel's own table.
fn holder(file: &File) -> String {
    let find = || {
        let metadata = file.metadata().ok()?;
        let device = metadata.dev();
        let lock = procfs::locks().ok()?.into_iter().find(|lock| {
            lock.inode == metadata.ino()
                && u64::from(lock.devmaj) == major(device)
                && u64::from(lock.devmin) == minor(device)
        })?;
        let pid = lock.pid?;
        let command = procfs::process::Process::new(pid).ok()?.cmdline().ok()?;
        Some(format!("process {pid} (`{}`)", command.join(" ")))
    };
    find().unwrap_or_else(|| "another process".to_owned())
}
