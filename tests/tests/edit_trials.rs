//! An edit on trial, whatever else happens meanwhile: a confirmation puts it in force for good. It
//! never returns by itself, and does not keep another edit from being put in force.

use std::{fs, net::TcpStream, thread, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::{Apifence, Background, FAILED, words},
    config_map::ConfigMap,
    loaded::lapse,
    net::{Echo, open},
    scrape::until_ready,
    site::{Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    stand_in::StandIn,
    wait::until,
    worker::{Cluster, PORT, WITH, WITHOUT, WORKER, is_held, is_on_trial, start, until_on_trial},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");
/// Long enough for the commands of a test on any machine; [`lapse`] ends it.
const TRIAL: [&str; 2] = ["--on-cut-within", "1h"];

/// `run` has reported the edit that takes the worker from the list; a server and the connection of
/// the worker stay open.
fn cutting_edit() -> Result<(Cluster, Apifence, Background, (Echo, TcpStream))> {
    let (cluster, filter, server) = Cluster::unguarded_server()?;
    filter.write_list(WITH)?;
    let mut daemon = start(&filter, &TRIAL)?;
    let connection = cluster.connect()?;
    filter.write_list(WITHOUT)?;
    daemon.line(is_on_trial)?;
    Ok((cluster, filter, daemon, (server, connection)))
}

fn lapses(filter: &Apifence) -> Result<()> {
    until_on_trial(filter)?;
    lapse(filter)
}

#[test]
fn after_a_trial_that_lapsed_the_same_run_follows_the_files_again() -> Result<()> {
    let (cluster, filter, mut daemon, _open) = cutting_edit()?;
    lapses(&filter)?;
    daemon.line(is_held)?;
    // Writing the same text again, as a configuration management tool does, is not an edit.
    filter.write_list(WITHOUT)?;
    // Two ticks of `run` must have no effect, which gives no event to wait for.
    thread::sleep(Duration::from_secs(2));
    ensure!(
        filter.status("provisional")?.is_null(),
        "it is on trial again"
    );
    cluster.connect()?;
    // An explicit request puts it on trial again.
    daemon.signal(Signal::SIGHUP)?;
    daemon.line(is_on_trial)?;
    lapses(&filter)?;
    daemon.line(is_held)?;
    // Another edit is followed.
    filter.write_list(format!("{WITH}203.0.113.9\n"))?;
    filter.until_authorized("203.0.113.9", true)?;
    until_ready(&cluster.node)?;
    // Then the first one counts as an edit again.
    let _worker = cluster.connect()?;
    filter.write_list(WITHOUT)?;
    daemon.line(is_on_trial)?;
    filter.ok(&["confirm"])?;
    filter.until_authorized(WORKER, false)?;
    cluster.is_out(&filter)
}

#[test]
fn a_file_that_breaks_during_the_trial_and_is_fixed_is_followed() -> Result<()> {
    let (cluster, filter, mut daemon, _open) = cutting_edit()?;
    filter.write_list("many\n")?;
    lapses(&filter)?;
    daemon.line(|line| line.starts_with("error: ") && line.contains("many"))?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.connect()?;
    filter.write_list(format!("{WITH}203.0.113.9\n"))?;
    filter.until_authorized("203.0.113.9", true)?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.connect().map(drop)
}

#[test]
fn the_list_and_the_settings_are_one_trial() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    let _second_server = Echo::new(&cluster.node, 443)?;
    filter.write_list(WITH)?;
    filter.write_config("ports = [6443]\n")?;
    let mut daemon = start(&filter, &TRIAL)?;
    let _worker = cluster.connect()?;
    filter.write_config("ports = [443, 6443]\n")?;
    filter.write_list(WITHOUT)?;
    daemon.line(is_on_trial)?;
    // Whichever of the two `run` saw first.
    until("both are on trial", || {
        let status = filter.json(&["status"])?;
        Ok(status["provisional"].is_object() && status["ports"] == serde_json::json!([443, 6443]))
    })?;
    let other = filter.ranges_file().with_file_name("others");
    fs::write(&other, WITH)?;
    let other = other.display().to_string();
    let ran = filter.run(&["--ranges-file", &other, "confirm"])?;
    ensure!(ran.code == Some(FAILED) || ran.code == Some(2), "{ran}");
    ensure!(filter.status("provisional")?.is_object(), "{ran}");
    filter.ok(&["confirm"])?;
    daemon.line(|line| line.contains("was confirmed"))?;
    // A second confirmation is not necessary.
    daemon.signal(Signal::SIGHUP)?;
    until_ready(&cluster.node)?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.is_out(&filter)
}

#[test]
fn a_trial_that_ends_while_run_is_down_does_not_come_back() -> Result<()> {
    let (cluster, filter, daemon, _open) = cutting_edit()?;
    until_on_trial(&filter)?;
    daemon.signal(Signal::SIGHUP)?;
    drop(daemon);
    lapse(&filter)?;
    cluster.connect()?;
    let mut daemon = start(&filter, &TRIAL)?;
    daemon.line(is_held)?;
    ensure!(filter.status("provisional")?.is_null());
    filter.write_list(format!("{WITH}203.0.113.9\n"))?;
    filter.until_authorized("203.0.113.9", true)?;
    cluster.connect().map(drop)
}

#[test]
fn a_config_map_is_on_trial_as_a_file_is() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    let map = ConfigMap::new(WITH)?;
    let file = map.file().display().to_string();
    let mut daemon = filter.start_run(&words(&format!(
        "--interface n0 --ranges-file {file} --on-cut-within 1h"
    )))?;
    let _worker = cluster.connect()?;
    map.update("..2", WITHOUT)?;
    daemon.line(is_on_trial)?;
    lapses(&filter)?;
    daemon.line(is_held)?;
    cluster.connect()?;
    map.update("..3", &format!("{WITH}203.0.113.9\n"))?;
    filter.until_authorized("203.0.113.9", true)?;
    let _worker = cluster.connect()?;
    map.update("..4", WITHOUT)?;
    daemon.line(is_on_trial)?;
    filter.ok(&["confirm", "--ranges-file", &file])?;
    daemon.line(|line| line.contains("was confirmed"))?;
    cluster.is_out(&filter)
}

/// Clients that are connected when `run` starts for the first time.
#[test]
fn the_first_start_that_would_cut_a_node_is_on_trial() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    let _worker = cluster.connect()?;
    filter.write_list(WITHOUT)?;
    let mut daemon = filter.start(&["run", "--interface", "n0", "--on-cut-within", "1h"])?;
    daemon.line(|line| is_on_trial(line) && line.contains(WORKER))?;
    until_on_trial(&filter)?;
    cluster.is_out(&filter)?;
    lapse(&filter)?;
    daemon.line(is_held)?;
    ensure!(filter.status("state")? == "monitoring");
    cluster.connect()?;
    // Neither a restart nor a reboot decides it.
    drop(daemon);
    filter.boot()?;
    let mut daemon = filter.start_run(&["--interface", "n0", "--on-cut-within", "1h"])?;
    let _worker = cluster.connect()?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.line(is_on_trial)?;
    filter.ok(&["confirm"])?;
    cluster.is_out(&filter)
}

#[test]
fn administrators_are_known_over_ipv6_and_on_any_ssh_port() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let _sshd = StandIn::new(&site.node, PROGRAM, "sshd-session", &["2222"])?;
    let list = format!("{}\n198.51.100.0/24\n", UNLISTED[1]);
    filter.write_list(&list)?;
    let mut daemon = filter.start_run(&["--interface", INTERFACE])?;
    let _login = open(&site.unlisted, ip(UNLISTED[1]), at(NODE[1], 2222))?;
    filter.write_list("198.51.100.0/24\n")?;
    daemon.line(|line| is_on_trial(line) && line.contains(UNLISTED[1]))?;
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(Family::V6, PORT).map(drop)
}
