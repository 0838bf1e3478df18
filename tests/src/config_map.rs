//! A Kubernetes ConfigMap volume, as its readers see it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::wait::until;

/// A ConfigMap in the kubelet's layout: the file is a link through `..data`, which is swapped. The
/// folder is read-only.
#[derive(Debug)]
pub struct ConfigMap {
    folder: TempDir,
}

impl ConfigMap {
    /// With `text` in `ranges`.
    pub fn new(text: &str) -> Result<Self> {
        let map = Self {
            folder: TempDir::with_prefix("apf-")?,
        };
        map.publish("..1", text)?;
        symlink("..data/ranges", map.file())?;
        mount(map.folder.path(), &["--bind"])?;
        map.lock()?;
        Ok(map)
    }

    /// The file in it.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ranges")
    }

    fn publish(&self, version: &str, text: &str) -> Result<()> {
        let folder = self.folder.path();
        fs::create_dir(folder.join(version))?;
        fs::write(folder.join(version).join("ranges"), text)?;
        symlink(version, folder.join("..data_tmp"))?;
        Ok(fs::rename(
            folder.join("..data_tmp"),
            folder.join("..data"),
        )?)
    }

    fn lock(&self) -> Result<()> {
        // A process that locks the folder has a file open there for a moment.
        until("the folder is read-only", || {
            Ok(mount(self.folder.path(), &["-o", "remount,bind,ro"]).is_ok())
        })
    }

    /// Writes the next version, as the kubelet does from outside.
    pub fn update(&self, version: &str, text: &str) -> Result<()> {
        mount(self.folder.path(), &["-o", "remount,bind,rw"])?;
        self.publish(version, text)?;
        self.lock()
    }
}

impl Drop for ConfigMap {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

fn mount(folder: &Path, flags: &[&str]) -> Result<()> {
    let status = Command::new("mount")
        .args(flags)
        .args([folder, folder])
        .status();
    ensure!(status.context("mount")?.success(), "mount {flags:?} failed");
    Ok(())
}
