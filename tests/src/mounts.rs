//! A mount namespace of one's own, with an empty bpffs at the usual place.

use std::{cell::Cell, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Where the private bpffs is.
pub const BPFFS: &str = "/sys/fs/bpf";

thread_local! {
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
}

/// Moves the calling thread, and what it starts from now on, into a mount namespace of its own with an empty bpffs at
/// [`BPFFS`].
///
/// Pins made there are invisible outside, and go with the last process that can see them. Does nothing the second time.
pub fn enter_private() -> Result<()> {
    if PRIVATE.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount namespace")?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("make mounts private")?;
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .with_context(|| format!("mount bpffs at `{BPFFS}`"))?;
    PRIVATE.set(true);
    Ok(())
}

/// Mounts the sysfs of the calling thread's network namespace, in a mount namespace that the thread keeps to itself; returns where.
///
/// For threads that end soon: what they started before sees the old one.
pub fn sysfs() -> Result<PathBuf> {
    const SYSFS: &str = "/sys";
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount namespace")?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("make mounts private")?;
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
