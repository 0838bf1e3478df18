//! `run` as a service: its messages to the service manager, and the capabilities that it needs.

use std::{
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::{FAILED, refused, words},
    site::{ADMIN, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED},
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
    notified(&["STATUS=", "range `nonsense`"])?;
    filter.write_list(format!("{LIST}{}\n", ADMIN[0]))?;
    notified(&["STATUS=generation 2 in force"])?;
    nix::sys::signal::kill(pid, Signal::SIGTERM)?;
    notified(&["STOPPING=1"])?;
    ensure!(child.0.wait()?.success());
    Ok(())
}

/// `setpriv`, for a command with exactly these capabilities, bounded as in the unit.
fn bounded(capabilities: &[String]) -> Command {
    let set: String = capabilities
        .iter()
        .map(|name| format!(",+{name}"))
        .collect();
    let set = format!("-all{set}");
    let mut setpriv = Command::new("setpriv");
    setpriv.args(words(&format!(
        "--bounding-set {set} --inh-caps -all --no-new-privs"
    )));
    setpriv
}

#[test]
fn the_unit_has_exactly_the_capabilities_that_are_needed() -> Result<()> {
    let bound = "CapabilityBoundingSet=";
    let bound = UNIT.lines().find_map(|line| line.strip_prefix(bound));
    let all: Vec<String> = bound
        .context("the unit bounds nothing")?
        .split(' ')
        .map(|name| name.trim_start_matches("CAP_").to_lowercase())
        .collect();
    assert_eq!(all, ["sys_admin", "net_admin"]);
    let without = |missing: &str| -> Vec<String> {
        let rest = all.iter().filter(|name| *name != missing);
        rest.cloned().collect()
    };
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    let done = |command: &[&str]| -> Result<()> {
        let ran = filter.run_by(bounded(&all), command)?;
        ensure!(ran.code == Some(0), "{ran}");
        Ok(())
    };
    done(&ATTACH)?;
    done(&["ranges", "add", UNLISTED[0]])?;
    site.unlisted_gets_in(Family::V4, 6443)?;
    done(&["ranges", "rollback"])?;
    site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
    done(&["status"])?;
    done(&["detach"])?;

    let ran = filter.run_by(bounded(&without("sys_admin")), &ATTACH)?;
    refused(&ran, FAILED, &[])?;
    ensure!(
        ran.stderr.contains("CAP_SYS_ADMIN"),
        "the hint does not name it: {ran}"
    );
    // A process with the capability removes what was started.
    filter.ok(&["detach"])?;

    // The other capability is for a warning.
    let rules = "table ip kube { chain services { type nat hook prerouting priority -100; \
                 tcp dport 444 dnat to 192.0.2.10:6443; }; }";
    let output = site.node.output(Command::new("nft").arg(rules))?;
    ensure!(output.status.success(), "{output:?}");
    let node = NODE.join(",");
    let attach = [&ATTACH[..], &["--destination", &node]].concat();
    for (capabilities, warns) in [(without("net_admin"), false), (all.clone(), true)] {
        let ran = filter.run_by(bounded(&capabilities), &attach)?;
        ensure!(ran.code == Some(0), "{ran}");
        ensure!(
            ran.stderr.contains("[W10]") == warns,
            "{capabilities:?}: {ran}"
        );
        filter.ok(&["detach"])?;
    }
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
