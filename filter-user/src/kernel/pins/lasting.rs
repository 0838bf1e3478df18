//! Whether pins in a directory outlive the process that makes them.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::{
    libc::dev_t,
    sys::{
        stat::{major, minor},
        statfs::{BPF_FS_MAGIC, Statfs},
    },
};

/// Inode of the PID namespace in which Linux boots: `PROC_PID_INIT_INO`, fixed since Linux 3.8
/// (commit 98f842e675f96ffac96e6c50315790912b2812be).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What prevents pins, and the way out.
pub(super) type Obstacle = (&'static str, &'static str);

/// Whether `filesystem` is a bpffs: the kernel pins nowhere else.
pub(super) fn no_bpffs(filesystem: Statfs) -> Option<Obstacle> {
    (filesystem.filesystem_type() != BPF_FS_MAGIC).then_some((
        "no bpffs is mounted there",
        "`mount -t bpf -o mode=0700 bpf /sys/fs/bpf`, or name a directory in a bpffs with `--bpffs`",
    ))
}

/// Why a bpffs on `device` would end with this process.
///
/// Where this is wrong, the filter goes when the process ends, and the port is open.
pub(super) fn ends_with_process(device: dev_t) -> Option<Obstacle> {
    if process_one_is_a_containers() {
        return Some((
            "this container has its own process ids, so apifence cannot tell whether the bpffs outlives it",
            "mount the host's `/sys/fs/bpf` and share the host's process ids (`hostPID: true` in Kubernetes, else `--pid=host`)",
        ));
    }
    if !process_one_has_mounted(device) {
        return Some((
            "its bpffs is mounted only for this process: the filter would end with it",
            "run apifence in the mount namespace of process 1, or mount the host's bpffs in this one (in Kubernetes: a `hostPath` volume of `/sys/fs/bpf`)",
        ));
    }
    None
}

/// Whether process 1, as this process sees it, is what a container runs, and not the init system of
/// the machine or of a container that is used as a machine. Its mounts then end with the container.
fn process_one_is_a_containers() -> bool {
    let is_first = |namespace: fs::Metadata| namespace.ino() == FIRST_PID_NAMESPACE;
    if fs::metadata("/proc/self/ns/pid").map_or(true, is_first) {
        return false;
    }
    // A container's own first process can read this. A unit with `ProtectProc=invisible` cannot:
    // then the first process is its service manager.
    fs::read_to_string("/proc/1/comm").is_ok_and(|name| !["init", "systemd"].contains(&name.trim()))
}

/// Whether process 1 has mounted `device` anywhere. It has not where a container or a unit has a
/// bpffs in its own mount namespace.
fn process_one_has_mounted(device: dev_t) -> bool {
    let device = format!("{}:{}", major(device), minor(device));
    // Without this file the check is impossible; the mount is then assumed to stay.
    let Ok(mounts) = fs::read_to_string("/proc/1/mountinfo") else {
        return true;
    };
    // The third field of a line is the device (proc_pid_mountinfo(5)).
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(&device))
}
