//! `run` keeps the filter in sync with its files and the node, whatever another program removes.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::sys::signal::Signal;
use serde_json::json;
use tests::{
    cli::{Apifence, Background, FAILED, refused},
    config_map::ConfigMap,
    net::Echo,
    netns::add_address,
    peer::Peer,
    scrape::{get, ready, scrape, until_not_ready, until_ready},
    site::{ADMIN, ADMIN_RANGES, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait::until,
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const RUN: [&str; 3] = ["run", "--interface", INTERFACE];

/// `run` with the administrator's list in the file, in force.
fn start(site: &Site, filter: &Apifence) -> Result<Background> {
    filter.write_list(LIST)?;
    let mut daemon = filter.start(&RUN)?;
    ready(&site.node, &mut daemon)?;
    site.unlisted_is_dropped(Family::V4, PORT, filter)?;
    Ok(daemon)
}

/// Replaces the file by rename, as careful editors do.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

#[test]
fn the_ranges_file_is_followed_however_it_changes() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = start(&site, &filter)?;
    let with_unlisted = format!("{LIST}{}\n", UNLISTED[0]);
    let file = filter.ranges_file();

    fs::write(file, &with_unlisted)?;
    filter.until_authorized(UNLISTED[0], true)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    replace(file, LIST)?;
    filter.until_authorized(UNLISTED[0], false)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // A command's change and the file's are one change.
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    daemon.line(|line| {
        line.contains("`ranges add 203.0.113.9` by root: +203.0.113.9/32; 3 ranges")
    })?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.ok(&["ranges", "rollback"])?;
    filter.until_authorized(UNLISTED[0], false)?;
    // The list before an edit can be restored.
    fs::write(file, format!("{with_unlisted}192.0.2.77\n"))?;
    filter.until_authorized("192.0.2.77", true)?;
    filter.ok(&["ranges", "rollback"])?;
    filter.until_authorized("192.0.2.77", false)?;
    assert_eq!(fs::read_to_string(file)?, LIST);
    ensure!(filter.status("drift")? == json!([]));
    drop(daemon);

    let map = ConfigMap::new(LIST)?;
    let filter = filter.with_ranges_file(map.file());
    let _daemon = filter.start(&RUN)?;
    filter.until_authorized(UNLISTED[0], false)?;
    map.update("..2", &with_unlisted)?;
    filter.until_authorized(UNLISTED[0], true)?;
    map.update("..3", LIST)?;
    filter.until_authorized(UNLISTED[0], false)
}

#[test]
fn a_bad_file_changes_nothing_and_shows() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = start(&site, &filter)?;
    let file = filter.ranges_file();
    let failures = || {
        let page = scrape(&site.node)?;
        page.check()?;
        let failures = page.sum("apifence_reload_failures_total", &[]);
        let successful = page.sum("apifence_last_reload_successful", &[]);
        anyhow::Ok((failures.context("none")?, successful.context("none")?))
    };
    assert_eq!(failures()?, (0.0, 1.0));
    for (bad, words) in [
        ("10.0.0.1/8\n", "ranges:1: range `10.0.0.1/8`"),
        ("", "the file has no range"),
        ("10.0.0.0/8\nnonsense\n", "ranges:2: `nonsense`"),
    ] {
        fs::write(file, bad)?;
        daemon.line(|line| line.starts_with("error: ") && line.contains(words))?;
        until_not_ready(&site.node)?;
        let why = get(&site.node, "/readyz")?.body;
        ensure!(why.contains(words), "{why}");
        ensure!(failures()?.0 > 0.0 && failures()?.1 == 0.0);
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        site.admin_gets_in(Family::V4, PORT)?;
        // A signal reads it again, without a new message.
        daemon.signal(Signal::SIGHUP)?;
        replace(file, LIST)?;
        let said = daemon.line(|line| {
            line.starts_with("note: the files are in force again") || line.contains(words)
        })?;
        ensure!(said.contains("in force again"), "said twice: {said}");
        until_ready(&site.node)?;
    }
    fs::remove_file(file)?;
    daemon.line(|line| line.contains("no such file"))?;
    site.unlisted_is_dropped(Family::V6, PORT, &filter)?;
    site.admin_gets_in(Family::V6, PORT)?;

    // It also starts with a bad file, if a filter is there.
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    fs::write(file, "nonsense\n")?;
    let mut daemon = filter.start(&RUN)?;
    daemon.line(|line| line.contains("`nonsense`"))?;
    until("it is not ready", || {
        Ok(get(&site.node, "/readyz").is_ok_and(|answer| answer.status == 503))
    })?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    fs::write(file, LIST)?;
    daemon.line(|line| line.contains("in force again"))?;
    site.admin_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn the_config_file_is_followed() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let servers = [PORT, 8443].map(|port| Echo::new(&site.node, port));
    let _servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
    let mut daemon = start(&site, &filter)?;
    let config = filter.config_file();
    site.unlisted_gets_in(Family::V4, 8443)?;
    fs::write(config, "ports = [8443]\n")?;
    daemon.line(|line| line.contains("config applied: ports 8443"))?;
    site.unlisted_is_dropped(Family::V4, 8443, &filter)?;
    site.unlisted_gets_in(Family::V4, PORT)?;

    fs::write(config, "ports = [6443]\nmode = \"watch\"\n")?;
    daemon.line(|line| line.contains("invalid value `watch` for `mode`"))?;
    until_not_ready(&site.node)?;
    site.unlisted_is_dropped(Family::V4, 8443, &filter)?;
    replace(config, "mode = \"monitor\"\n")?;
    daemon.signal(Signal::SIGHUP)?;
    // There is a line for each setting.
    daemon.line(|line| line.contains("config applied: mode monitor"))?;
    until_ready(&site.node)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    fs::write(config, "")?;
    daemon.line(|line| line.contains("config applied: mode enforce"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn the_nodes_own_addresses_are_followed() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _daemon = start(&site, &filter)?;
    for address in ["192.0.2.200", "2001:db8::200"] {
        filter.until_authorized(address, false)?;
        let bits = if address.contains(':') { 128 } else { 32 };
        let range = format!("{address}/{bits}");
        add_address(&site.node, INTERFACE, &range)?;
        filter.until_authorized(address, true)?;
        site.node
            .ip(&format!("address delete {range} dev {INTERFACE}"))?;
        filter.until_authorized(address, false)?;
    }
    Ok(())
}

#[test]
fn an_interface_that_comes_back_is_guarded_before_it_is_up() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let peer = Peer::new(&site)?;
    peer.gets_in(PORT)?;
    filter.write_list(LIST)?;
    let mut daemon = filter.start(&[&RUN[..], &["--interface", "eth1"]].concat())?;
    ready(&site.node, &mut daemon)?;
    peer.is_silenced(PORT)?;

    site.node.ip("link delete eth1")?;
    daemon.line(|line| line.contains("`eth1` does not exist"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // While down it gets its program, before any packet can come in.
    site.node.ip("link add eth1 type veth peer name back")?;
    daemon.line(|line| line.contains("guarding `eth1` again"))?;
    ensure!(site.node.ip("link show eth1")?.contains("xdp"));
    site.node.ip("link delete eth1")?;
    daemon.line(|line| line.contains("`eth1` does not exist"))?;
    peer.plug_in(&site)?;
    daemon.line(|line| line.contains("guarding `eth1` again"))?;
    peer.is_silenced(PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn drift_is_noticed_and_repaired() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = start(&site, &filter)?;
    let guarded_again = |daemon: &mut Background| -> Result<()> {
        daemon.line(|line| line.contains("again"))?;
        until("the filter is there", || {
            let status = filter.run(&["-o", "json", "status"])?;
            Ok(status.stdout.contains("\"state\": \"enforcing\""))
        })?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        site.admin_gets_in(Family::V6, PORT).map(drop)
    };
    let layout = filter.bpffs().join(format!("layout-{LAYOUT_VERSION}"));
    let ifindex = site.node.ifindex(INTERFACE)?;

    // The link.
    fs::remove_file(layout.join(format!("interfaces/{ifindex}/link")))?;
    guarded_again(&mut daemon)?;
    // The maps; the program still uses them.
    fs::remove_dir_all(layout.join("maps"))?;
    guarded_again(&mut daemon)?;
    // All of it.
    fs::remove_dir_all(filter.bpffs())?;
    guarded_again(&mut daemon)?;
    // Another list, from another file.
    let other = filter.ranges_file().with_file_name("other");
    let output = site.node.output(
        Command::new(tests::cli::binary())
            .env_remove("APIFENCE_BIN")
            .arg("--bpffs")
            .arg(filter.bpffs())
            .arg("--config")
            .arg(filter.config_file())
            .arg("--state-dir")
            .arg(filter.state_dir())
            .arg("--ranges-file")
            .arg(&other)
            .args(["ranges", "set", UNLISTED[0], "--force"]),
    )?;
    ensure!(output.status.success(), "{output:?}");
    daemon.line(|line| line.contains("ranges file applied"))?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.until_authorized(ADMIN[0], true)?;
    until_ready(&site.node)
}

#[test]
fn a_change_on_trial_is_let_be_and_cleared_away_when_it_ends() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = start(&site, &filter)?;
    let add = ["ranges", "add", UNLISTED[0], "--confirm-within"];
    filter.ok(&[&add[..], &["3s"]].concat())?;
    daemon.line(|line| line.contains("a change is on trial"))?;
    daemon.line(|line| line.contains("was not confirmed in time"))?;
    daemon.line(|line| line.contains("the change on trial reverted"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(
        !filter
            .ranges_file()
            .with_file_name(".ranges.pending")
            .exists()
    );

    filter.ok(&[&add[..], &["1h"]].concat())?;
    daemon.line(|line| line.contains("a change is on trial"))?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["confirm"])?;
    daemon.line(|line| line.contains("the change on trial was confirmed"))?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn one_run_guards_and_no_command_works_against_it() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut daemon = start(&site, &filter)?;
    let owner = format!("`apifence run` (pid {}) manages this filter", daemon.pid());
    for (command, verb) in [
        (&RUN[..], "run"),
        (&["attach", "--interface", INTERFACE], "attach"),
        (&["detach"], "detach"),
        (&["detach", "--interface", INTERFACE], "detach"),
    ] {
        let next = format!("`systemctl stop apifence && apifence {verb}`");
        let ran = filter.run(command)?;
        refused(&ran, FAILED, &[&owner])?;
        ran.stderr_has(&[&next])?;
    }
    ensure!(daemon.runs()?);
    // The immediate way out for the operator, and the documented one.
    filter.ok(&["ranges", "clear"])?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.ok(&["ranges", "rollback"])?;
    daemon.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.wait()?, Some(0));
    filter.until_authorized(UNLISTED[0], false)?;
    filter.ok(&["detach"])?;
    ensure!(!filter.bpffs().exists(), "pins are left");
    Ok(())
}

/// The administrator's connection, and an unlisted client that is dropped, through all of this:
/// `run` starts and ends without any effect on them.
#[test]
fn restarts_leave_no_gap() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = start(&site, &filter)?;
    let answered = tests::net::tcp_counter(&site.unlisted, "InSegs")?;
    let admin = tests::net::Transfer::new(&site.admin, ip(ADMIN[1]), at(NODE[1], PORT))?;
    let sender = tests::net::SynSender::new(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        daemon.signal(signal)?;
        daemon.wait()?;
        admin.flows()?;
        let more = ["--authorized-ip-ranges", ADMIN_RANGES];
        daemon = filter.start(&[&RUN[..], &more].concat())?;
        ready(&site.node, &mut daemon)?;
        admin.flows()?;
    }
    sender.stop()?;
    let now = tests::net::tcp_counter(&site.unlisted, "InSegs")?;
    assert_eq!(now, answered, "the node answered the unlisted client");
    Ok(())
}

/// The log shows what was on trial, and the operator's name.
#[test]
fn the_log_says_what_is_on_trial() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    filter.ok(&["monitor", "--confirm-within", "1h"])?;
    daemon.line(|line| {
        line.starts_with("warning: `monitor --confirm-within 1h` by ")
            && line.contains("mode monitor (was enforce): nothing is dropped")
    })?;
    daemon.line(|line| line.contains("a change is on trial"))?;
    filter.ok(&["ranges", "rollback"])?;
    daemon.line(|line| line.contains("the change on trial reverted"))?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--confirm-within", "1h"])?;
    daemon.line(|line| {
        line.starts_with("note: `ranges add") && line.contains("+203.0.113.9/32; 3 ranges")
    })?;
    // Two things happen between two ticks.
    until("it does not hold the lock while it stands", || {
        daemon.signal(Signal::SIGSTOP)?;
        let confirmed = filter.run(&["confirm"])?.code == Some(0);
        if !confirmed {
            daemon.signal(Signal::SIGCONT)?;
        }
        Ok(confirmed)
    })?;
    filter.ok(&["ranges", "add", "192.0.2.99"])?;
    daemon.signal(Signal::SIGCONT)?;
    let over = daemon.line(|line| line.contains("the change on trial"))?;
    ensure!(over.contains("ended with another change"), "{over}");
    daemon.line(|line| line.starts_with("note: `ranges add 192.0.2.99` by "))?;
    Ok(())
}

/// If every source passes, the log of a `run` starts with that.
#[test]
fn a_run_that_drops_nothing_says_so_at_its_start() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let begins = |words: &str| -> Result<()> {
        let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
        daemon
            .line(|line| line.starts_with("warning: ") && line.contains(words))
            .map(drop)
    };
    filter.ok(&["monitor"])?;
    begins("mode monitor: nothing is dropped")?;
    filter.ok(&["ranges", "clear"])?;
    begins("enforcement is off: every source passes")?;
    filter.ok(&["detach"])?;
    begins("enforcement is off: every source passes")
}
