//! BPF objects of the kernel: programs, links and maps by their ids.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// Ids of everything that is loaded, by any process.
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
    /// The present ids. The kernel frees some objects a moment after their last reference has gone.
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

    /// Ids in `self` and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            links: &self.links - &other.links,
            maps: &self.maps - &other.maps,
        }
    }

    /// Ids in both.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            links: &self.links & &other.links,
            maps: &self.maps & &other.maps,
        }
    }
}

/// Detaches the link pinned at `pin` by hand: the link stays, without an interface.
pub fn detach_link(pin: &Path) -> Result<()> {
    let detached = Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(pin)
        .output()
        .context("run bpftool")?;
    ensure!(detached.status.success(), "{detached:?}");
    Ok(())
}

/// Ends a test that needs Linux `major.minor` if the kernel is older; otherwise it is an error.
///
/// The last line of `cargo xtask test` names the test, and CI fails. The line bypasses libtest,
/// which hides the output of passing tests.
pub fn cannot_run_before(needed: [u32; 2], why: &str) -> Result<()> {
    let [major, minor] = needed;
    let release = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    let running = [numbers.next(), numbers.next()].map(Option::unwrap_or_default);
    ensure!(
        running < needed,
        "this is Linux {release}, and {major}.{minor} is enough: {why}"
    );
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(
        io::stderr(),
        "\nnot run: {test}: needs Linux {major}.{minor}: {why}"
    )?;
    Ok(())
}
