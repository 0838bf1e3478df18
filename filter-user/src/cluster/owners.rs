//! Processes, and the sockets that they own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use procfs::process::{FDTarget, Process, all_processes};

use crate::{kernel::net::sock_diag::TcpSocket, ui::visible::visible_in_line};

/// A process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedProcess {
    /// Its process id.
    pub(super) pid: i32,
    /// The name of its program, for use within a line: 15 bytes (`proc_pid_comm(5)`), which a
    /// program chooses, with hidden characters escaped.
    pub(super) name: String,
}

/// All visible processes, in any network namespace.
fn processes() -> impl Iterator<Item = (NamedProcess, Process)> {
    let all = all_processes().into_iter().flatten().flatten();
    all.filter_map(|process| {
        let name = visible_in_line(&process.stat().ok()?.comm).into_owned();
        let pid = process.pid;
        Some((NamedProcess { pid, name }, process))
    })
}

/// The processes in the network namespace of the calling thread, and those whose namespace this
/// process may not ask for: in a container without CAP_SYS_PTRACE the node's kubelet is one
/// (`proc_pid_ns(5)`).
pub(super) fn processes_here() -> impl Iterator<Item = NamedProcess> {
    let here = fs::read_link("/proc/thread-self/ns/net").ok();
    processes().filter_map(move |(named, process)| {
        let there = fs::read_link(format!("/proc/{}/ns/net", process.pid));
        let is_here = match there {
            Ok(there) => here == Some(there),
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        is_here.then_some(named)
    })
}

/// The processes that have sockets, by inode: never none. A program's workers share its listeners.
pub(super) type Owners = BTreeMap<u64, Vec<NamedProcess>>;

/// The inodes of the sockets of programs whose names are `wanted`, each with its processes.
pub(super) fn sockets_of(wanted: impl Fn(&str) -> bool) -> Owners {
    let mut found = Owners::new();
    for (named, process) in processes() {
        if !wanted(&named.name) {
            continue;
        }
        let inodes: BTreeSet<u64> = inodes(&process).collect();
        for inode in inodes {
            found.entry(inode).or_default().push(named.clone());
        }
    }
    found
}

/// The process that `socket` is told by: the first that has it.
pub(super) fn owner<'a>(owners: &'a Owners, socket: &TcpSocket) -> Option<&'a NamedProcess> {
    owners.get(&u64::from(socket.inode))?.first()
}

/// The remote ports of `connections`, each with the process that has it, and with the owner of each
/// listener that this process shares: the master of a worker.
pub(super) fn connected(
    owners: &Owners,
    listeners: &[TcpSocket],
    connections: &[TcpSocket],
) -> BTreeSet<(u16, i32)> {
    let of = |socket: &TcpSocket| owners.get(&u64::from(socket.inode)).into_iter().flatten();
    let mut masters: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for listener in listeners {
        for (named, master) in of(listener).zip(owner(owners, listener).into_iter().cycle()) {
            masters.entry(named.pid).or_default().insert(master.pid);
        }
    }
    let mut found = BTreeSet::new();
    for connection in connections {
        let port = connection.connection.remote.port();
        for named in of(connection) {
            let masters = masters.get(&named.pid).into_iter().flatten();
            found.extend(masters.chain([&named.pid]).map(|pid| (port, *pid)));
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
