//! Processes, and the sockets that they own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use procfs::process::{FDTarget, Process, all_processes};

/// A process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedProcess {
    /// Its process id.
    pub(super) pid: i32,
    /// The name of its program: 15 characters at most (`proc_pid_comm(5)`).
    pub(super) name: String,
}

/// All visible processes, in any network namespace.
fn processes() -> impl Iterator<Item = (NamedProcess, Process)> {
    let all = all_processes().into_iter().flatten().flatten();
    all.filter_map(|process| {
        let name = process.stat().ok()?.comm;
        let pid = process.pid;
        Some((NamedProcess { pid, name }, process))
    })
}

/// The processes in the network namespace of the calling thread.
pub(super) fn processes_here() -> impl Iterator<Item = NamedProcess> {
    let here = fs::read_link("/proc/thread-self/ns/net").ok();
    processes().filter_map(move |(named, process)| {
        let there: Option<PathBuf> = fs::read_link(format!("/proc/{}/ns/net", process.pid)).ok();
        (here.is_some() && there == here).then_some(named)
    })
}

/// The inodes of the sockets of programs whose names are `wanted`, each with its process.
pub(super) fn sockets_of(wanted: impl Fn(&str) -> bool) -> BTreeMap<u64, NamedProcess> {
    let mut found = BTreeMap::new();
    for (named, process) in processes() {
        if !wanted(&named.name) {
            continue;
        }
        let inodes: BTreeSet<u64> = inodes(&process).collect();
        for inode in inodes {
            found.entry(inode).or_insert_with(|| named.clone());
        }
    }
    found
}

/// The inodes of the sockets of programs whose names are `wanted`, if the title of the process
/// `fits`. The title is its first word, which some programs set to what they do.
pub(super) fn titles_of(
    wanted: impl Fn(&str) -> bool,
    fits: impl Fn(&str) -> bool,
) -> BTreeSet<u64> {
    let processes = processes().filter(|(named, process)| {
        let title = || process.cmdline().ok()?.into_iter().next();
        wanted(&named.name) && title().is_some_and(|title| fits(&title))
    });
    processes
        .flat_map(|(_, process)| inodes(&process).collect::<Vec<_>>())
        .collect()
}

fn inodes(process: &Process) -> impl Iterator<Item = u64> {
    let descriptors = process.fd().into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
}
