//! Edits of the files under `run`: a removed address applies at once. A change that would cut nodes
//! of the cluster, or administrators of this node by SSH, is on trial first.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::Apifence,
    loaded::lapse,
    net::{Echo, open},
    scrape::{scrape, until_not_ready, until_ready},
    site::{ADMIN, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait::until,
    worker::{Cluster, PORT, WITH, WITHOUT, WORKER, is_on_trial, provisional, start},
};

#[test]
fn an_edit_that_cuts_a_node_is_on_trial() -> Result<()> {
    let cluster = Cluster::new()?;
    let filter = Apifence::new(&cluster.node)?;
    let _server = Echo::new(&cluster.node, PORT)?;
    fs::write(filter.ranges_file(), WITH)?;
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    let _worker = cluster.connect()?;

    fs::write(filter.ranges_file(), WITHOUT)?;
    daemon.line(is_on_trial)?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    cluster.is_out(&filter)?;
    let page = scrape(&cluster.node)?;
    ensure!(
        page.sum("apifence_trial_seconds_left", &[])
            .is_some_and(|left| left > 0.0)
    );
    ensure!(
        page.sum(
            "apifence_trial_info",
            &[("command", "edit"), ("user", "root")]
        ) == Some(1.0)
    );
    lapse(&filter)?;
    ensure!(provisional(&filter)?.is_null());
    let _worker = cluster.connect()?;
    daemon.line(|line| {
        line.starts_with("error: follow files: a change on trial was not confirmed")
    })?;
    // The edit is still there, and waits for a confirmation.
    assert_eq!(fs::read_to_string(filter.ranges_file())?, WITHOUT);
    until_not_ready(&cluster.node)?;

    // Neither a restart nor a reboot puts it in force.
    drop(daemon);
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    daemon.line(|line| {
        line.starts_with("error: follow files: a change on trial was not confirmed")
    })?;
    ensure!(provisional(&filter)?.is_null());
    cluster.connect()?;
    drop(daemon);
    filter.boot()?;
    let mut daemon = filter.start(&["run", "--interface", "n0", "--on-cut-within", "1h"])?;
    daemon.line(|line| line.contains("was on trial, and was not confirmed"))?;
    daemon.line(|line| line.contains("guarding"))?;
    let _worker = cluster.connect()?;

    // An explicit request puts the files on trial again, and the confirmation keeps them.
    daemon.signal(Signal::SIGHUP)?;
    daemon.line(is_on_trial)?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    filter.ok(&["confirm"])?;
    daemon.line(|line| line.contains("was confirmed"))?;
    cluster.is_out(&filter)?;
    ensure!(filter.status("drift")? == serde_json::json!([]));
    until_ready(&cluster.node)?;

    // The same change was confirmed once, so it needs no second confirmation.
    fs::write(filter.ranges_file(), WITH)?;
    until("the worker is let in", || {
        Ok(filter.run(&["check", WORKER])?.code == Some(0))
    })?;
    let _worker = cluster.connect()?;
    fs::write(filter.ranges_file(), WITHOUT)?;
    daemon.line(|line| line.contains("it was confirmed before"))?;
    until("the worker is out", || {
        Ok(filter.run(&["check", WORKER])?.code == Some(1))
    })?;
    ensure!(provisional(&filter)?.is_null());
    Ok(())
}

#[test]
fn an_edit_of_a_trial_takes_it_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let filter = Apifence::new(&cluster.node)?;
    let _server = Echo::new(&cluster.node, PORT)?;
    fs::write(filter.ranges_file(), WITH)?;
    let mut daemon = start(&filter, &[])?;
    let _worker = cluster.connect()?;
    fs::write(filter.ranges_file(), WITHOUT)?;
    daemon.line(is_on_trial)?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    // Fixed: the new text cuts no client.
    fs::write(
        filter.ranges_file(),
        format!("{WITHOUT}{WORKER} # mended\n203.0.113.9\n"),
    )?;
    daemon.line(|line| line.contains("the edit on trial is taken back"))?;
    until("the mended one is in force", || {
        Ok(filter.run(&["check", "203.0.113.9"])?.code == Some(0))
    })?;
    ensure!(provisional(&filter)?.is_null());
    cluster.connect()?;
    // A change that is taken back by hand does not return by itself.
    fs::write(filter.ranges_file(), WITHOUT)?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    filter.ok(&["ranges", "rollback"])?;
    daemon.line(|line| line.starts_with("error: follow files"))?;
    ensure!(provisional(&filter)?.is_null());
    cluster.connect()?;
    // The file agrees with the policy again.
    filter.ok(&["ranges", "rollback", "1"])?;
    until_ready(&cluster.node)?;
    ensure!(fs::read_to_string(filter.ranges_file())?.contains("mended"));
    Ok(())
}

/// The mode and the ports cut clients as a list does.
#[test]
fn settings_that_cut_a_node_are_on_trial() -> Result<()> {
    let cluster = Cluster::new()?;
    let filter = Apifence::new(&cluster.node)?;
    let _server = Echo::new(&cluster.node, PORT)?;
    fs::write(filter.ranges_file(), WITHOUT)?;
    fs::write(filter.config_file(), "mode = \"monitor\"\n")?;
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    let _worker = cluster.connect()?;
    fs::write(filter.config_file(), "mode = \"enforce\"\n")?;
    daemon.line(is_on_trial)?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    cluster.is_out(&filter)?;
    lapse(&filter)?;
    ensure!(filter.status("state")? == "monitoring");
    daemon.line(|line| {
        line.starts_with("error: follow files: a change on trial was not confirmed")
    })?;
    cluster.connect().map(drop)
}

#[test]
fn an_edit_can_be_applied_or_refused_instead() -> Result<()> {
    let cluster = Cluster::new()?;
    let _server = Echo::new(&cluster.node, PORT)?;
    for (on_cut, is_out) in [("apply", true), ("refuse", false)] {
        let filter = Apifence::new(&cluster.node)?;
        fs::write(filter.ranges_file(), WITH)?;
        fs::write(filter.config_file(), format!("on_cut = \"{on_cut}\"\n"))?;
        let mut daemon = start(&filter, &[])?;
        let _worker = cluster.connect()?;
        fs::write(filter.ranges_file(), WITHOUT)?;
        daemon.line(|line| {
            line.contains(WORKER) && (line.starts_with("warning: ") || line.starts_with("error: "))
        })?;
        if is_out {
            until("the worker is out", || {
                Ok(filter.run(&["check", WORKER])?.code == Some(1))
            })?;
            cluster.is_out(&filter)?;
        } else {
            until_not_ready(&cluster.node)?;
            cluster.connect()?;
        }
        ensure!(provisional(&filter)?.is_null());
        drop(daemon);
        filter.ok(&["detach"])?;
    }
    Ok(())
}

/// Removing an address from the list revokes access.
#[test]
fn an_edit_that_cuts_another_client_applies_at_once() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(
        filter.ranges_file(),
        format!("{} # contractor\n192.0.2.99\n", UNLISTED[0]),
    )?;
    let mut daemon = filter.start_run(&["--interface", INTERFACE])?;
    let _only_client = site.unlisted_gets_in(Family::V4, PORT)?;
    fs::write(filter.ranges_file(), "192.0.2.99\n")?;
    daemon.line(|line| line.starts_with("warning: 1 of 1 "))?;
    daemon.line(|line| line.contains(UNLISTED[0]))?;
    daemon.line(|line| {
        line.contains("the ranges file is in force: -203.0.113.9/32 (contractor); 1 in the list")
    })?;
    ensure!(provisional(&filter)?.is_null());
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn an_edit_that_cuts_an_administrator_is_on_trial() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = [Echo::new(&site.node, PORT)?, Echo::new(&site.node, 22)?];
    fs::write(filter.ranges_file(), "198.51.100.0/24\n203.0.113.0/24\n")?;
    let mut daemon = filter.start_run(&["--interface", INTERFACE])?;
    // Logged in by SSH, and not connected to the API server.
    let _ssh = open(&site.admin, ip(ADMIN[0]), at(NODE[0], 22))?;
    fs::write(filter.ranges_file(), "203.0.113.0/24\n")?;
    daemon.line(|line| line.contains(ADMIN[0]) && line.contains("`apifence confirm`"))?;
    until("it is on trial", || Ok(provisional(&filter)?.is_object()))?;
    filter.ok(&["ranges", "rollback"])?;
    site.admin_gets_in(Family::V4, PORT).map(drop)
}

/// An interface cannot be on trial. If an unlisted node is connected over it, an edit alone does
/// not guard it.
#[test]
fn an_interface_that_would_cut_a_node_waits() -> Result<()> {
    let cluster = Cluster::new()?;
    let filter = Apifence::new(&cluster.node)?;
    let _server = Echo::new(&cluster.node, PORT)?;
    fs::write(filter.ranges_file(), WITH)?;
    fs::write(filter.config_file(), "interfaces = [\"n0\"]\n")?;
    let mut daemon = filter.start(&["run"])?;
    daemon.line(|line| line.contains("guarding `n0`"))?;
    let other = || open(&cluster.worker, ip("192.0.3.2"), at("192.0.3.1", PORT));
    let _worker = other()?;
    fs::write(filter.config_file(), "interfaces = [\"n0\", \"n1\"]\n")?;
    daemon.line(|line| {
        line.starts_with("error: guard the interfaces") && line.contains("192.0.3.2")
    })?;
    until_not_ready(&cluster.node)?;
    other()?;
    // Once the node is listed, nothing blocks the change.
    fs::write(filter.ranges_file(), format!("{WITH}192.0.3.2\n"))?;
    daemon.line(|line| line.contains("guarding `n1`"))?;
    until_ready(&cluster.node)?;
    other().map(drop)
}
