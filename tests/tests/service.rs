//! `run` as a service: its messages to the service manager, and its unit.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    site::{ADMIN, INTERFACE, Site},
    wait::PATIENCE,
};

const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const RUN: [&str; 3] = ["run", "--interface", INTERFACE];

/// The unit that is installed.
const UNIT: &str = include_str!("../../deploy/apifence.service");

#[test]
fn the_service_manager_is_notified() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(LIST)?;
    let path = filter.ranges_file().with_file_name("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let notified = |words: &[&str]| -> Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let length = socket
                .recv(&mut bytes)
                .with_context(|| format!("wait for {words:?}"))?;
            let text = String::from_utf8_lossy(&bytes[..length]);
            if words.iter().all(|word| text.contains(word)) {
                return Ok(());
            }
        }
    };
    let mut command = filter.command(&RUN);
    command
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = site.node.spawn(&mut command)?;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let mut child = tests::cli::Killed(child);
    notified(&["READY=1", "STATUS=generation 1 in force"])?;
    notified(&["WATCHDOG=1"])?;
    reload(child.0.id())?;
    notified(&["RELOADING=1", "MONOTONIC_USEC="])?;
    notified(&["READY=1"])?;
    filter.write_list("nonsense\n")?;
    notified(&["STATUS=", "`nonsense`"])?;
    filter.write_list(format!("{LIST}{}\n", ADMIN[0]))?;
    notified(&["STATUS=generation 2 in force"])?;
    nix::sys::signal::kill(pid, Signal::SIGTERM)?;
    notified(&["STOPPING=1"])?;
    ensure!(child.0.wait()?.success());
    Ok(())
}

/// Below 2.3 by `systemd-analyze security`, whose threshold is ten times that.
#[test]
fn the_unit_exposes_little() -> Result<()> {
    let directory = tempfile::TempDir::new()?;
    let unit = directory.path().join("apifence.service");
    fs::write(&unit, UNIT)?;
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=22"]);
    let output = analyze.arg(&unit).output().context("systemd-analyze")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// The settings of the unit that start it before the network.
#[test]
fn the_unit_starts_before_the_network() {
    let settings = |key: &str| -> Vec<&str> {
        let lines = UNIT.lines().filter_map(|line| line.split_once('='));
        let values = lines.filter(|(found, _)| *found == key);
        values.flat_map(|(_, value)| value.split(' ')).collect()
    };
    assert!(settings("Before").contains(&"network-pre.target"));
    assert_eq!(settings("Wants"), ["network-pre.target"]);
    // Units that bring up the network may start before `sysinit.target`, which services wait for by
    // default.
    assert_eq!(settings("DefaultDependencies"), ["no"]);
    assert_eq!(settings("After"), ["local-fs.target"]);
    assert!(!UNIT.contains("network-online"));
    assert_eq!(settings("StateDirectory"), ["apifence"]);
    assert_eq!(settings("StateDirectoryMode"), ["0700"]);
}

/// The unit's shell command for a reload of process `pid`, with no program in `PATH`.
fn reload(pid: u32) -> Result<()> {
    let script = UNIT.lines().find_map(|line| {
        line.strip_prefix("ExecReload=/bin/sh -c '")?
            .strip_suffix('\'')
    });
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script.context("no shell reloads")?])
        .env_clear()
        .env("PATH", "/nowhere")
        .env("MAINPID", pid.to_string());
    ensure!(shell.status()?.success());
    Ok(())
}
