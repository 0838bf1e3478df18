//! A private mount namespace with an empty bpffs at the usual place.

use std::{
    cell::RefCell,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use tempfile::TempDir;

/// The path of the bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Prefix of the directories in which process 1 sees the bpffs of a thread; the process id follows.
const HELD: &str = "apf-bpffs-";

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

/// A bpffs in the mount namespace that a thread came from. Pins in a bpffs that process 1 cannot
/// see end with their process, and `apifence` refuses such a bpffs.
struct Home {
    namespace: File,
    directory: Option<TempDir>,
}

/// Moves the calling thread, and those that it starts from now on, into a mount namespace of its
/// own with an empty bpffs at [`BPFFS`].
///
/// Pins made there are invisible outside of [`BPFFS`]. They end with the thread and the processes
/// that it started. A second call does nothing.
pub fn enter_private() -> Result<()> {
    HOME.with_borrow_mut(|home| {
        if home.is_none() {
            *home = Some(Home::leave()?);
        }
        Ok(())
    })
}

impl Home {
    fn leave() -> Result<Self> {
        sweep()?;
        let directory = TempDir::with_prefix(format!("{HELD}{}-", std::process::id()))
            .context("make a directory for a bpffs")?;
        mount_bpffs(directory.path())?;
        let home = Self {
            namespace: File::open("/proc/thread-self/ns/mnt").context("open mount namespace")?,
            directory: Some(directory),
        };
        make_private()?;
        let own = home.directory.as_ref().expect("there until dropped").path();
        bind(own, Path::new(BPFFS))?;
        // The mounts of other threads would stay as long as this namespace.
        for mounted in held()? {
            match umount2(&mounted, MntFlags::MNT_DETACH) {
                // Its thread has removed the directory, which removes the mount here as well.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => bail!("unmount `{}`: {error}", mounted.display()),
            }
        }
        Ok(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else {
            return;
        };
        let namespace = &self.namespace;
        thread::scope(|scope| {
            let unmount = scope.spawn(move || {
                unshare(CloneFlags::CLONE_FS)?;
                setns(namespace, CloneFlags::CLONE_NEWNS)?;
                release(directory.path())?;
                drop(directory);
                anyhow::Ok(())
            });
            // The next process removes what is left.
            let _ = unmount.join();
        });
    }
}

/// The mounts that threads hold for process 1, as the calling thread sees them.
fn held() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/thread-self/mountinfo").context("read the list of mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let prefix = std::env::temp_dir().join(HELD).display().to_string();
    let held = points.filter(|point| point.starts_with(&prefix));
    Ok(held.map(PathBuf::from).collect())
}

/// Removes the mounts and directories of killed processes.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(HELD)?.split('-').next());
        let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        if owner.is_some_and(gone) {
            // Another process may remove them, too.
            let _ = release(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

fn release(directory: &Path) -> Result<()> {
    Ok(umount2(directory, MntFlags::MNT_DETACH)?)
}

/// Moves the calling thread into a mount namespace of its own, so that its mounts stay private.
fn make_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount namespace")?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("make mounts private")
}

/// Mounts a new, empty bpffs.
pub fn mount_bpffs(directory: &Path) -> Result<()> {
    mount(
        Some("bpf"),
        directory,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .with_context(|| format!("mount bpffs at `{}`", directory.display()))
}

/// Gives the calling thread, which is in a private mount namespace ([`enter_private`]), and those
/// that it starts from now on, a writable `/etc`. Existing files show through.
pub fn own_etc() -> Result<()> {
    own("/etc")
}

/// Does the same for another directory; mounts inside it do not show through.
pub fn own(directory: &str) -> Result<()> {
    let is_private = HOME.with_borrow(Option::is_some);
    ensure!(is_private, "not in a mount namespace of its own");
    let scratch = TempDir::with_prefix("apf-etc-").context("make a directory")?;
    let nothing = None::<&str>;
    let path = scratch.path();
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )
    .context("mount tmpfs")?;
    for name in ["upper", "work"] {
        fs::create_dir(path.join(name))?;
    }
    let options = format!(
        "lowerdir={directory},upperdir={0}/upper,workdir={0}/work",
        path.display()
    );
    mount(
        Some("overlay"),
        directory,
        Some("overlay"),
        MsFlags::empty(),
        Some(&*options),
    )
    .with_context(|| format!("mount `{directory}`"))?;
    release(path)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let nothing = None::<&str>;
    mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing)
        .with_context(|| format!("mount `{}` at `{}`", from.display(), to.display()))
}

/// Mounts the sysfs of the calling thread's network namespace, in a mount namespace private to the
/// thread; returns its path.
///
/// Only for threads that end soon: processes that they started before see the old sysfs.
pub fn sysfs() -> Result<PathBuf> {
    const SYSFS: &str = "/sys";
    make_private()?;
    let nothing = None::<&str>;
    mount(
        Some("sysfs"),
        SYSFS,
        Some("sysfs"),
        MsFlags::empty(),
        nothing,
    )
    .with_context(|| format!("mount sysfs at `{SYSFS}`"))?;
    Ok(SYSFS.into())
}
