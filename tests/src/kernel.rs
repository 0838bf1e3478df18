//! What the kernel holds: programs, links and maps by their ids.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// Ids of everything that is loaded, of anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
}

impl Loaded {
    /// What is there now. The kernel frees some of it a moment after its last holder is gone.
    pub fn now() -> Result<Self> {
        Ok(Self {
            programs: loaded_programs()
                .filter_map(Result::ok)
                .map(|info| info.id())
                .collect(),
            links: loaded_links()
                .filter_map(Result::ok)
                .map(|info| info.id())
                .collect(),
            maps: loaded_maps()
                .filter_map(Result::ok)
                .map(|info| info.id())
                .collect(),
        })
    }

    /// What is in `self` and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            links: &self.links - &other.links,
            maps: &self.maps - &other.maps,
        }
    }

    /// What is in both.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            links: &self.links & &other.links,
            maps: &self.maps & &other.maps,
        }
    }
}

/// Detaches the link pinned at `pin` by hand: it stays, and holds nothing.
pub fn detach_link(pin: &Path) -> Result<()> {
    let detached = Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(pin)
        .output()
        .context("run bpftool")?;
    ensure!(detached.status.success(), "{detached:?}");
    Ok(())
}
