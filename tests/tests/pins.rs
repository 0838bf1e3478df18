//! The place of the pins, their permissions, and the processes that keep them.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::{
    cli::{Apifence, FAILED, refused},
    mounts::{self, BPFFS},
    site::{ATTACH, Family, INTERFACE, Site},
    strace::{NO_LOG, strace},
    wait::until,
};

const PORT: u16 = 6443;
const RUN: [&str; 5] = ["run", ATTACH[1], ATTACH[2], ATTACH[3], ATTACH[4]];
/// Every command that reads or changes the pins.
const ALL: [&[&str]; 12] = [
    &ATTACH,
    &RUN,
    &["detach"],
    &["detach", "--interface", INTERFACE],
    &["status"],
    &["check", "192.0.2.1"],
    &["stats"],
    &["events"],
    &["suggest"],
    &["ranges", "list"],
    &["ranges", "set", "192.0.2.1"],
    &["confirm"],
];

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

/// A directory and every directory in it.
fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(directories(&entry.path())?);
        }
    }
    Ok(found)
}

#[test]
fn no_other_user_can_lock_or_change_pins_whatever_the_umask() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    // Like `mount -t bpf bpf DIRECTORY`.
    mode(Path::new(BPFFS), 0o1777)?;
    for apart in [true, false] {
        let filter = match apart {
            true => Apifence::new(&site.node)?,
            false => Apifence::new(&site.node)?.with_bpffs(BPFFS),
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 000; exec \"$@\"", "sh"]);
        let ran = filter.run_by(shell, &ATTACH)?;
        ensure!(ran.code == Some(0), "{ran}");
        let mut all = directories(filter.bpffs())?;
        all.retain(|directory| directory != Path::new(BPFFS));
        ensure!(all.len() >= 5, "{all:?}");
        for directory in all {
            let mode = fs::metadata(&directory)?.permissions().mode();
            ensure!(mode & 0o777 == 0o700, "{directory:?}: {mode:o}");
        }
        let lock = |uid: &str, directory: &Path| -> Result<bool> {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", uid, "--clear-groups", "flock", "-n"]);
            Ok(command.arg(directory).arg("true").status()?.success())
        };
        ensure!(lock("0", &filter.bpffs().join("write"))?, "no such lock");
        ensure!(!lock("65534", &filter.bpffs().join("write"))?);
        // Only `run` makes it.
        let mut run = filter.start(&RUN)?;
        run.line(|line| line.contains("guarding"))?;
        ensure!(!lock("65534", &filter.bpffs().join("watch"))?);
        run.signal(Signal::SIGTERM)?;
        run.wait()?;
        filter.ok(&["detach"])?;
    }
    ensure!(!filter.bpffs().exists(), "pins are left");
    Ok(())
}

#[test]
fn pins_that_another_user_may_change_are_refused_by_name() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let own = filter.bpffs().to_owned();
    let inside = own.join(format!("layout-{LAYOUT_VERSION}"));
    let parent = own.join("parent");
    let below = Apifence::new(&site.node)?.with_bpffs(parent.join("apifence"));
    let nobody = |path: &Path| -> Result<()> { Ok(chown(path, Some(65534), None)?) };
    // The path to make, its fault, and the path that the error must name.
    type Case<'a> = (
        &'a Apifence,
        &'a Path,
        &'a dyn Fn(&Path) -> Result<()>,
        &'a str,
    );
    let cases: [Case<'_>; 7] = [
        (&filter, &own, &nobody, "65534"),
        (
            &filter,
            &own,
            &|path| mode(path, 0o777),
            "other users can write",
        ),
        (
            &filter,
            &own,
            &|path| mode(path, 0o770),
            "other users can write",
        ),
        (&filter, &inside, &nobody, "65534"),
        (
            &filter,
            &inside,
            &|path| mode(path, 0o1777),
            "other users can write",
        ),
        (
            &below,
            &parent,
            &|path| mode(path, 0o777),
            "other users can write",
        ),
        (&below, &parent, &nobody, "65534"),
    ];
    for (filter, path, spoil, word) in cases {
        fs::create_dir_all(filter.bpffs())?;
        fs::create_dir_all(path)?;
        spoil(path)?;
        for command in ALL {
            let ran = filter.run(command)?;
            refused(&ran, FAILED, &[word, &format!("`{}`", path.display())])?;
        }
        ensure!(path.exists(), "{path:?} was removed");
        fs::remove_dir_all(&own)?;
    }
    // An older version's directory, which other users may read, is not refused either.
    fs::create_dir(&own)?;
    mode(&own, 0o755)?;
    filter.ok(&ATTACH).map(drop)
}

#[test]
fn what_is_not_a_bpffs_is_refused_by_every_command_and_left_alone() -> Result<()> {
    let site = Site::new()?;
    let scratch = TempDir::new()?;
    let filter = Apifence::new(&site.node)?.with_bpffs(scratch.path());
    let other = scratch.path().join("layout-6/maps");
    fs::create_dir_all(&other)?;
    fs::write(other.join("precious"), "x")?;
    for command in ALL {
        let ran = filter.run(command)?;
        let name = scratch.path().display().to_string();
        refused(&ran, FAILED, &["no bpffs", &name])?;
        ensure!(!ran.stderr.contains("apifence detach"), "{ran}");
    }
    let left = directories(scratch.path())?.len();
    ensure!(left == 3 && other.join("precious").exists(), "{left}");
    Ok(())
}

#[test]
fn detach_removes_layouts_with_numbers_alone() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let ours = filter.bpffs().join("layout-6");
    let others = [
        "layout-",
        "layout-y",
        "layout-7a",
        "layout--7",
        "layout-٣",
        "maps",
    ];
    for name in others {
        fs::create_dir(filter.bpffs().join(name))?;
    }
    fs::create_dir(&ours)?;
    filter.ok(&["detach"])?;
    let left = directories(filter.bpffs())?.len();
    ensure!(left == 1 + others.len() && !ours.exists(), "{left} left");
    Ok(())
}

#[test]
fn a_bpffs_that_ends_with_the_process_is_refused() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let own = TempDir::new()?;
    // In the mount namespace of this thread.
    mounts::mount_bpffs(own.path())?;
    for directory in [own.path().to_owned(), own.path().join("deep/apifence")] {
        let filter = Apifence::new(&site.node)?.with_bpffs(directory);
        for command in [&ATTACH[..], &RUN] {
            let ran = filter.run(command)?;
            let name = own.path().display().to_string();
            refused(&ran, FAILED, &[&name, "only for this process"])?;
        }
        ensure!(directories(own.path())?.len() == 1, "something is left");
        ensure!(!filter.ranges_file().exists(), "a list was written");
    }
    ensure!(!site.node.ip("link show")?.contains("xdp"));
    // The same directory, on a bpffs that process 1 has.
    filter.ok(&ATTACH).map(drop)
}

#[test]
fn a_container_with_process_ids_of_its_own_is_refused() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let contained = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]);
        unshare
    };
    let ran = filter.run_by(contained(), &ATTACH)?;
    refused(&ran, FAILED, &["its own process ids"])?;
    ensure!(!site.node.ip("link show")?.contains("xdp"));
    // What shows, and the way back, work there all the same.
    filter.ok(&ATTACH)?;
    for command in ["status", "detach"] {
        let ran = filter.run_by(contained(), &[command])?;
        ensure!(ran.code == Some(0), "{ran}");
    }
    Ok(())
}

/// An old `run` has its lock in the directory of its layout.
#[test]
fn run_of_another_layout_is_seen() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    for name in ["layout-6/watch", "layout-999/watch", "watch"] {
        let watch = filter.bpffs().join(name);
        fs::create_dir_all(&watch)?;
        let lock = File::open(&watch)?;
        lock.lock()?;
        let pid = format!("(pid {})", std::process::id());
        for command in [&ATTACH[..], &RUN, &["detach"]] {
            let ran = filter.run(command)?;
            refused(&ran, FAILED, &[&pid, "manages this filter"])?;
            ensure!(ran.stderr.contains("systemctl stop apifence"), "{ran}");
        }
        ensure!(watch.exists(), "{name} was removed");
        drop(lock);
        filter.ok(&["detach"])?;
        ensure!(!filter.bpffs().exists(), "pins are left");
    }
    Ok(())
}

/// Commands that only test whether `run` is there do not keep it from starting, and do not block
/// each other.
#[test]
fn a_test_of_the_lock_of_run_is_not_taken_for_run() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    fs::create_dir_all(filter.bpffs().join("watch"))?;
    let lock = File::open(filter.bpffs().join("watch"))?;
    lock.lock_shared()?;
    filter.ok(&ATTACH)?;
    let mut run = filter.start(&RUN)?;
    // Not before it has found the lock taken; then it tries again.
    until("`run` has opened the lock", || {
        let held = fs::read_dir(format!("/proc/{}/fd", run.pid()))?;
        let links = held
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        Ok(links.into_iter().any(|path| path.ends_with("watch")))
    })?;
    drop(lock);
    run.line(|line| line.contains("guarding"))?;
    run.signal(Signal::SIGTERM)?;
    assert_eq!(run.wait()?, Some(0));
    Ok(())
}

/// Whatever is left of the pins, the next command starts over.
#[test]
fn after_a_detach_that_was_killed_attach_starts_over() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let calls = "unlink,unlinkat,rmdir,rename,renameat,renameat2";
    let mut killed = 0;
    for number in 1.. {
        // At once, though the kernel releases a link a moment later.
        filter
            .ok(&ATTACH)
            .with_context(|| format!("after a detach that was killed at call {}", number - 1))?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        let kill = format!("inject={calls}:signal=SIGKILL:when={number}");
        let strace = strace(NO_LOG, &[&format!("trace={calls}"), &kill]);
        let ran = filter.run_by(strace, &["detach"])?;
        if ran.code == Some(0) {
            break;
        }
        killed += 1;
    }
    ensure!(killed > 10, "killed {killed} times");
    ensure!(!filter.bpffs().exists(), "pins are left");
    Ok(())
}
