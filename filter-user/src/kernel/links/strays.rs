//! Filters that are attached, but whose links are not pinned under these pins, as the kernel and
//! `/proc` show them.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;
use procfs::process::all_processes;

use crate::{
    clock::to_second,
    kernel::{
        bpf::{Attachment, links, loaded},
        net::{interface::Interface, rtnetlink},
        pins::Pins,
    },
    ui::error::UserError,
};

/// A filter of ours on an interface whose link is not pinned under the given pins.
#[derive(Clone, Debug)]
pub struct Stray {
    /// The interface.
    pub interface: String,
    /// Its ifindex.
    pub ifindex: u32,
    since: Option<Timestamp>,
    /// The id of the link; `None` if it was attached without one, or is being removed.
    link_id: Option<u32>,
    /// The pin of the link, if its bpffs is mounted here.
    pin: Option<PathBuf>,
    /// The processes that hold the link.
    holders: Vec<String>,
    /// The root of the given pins.
    root: PathBuf,
}

/// The strays on `interfaces`, all of one network namespace: an ifindex of another one means
/// nothing here. A program that this process cannot name counts as foreign, see [`unnamed`].
///
/// # Errors
/// If the kernel does not list its links, or the pins cannot be read.
pub fn strays(pins: &Pins, interfaces: &[Interface]) -> Result<Vec<Stray>> {
    let mut strays = Vec::new();
    for (interface, program_id) in not_pinned_here(pins, interfaces)? {
        let program = loaded(program_id).ok().flatten();
        let Some(program) = program.filter(|program| program.link_header().is_some()) else {
            continue;
        };
        let holds =
            |link: &&Attachment| (link.ifindex, link.program_id) == (interface.ifindex, program_id);
        let link_id = links()?.iter().find(holds).map(|link| link.link_id);
        strays.push(Stray {
            interface: interface.name.clone(),
            ifindex: interface.ifindex,
            since: program.since,
            link_id,
            pin: link_id.and_then(pin_of),
            holders: link_id.map_or_else(Vec::new, holders),
            root: pins.root().to_owned(),
        });
    }
    Ok(strays)
}

/// The first of `interfaces` with a program that this process cannot name, and that is not pinned
/// here: it may be a stray. In words, for a warning.
///
/// # Errors
/// If the pins cannot be read.
pub fn unnamed(pins: &Pins, interfaces: &[Interface]) -> Result<Option<String>> {
    let mut carried = not_pinned_here(pins, interfaces)?.into_iter();
    let found = carried.find(|(_, program_id)| loaded(*program_id).is_err());
    Ok(found.map(|(interface, program_id)| {
        format!(
            "`{}` has XDP program {program_id}; reading its name needs CAP_SYS_ADMIN",
            interface.name
        )
    }))
}

/// The interfaces with a program that no link under `pins` holds, each with the program's id.
fn not_pinned_here<'a>(
    pins: &Pins,
    interfaces: &'a [Interface],
) -> Result<Vec<(&'a Interface, u32)>> {
    let pinned: Vec<Attachment> = pins
        .all_links()?
        .iter()
        .filter_map(|pin| Attachment::read(pin).ok())
        .collect();
    let carrying = interfaces.iter().filter_map(|interface| {
        let program_id = interface.xdp?.program_id;
        let mut pinned = pinned.iter();
        let is_pinned =
            pinned.any(|link| (link.ifindex, link.program_id) == (interface.ifindex, program_id));
        (!is_pinned).then_some((interface, program_id))
    });
    Ok(carrying.collect())
}

/// The strays on all interfaces, with these interfaces, once removals have completed: the kernel
/// releases a link a moment after its last holder.
///
/// # Errors
/// As of [`strays`], or if the kernel does not list its interfaces.
pub fn strays_at_rest(pins: &Pins) -> Result<(Vec<Stray>, Vec<Interface>)> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let interfaces = rtnetlink::interfaces()?;
        let strays = strays(pins, &interfaces)?;
        let leaving = strays.iter().any(|stray| stray.link_id.is_none());
        if !leaving || Instant::now() > deadline {
            return Ok((strays, interfaces));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// How long a filter without a link may be one that is being removed.
const TIMEOUT: Duration = Duration::from_secs(2);

impl Stray {
    /// The cause for an error: the filter, and its place.
    pub fn cause(&self) -> String {
        let since = self
            .since
            .map_or_else(String::new, |since| format!(" since {}", to_second(since)));
        let place = match (&self.pin, self.link_id) {
            (Some(pin), _) => format!("its link is pinned at `{}`", pin.display()),
            (None, None) => "it was attached without a link".to_owned(),
            (None, Some(_)) if self.holders.is_empty() => {
                "its link is pinned in a bpffs that is not mounted here".to_owned()
            }
            (None, Some(_)) => "no pin of its link is visible here".to_owned(),
        };
        let holders = match self.holders.as_slice() {
            [] => String::new(),
            holders => format!(", and {} holds it", holders.join(", ")),
        };
        format!(
            "`{}` has an apifence filter{since} whose pins are not in `{}`: {place}{holders}",
            self.interface,
            self.root.display()
        )
    }

    /// The hint for it.
    pub fn hint(&self) -> String {
        let name = &self.interface;
        match (&self.pin, self.link_id) {
            (Some(pin), _) => {
                // Pinned at ROOT/layout-N/interfaces/IFINDEX/link.
                let root = pin.ancestors().nth(4).unwrap_or(pin);
                format!("use those pins: `--bpffs {}`", root.display())
            }
            (None, None) => format!("`ip link set dev {name} xdp off` removes it"),
            (None, Some(_)) if !self.holders.is_empty() => {
                "if that is `run`, mount a bpffs there (`mount -t bpf -o mode=0700 bpf /sys/fs/bpf`) and it pins the filter again; without a pin the filter ends with its process".to_owned()
            }
            (None, Some(id)) => {
                format!("mount that bpffs again, or remove the filter with `bpftool link detach id {id}`")
            }
        }
    }

    /// The error of `verb`, caused by this filter.
    pub fn problem(&self, verb: &str) -> anyhow::Error {
        UserError::failed(format!("{verb}: {}", self.cause()), self.hint())
    }
}

/// The pin of the link with this id, made by any apifence.
fn pin_of(link_id: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The fifth field of a line is the mount point; the type follows ` - ` (proc_pid_mountinfo(5)).
    let points = mounts.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?;
        rest.starts_with("bpf ").then(|| Path::new(point))
    });
    points.into_iter().find_map(|point| find(point, link_id, 6))
}

fn find(directory: &Path, link_id: u32, depth: usize) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries.into_iter().find_map(|entry| {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            return find(&path, link_id, depth.checked_sub(1)?);
        }
        let is_it = || Attachment::read(&path).is_ok_and(|link| link.link_id == link_id);
        (path.ends_with("link") && is_it()).then_some(path)
    })
}

/// The processes that have the link with this id open, by `/proc/PID/fdinfo`.
fn holders(link_id: u32) -> Vec<String> {
    let wanted = format!("link_id:\t{link_id}");
    let processes = all_processes().into_iter().flatten().flatten();
    let holds = |pid: i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo"));
        descriptors.into_iter().flatten().flatten().any(|entry| {
            fs::read_to_string(entry.path())
                .is_ok_and(|text| text.lines().any(|line| line == wanted))
        })
    };
    processes
        .filter(|process| holds(process.pid()))
        .map(|process| {
            let command = process.cmdline().unwrap_or_default().join(" ");
            format!("process {} (`{command}`)", process.pid())
        })
        .collect()
}
