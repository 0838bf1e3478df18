//! The maps of the slots: those that are pinned, and those that a process holds.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use aya::maps::MapData;
use nix::unistd::Pid;

/// The ids of the inner maps that are pinned below `maps`.
pub fn inner_maps(maps: &Path) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for slot in ["slot-0", "slot-1"] {
        for pin in fs::read_dir(maps.join(slot))? {
            ids.insert(MapData::from_pin(pin?.path())?.info()?.id());
        }
    }
    Ok(ids)
}

/// The ids of the maps that the process `pid` holds a descriptor of (proc_pid_fdinfo(5)).
pub fn held_maps(pid: Pid) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(file?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}
