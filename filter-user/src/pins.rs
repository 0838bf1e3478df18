//! Where things are pinned, and whose pins are there.
//!
//! ```text
//! BPFFS/layout-N/maps/SELECTOR ...          the policy, shared by all interfaces
//! BPFFS/layout-N/interfaces/IFINDEX/link    the program on an interface
//! BPFFS/layout-N/watch                      locked by `run`
//! ```
//! The layout version is in the path, so that a binary of another version cannot read these maps by mistake. Interfaces stand
//! under their number: names may hold dots, which bpffs refuses, and may change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use filter_common::map::LAYOUT_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::problem::{Problem, errno};

/// The directory all pins are under.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

const LAYOUT: &str = "layout-";
const MAPS: &str = "maps";
const INTERFACES: &str = "interfaces";

impl Pins {
    /// The pins under `root`; nothing is looked at yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn layout(&self) -> PathBuf {
        self.root.join(format!("{LAYOUT}{LAYOUT_VERSION}"))
    }

    /// The directory of the maps in use.
    pub fn maps(&self) -> PathBuf {
        self.layout().join(MAPS)
    }

    /// The directory in which new maps are prepared: it takes the name of [`maps`](Self::maps) once they hold a policy.
    pub fn new_maps(&self) -> PathBuf {
        self.layout().join("maps-new")
    }

    /// The directory that `run` locks while it is on watch.
    pub fn watch(&self) -> PathBuf {
        self.layout().join("watch")
    }

    /// The directory of an interface.
    pub fn interface(&self, ifindex: u32) -> PathBuf {
        self.layout().join(INTERFACES).join(ifindex.to_string())
    }

    /// The link of an interface: it holds the program there as long as this pin exists.
    pub fn link(&self, ifindex: u32) -> PathBuf {
        self.interface(ifindex).join("link")
    }

    /// The interfaces with a pinned link, by number.
    ///
    /// # Errors
    /// If the pins are those of another layout version, or cannot be read.
    pub fn interfaces(&self) -> Result<Vec<u32>> {
        self.check_layout()?;
        let mut found: Vec<u32> = list(&self.layout().join(INTERFACES))
            .with_context(|| format!("read pins in `{}`", self.root.display()))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|ifindex| self.link(*ifindex).exists())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Makes sure that the directory can hold pins, and makes it.
    ///
    /// # Errors
    /// If it is not in a bpffs: the kernel pins nowhere else.
    pub fn prepare(&self) -> Result<()> {
        let existing = self
            .root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let stat = statfs(existing)
            .map_err(io::Error::from)
            .map_err(|error| anyhow::anyhow!(errno(&error)))
            .with_context(|| format!("open pins in `{}`", self.root.display()))?;
        if stat.filesystem_type() != BPF_FS_MAGIC {
            return Err(Problem::failed(
                format!(
                    "open pins in `{}`: no bpffs is mounted there",
                    self.root.display()
                ),
                "`mount -t bpf bpf /sys/fs/bpf`, or name a directory in a bpffs with `--bpffs`",
            ));
        }
        fs::create_dir_all(&self.root).map_err(|error| self.explain("make directory", &error))?;
        self.check_layout()?;
        fs::create_dir_all(self.layout()).map_err(|error| self.explain("make directory", &error))
    }

    /// Makes the directory of an interface.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn prepare_interface(&self, ifindex: u32) -> Result<()> {
        fs::create_dir_all(self.interface(ifindex))
            .map_err(|error| self.explain("make directory", &error))
    }

    /// Refuses pins that a binary of another layout version made.
    fn check_layout(&self) -> Result<()> {
        let names =
            list(&self.root).with_context(|| format!("read pins in `{}`", self.root.display()))?;
        let other = names
            .iter()
            .filter_map(|name| name.strip_prefix(LAYOUT))
            .find(|version| **version != LAYOUT_VERSION.to_string());
        match other {
            None => Ok(()),
            Some(version) => Err(Problem::failed(
                format!(
                    "open pins in `{}`: map layout {version}, this binary needs {LAYOUT_VERSION}",
                    self.root.display()
                ),
                "`apifence detach` removes them; the port is unfiltered until the next `apifence attach`",
            )),
        }
    }

    /// Every layout that has pins here, with the link pins in it: what `detach` removes, whatever version made it.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all_links(&self) -> Result<Vec<PathBuf>> {
        let mut links = Vec::new();
        for layout in self.layouts()? {
            let interfaces = layout.join(INTERFACES);
            for name in list(&interfaces)? {
                let link = interfaces.join(name).join("link");
                if link.exists() {
                    links.push(link);
                }
            }
        }
        Ok(links)
    }

    /// Removes everything that a version of apifence pinned here, and the directory. Links go first: from then on nothing
    /// is filtered.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_all(&self) -> Result<()> {
        for link in self.all_links()? {
            fs::remove_file(&link).map_err(|error| self.explain("remove pin", &error))?;
        }
        for layout in self.layouts()? {
            fs::remove_dir_all(&layout).map_err(|error| self.explain("remove pins", &error))?;
        }
        // Somebody else's files in it keep the directory; so does a mount on it.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Removes the pin of the link of one interface.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_interface(&self, ifindex: u32) -> Result<()> {
        match fs::remove_file(self.link(ifindex)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.explain("remove pin", &error));
            }
            _ => {}
        }
        fs::remove_dir(self.interface(ifindex)).map_err(|error| self.explain("remove pins", &error))
    }

    fn layouts(&self) -> Result<Vec<PathBuf>> {
        let names =
            list(&self.root).with_context(|| format!("read pins in `{}`", self.root.display()))?;
        Ok(names
            .iter()
            .filter(|name| name.starts_with(LAYOUT))
            .map(|name| self.root.join(name))
            .collect())
    }

    fn explain(&self, verb: &str, error: &io::Error) -> anyhow::Error {
        let hint = if self.root.to_string_lossy().contains('.') {
            "bpffs takes no names with a dot in them; name another directory with `--bpffs`"
        } else {
            "pins need root and a writable bpffs"
        };
        Problem::failed(
            format!("{verb} in `{}`: {}", self.root.display(), errno(error)),
            hint,
        )
    }
}

/// The names in a directory; none if it does not exist.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
