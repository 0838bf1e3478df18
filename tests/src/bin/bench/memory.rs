//! Kernel memory, as the kernel charges it to a control group, and as programs count it themselves.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};

/// Number and interval of readings until the charge stays the same: the kernel frees replaced maps
/// after the command has ended.
const LOOKS: usize = 40;
const APART: Duration = Duration::from_millis(100);

/// A control group that commands run in. What they leave in the kernel is charged to it. Removed
/// when dropped.
pub(crate) struct Group {
    directory: PathBuf,
    /// The control group of this process.
    home: PathBuf,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    V1,
    V2,
}

impl Group {
    /// Makes a control group. `None` if no memory controller is available.
    pub(crate) fn new(name: &str) -> Result<Option<Self>> {
        let Some((root, version)) = root()? else {
            return Ok(None);
        };
        let own = fs::read_to_string("/proc/self/cgroup")?;
        // `number:controllers:path`; version 2 has the number 0, and names no controllers.
        let path = own.lines().find_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = match version {
                Version::V1 => controllers.split(',').any(|name| name == "memory"),
                Version::V2 => number == "0",
            };
            is_it.then(|| path.trim_start_matches('/'))
        });
        let home = root.join(path.context("find own control group")?);
        let directory = root.join(format!("apifence-bench-{}-{name}", std::process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("make control group `{}`", directory.display()))?;
        Ok(Some(Self {
            directory,
            home,
            version,
        }))
    }

    /// Moves this process and its future children into the group until the value is dropped.
    pub(crate) fn enter(&self) -> Result<Inside<'_>> {
        join(&self.directory)?;
        Ok(Inside(self))
    }

    /// Bytes of kernel memory charged to the group once the kernel has freed what it will free.
    /// Reclaims first what the kernel would give back under pressure (cached names of files that
    /// commands read).
    pub(crate) fn charged(&self) -> Result<u64> {
        let mut before = u64::MAX;
        for _ in 0..LOOKS {
            let (reclaim, amount) = match self.version {
                Version::V1 => ("memory.force_empty", "0"),
                Version::V2 => ("memory.reclaim", "1G"),
            };
            // The write fails when less can be reclaimed than requested, as here.
            let _ = fs::write(self.directory.join(reclaim), amount);
            let now = self.read()?;
            if now == before {
                break;
            }
            before = now;
            sleep(APART);
        }
        Ok(before)
    }

    fn read(&self) -> Result<u64> {
        let file = match self.version {
            Version::V1 => "memory.kmem.usage_in_bytes",
            Version::V2 => "memory.stat",
        };
        let file = self.directory.join(file);
        let text =
            fs::read_to_string(&file).with_context(|| format!("read `{}`", file.display()))?;
        let number = match self.version {
            Version::V1 => Some(text.trim()),
            // Since Linux 5.18, commit a8c49af3be5f0b4e105ef678bcf14ef102c270be.
            Version::V2 => text.lines().find_map(|line| line.strip_prefix("kernel ")),
        };
        let number = number.with_context(|| format!("no `kernel` in `{}`", file.display()))?;
        Ok(number.parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group has no processes now. An empty directory that stayed would do no harm.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// This process as a member of a group.
pub(crate) struct Inside<'a>(&'a Group);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        join(&self.0.home).expect("this process was there before");
    }
}

fn join(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("enter control group `{}`", group.display()))
}

/// The top of the hierarchy with the memory controller.
fn root() -> Result<Option<(PathBuf, Version)>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let place = PathBuf::from(place);
        let delegated = || {
            fs::read_to_string(place.join("cgroup.subtree_control"))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == "memory"))
        };
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                return Ok(Some((place, Version::V1)));
            }
            "cgroup2" if delegated() => return Ok(Some((place, Version::V2))),
            _ => {}
        }
    }
    Ok(None)
}

/// Memory that the maps pinned below `pins`, and their inner maps, lock by the kernel's count, as
/// in `bpftool map show`.
pub(crate) fn memlock(pins: &Path) -> Result<Memlock> {
    let mut memlock = Memlock::default();
    let mut folders = vec![pins.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("link") {
                let map = MapData::from_pin(&path);
                memlock.add(map.with_context(|| format!("open `{}`", path.display()))?)?;
            }
        }
    }
    Ok(memlock)
}

/// Memory of some maps, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memlock {
    pub(crate) all: u64,
    /// Part of `all`: the values of per-CPU arrays. The kernel allocates them before it records the
    /// group to charge (`map_create` in kernel/bpf/syscall.c, Linux 6.18), so no group is charged.
    pub(crate) per_cpu_arrays: u64,
}

impl Memlock {
    fn add(&mut self, map: MapData) -> Result<()> {
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(info)?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes: u64 = bytes.context("no `memlock` of a map")?.trim().parse()?;
        self.all += bytes;
        match Map::from_map_data(map)? {
            Map::PerCpuArray(_) => self.per_cpu_arrays += bytes,
            Map::ArrayOfMaps(map) => {
                let maps = ArrayOfMaps::<MapData>::try_from(Map::ArrayOfMaps(map))?;
                for index in 0..maps.len() {
                    match maps.get(&index, 0) {
                        Ok(map) => self.add(map)?,
                        Err(MapError::KeyNotFound) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
