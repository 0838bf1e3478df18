//! Nothing stops the watch: a blocked file, pipe or writer leaves the filter on its interfaces, and
//! the process reports what it cannot do.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::{
    mount::{MntFlags, umount2},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use tests::{
    cli::{Apifence, Background, Killed},
    mounts::{BPFFS, mount_bpffs},
    net::{Intruder, silent},
    scrape::{get, ready, until_ready},
    site::{Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    strace::{NO_LOG, strace},
    wait::until,
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const RUN: [&str; 3] = ["run", "--interface", INTERFACE];

/// Detaches the link of the interface as `bpftool link detach` does, and requires it back; returns
/// the number of connections in between.
fn detached_by_hand(site: &Site, filter: &Apifence) -> Result<usize> {
    let ifindex = site.node.ifindex(INTERFACE)?;
    let link = filter
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/interfaces/{ifindex}/link"));
    detached(site, &link)
}

/// Does the same with the link pinned at `link`.
fn detached(site: &Site, link: &Path) -> Result<usize> {
    let target = at(NODE[Family::V4 as usize], PORT);
    let intruder = Intruder::new(&site.unlisted, ip(UNLISTED[0]), target)?;
    let before = intruder.count();
    tests::kernel::detach_link(link)?;
    until("the filter is back", || {
        Ok(site
            .node
            .ip(&format!("link show {INTERFACE}"))?
            .contains("xdp"))
    })?;
    silent(&site.unlisted, ip(UNLISTED[0]), target)?;
    Ok(intruder.count() - before)
}

fn started(site: &Site, filter: &Apifence) -> Result<Background> {
    filter.write_list(LIST)?;
    let mut daemon = filter.start(&RUN)?;
    ready(&site.node, &mut daemon)?;
    Ok(daemon)
}

/// `run` ends soon after a signal.
fn ends(daemon: &mut Background) -> Result<()> {
    daemon.signal(Signal::SIGTERM)?;
    let began = Instant::now();
    ensure!(daemon.wait()? == Some(0), "it failed");
    println!("ended after {:?}", began.elapsed());
    Ok(())
}

/// Replaces the file at a path.
type Make<'a> = &'a dyn Fn(&Path) -> Result<()>;

#[test]
fn a_fifo_a_device_and_a_directory_in_place_of_the_files_stop_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = started(&site, &filter)?;
    let fifo = |path: &Path| Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let device = |path: &Path| Ok(symlink("/dev/zero", path)?);
    let directory = |path: &Path| Ok(fs::create_dir(path)?);
    let makes: [(&str, Make<'_>); 3] = [
        ("it is a FIFO", &fifo),
        ("it is a device", &device),
        ("it is a directory", &directory),
    ];
    for file in [filter.ranges_file(), filter.config_file()] {
        let text = fs::read_to_string(file)?;
        for (words, make) in makes {
            fs::remove_file(file)?;
            make(file)?;
            daemon.line(|line| line.starts_with("error: ") && line.contains(words))?;
            let got_in = detached_by_hand(&site, &filter)?;
            println!("{words}: {got_in} connections while the link was detached");
            ensure!(get(&site.node, "/readyz")?.body.contains(words));
            ensure!(get(&site.node, "/healthz")?.status == 200);
            // The lock is free for others.
            filter.ok(&["check", "198.51.100.7"])?;
            if file == filter.config_file() {
                // The config file is unreadable, so the pins come from the flag.
                filter.ok(&["ranges", "add", "192.0.2.200"])?;
                filter.ok(&["ranges", "remove", "192.0.2.200"])?;
            } else {
                filter.ok(&["ranges", "clear", "--dry-run"])?;
            }
            let _ = fs::remove_file(file).or_else(|_| fs::remove_dir(file));
            fs::write(file, &text)?;
            until_ready(&site.node)?;
        }
    }
    ends(&mut daemon)
}

#[test]
fn a_terminal_that_takes_nothing_stops_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    // Pipes without a reader.
    let mut command = filter.command(&[&["-v"], &RUN[..]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut daemon = Killed(site.node.spawn(&mut command)?);
    until("it is ready", || {
        Ok(get(&site.node, "/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    // More than a pipe and the queue hold.
    for round in 0..400 {
        filter.write_list(format!("nonsense {round} {}\n", "x".repeat(300)))?;
        if round % 40 == 0 {
            kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGHUP)?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    filter.write_list(LIST)?;
    until_ready(&site.node)?;
    let got_in = detached_by_hand(&site, &filter)?;
    println!("{got_in} connections while the link was detached");
    kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGTERM)?;
    let mut ended = false;
    until("it ends", || {
        ended = daemon.0.try_wait()?.is_some();
        Ok(ended)
    })
}

#[test]
fn a_stopped_writer_stops_no_interface() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = started(&site, &filter)?;
    // A writer that reads its list from a pipe has no lock yet; one that is stopped inside a change
    // has.
    let mut command = strace(NO_LOG, &["inject=fsync:signal=SIGSTOP"]);
    // A stopped process would outlive its tracer.
    command.args(["setpriv", "--pdeathsig", "KILL"]);
    let mut writer = filter.command_by(command, &["ranges", "add", "192.0.2.200"]);
    writer.stdout(Stdio::null()).stderr(Stdio::null());
    let mut writer = Killed(site.node.spawn(&mut writer)?);
    until("the lock is kept", || {
        let ran = filter.run(&["ranges", "add", "192.0.2.201", "--dry-run"])?;
        Ok(ran.stderr.contains("holds it"))
    })?;
    let got_in = detached_by_hand(&site, &filter)?;
    println!("{got_in} connections while the link was detached");
    reappears(&site, &filter, &mut daemon)?;
    writer.0.kill()?;
    ends(&mut daemon)
}

/// The interface is deleted, made again, and guarded.
fn reappears(site: &Site, filter: &Apifence, daemon: &mut Background) -> Result<()> {
    site.node.ip(&format!("link delete {INTERFACE}"))?;
    daemon.line(|line| line.contains("does not exist"))?;
    site.node
        .ip(&format!("link add {INTERFACE} type veth peer name other"))?;
    daemon.line(|line| line.contains(&format!("guarding `{INTERFACE}` again")))?;
    ensure!(filter.status("interfaces")?[0]["guarded"] == true);
    Ok(())
}

#[test]
fn pins_that_are_gone_open_nothing_and_come_back() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = started(&site, &filter)?;
    let target = at(NODE[0], PORT);
    let intruder = Intruder::new(&site.unlisted, ip(UNLISTED[0]), target)?;
    for entry in fs::read_dir(filter.bpffs())? {
        fs::remove_dir_all(entry?.path())?;
    }
    daemon.line(|line| line.starts_with("warning: another process removed pins"))?;
    ensure!(filter.status("state")? == "enforcing");
    // Changes of the list still work, and the filter obeys them.
    filter.ok(&["ranges", "add", UNLISTED[1]])?;
    site.unlisted_gets_in(Family::V6, PORT)?;
    ensure!(intruder.count() == 0, "{} got in", intruder.count());
    drop(intruder);
    // The filter outlives the process again.
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["detach"]).map(drop)
}

#[test]
fn a_bpffs_mounted_over_the_pins_opens_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = started(&site, &filter)?;
    let ifindex = site.node.ifindex(INTERFACE)?;
    let interface = filter
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/interfaces/{ifindex}"));
    let hidden = fs::File::open(interface)?;
    let target = at(NODE[0], PORT);
    let intruder = Intruder::new(&site.unlisted, ip(UNLISTED[0]), target)?;
    mount_bpffs(Path::new(BPFFS))?;
    // It is not mounted for process 1, so pins in it would not stay: `run` says so and holds the
    // links.
    daemon.line(|line| line.starts_with("error: ") && line.contains("only for this process"))?;
    ensure!(get(&site.node, "/readyz")?.status == 503);
    let status = filter.json(&["status"])?;
    ensure!(status["state"] != "detached", "{status}");
    let ran = filter.run(&["detach"])?;
    ensure!(ran.code != Some(0), "{ran}");
    // `run` does not claim a change that packets cannot meet.
    for change in [&["ranges", "add", "192.0.2.200"][..], &["ranges", "clear"]] {
        let ran = filter.run(change)?;
        ensure!(
            ran.code == Some(3) && ran.stderr.contains("has an apifence filter"),
            "{ran}"
        );
    }
    ensure!(intruder.count() == 0, "{} got in", intruder.count());
    drop(intruder);
    let link = format!(
        "/proc/{}/fd/{}/link",
        std::process::id(),
        hidden.as_raw_fd()
    );
    let got_in = detached(&site, Path::new(&link))?;
    println!("{got_in} connections while the link was detached");

    umount2(BPFFS, MntFlags::MNT_DETACH)?;
    until_ready(&site.node)?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["detach"]).map(drop)
}

#[test]
fn no_descriptor_left_stops_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = started(&site, &filter)?;
    let pid = daemon.pid().to_string();
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    // As many as it has, and no more.
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, &format!("--nofile={open}:{open}")]);
    ensure!(prlimit.status()?.success());
    filter.write_list(format!("{LIST}192.0.2.200\n"))?;
    daemon.line(|line| line.to_lowercase().contains("too many open files"))?;
    let got_in = detached_by_hand(&site, &filter)?;
    println!("{got_in} connections while the link was detached");
    ends(&mut daemon)
}

#[test]
fn little_is_done_where_nothing_happens() -> Result<()> {
    const SECONDS: u64 = 10;
    /// About 18 on an idle machine: four files and the reports each second, the link each 0.4 s.
    const MOST: u64 = 25;
    let (site, filter) = Site::unguarded()?;
    let daemon = started(&site, &filter)?;
    let scratch = tempfile::tempdir()?;
    let counts = scratch.path().join("counts");
    let pid = daemon.pid().to_string();
    let mut seen = String::new();
    // Not counting the first seconds of the start.
    for _ in 0..4 {
        let mut strace = Command::new("timeout");
        strace.args([
            "-s",
            "INT",
            &SECONDS.to_string(),
            "strace",
            "-qq",
            "-f",
            "-c",
        ]);
        strace.args(["-p", &pid, "-o"]).arg(&counts);
        strace.status()?;
        let text = fs::read_to_string(&counts)?;
        let total = text.lines().find(|line| line.ends_with(" total"));
        let calls = total
            .and_then(|line| line.split_whitespace().nth(3))
            .with_context(|| format!("no total in {text}"))?;
        let calls: u64 = calls.parse()?;
        println!("{calls} system calls in {SECONDS} s");
        if calls <= MOST * SECONDS {
            return Ok(());
        }
        seen += &text;
    }
    bail!("more than {MOST} system calls a second: {seen}")
}
