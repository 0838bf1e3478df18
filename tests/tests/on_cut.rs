//! Edits of the files under `run`: a removed address applies at once. A change that would cut nodes
//! of the cluster, or administrators of this node by SSH, is on trial first.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::Apifence,
    loaded::lapse,
    net::{Echo, open},
    scrape::{scrape, until_not_ready, until_ready},
    site::{ADMIN, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    worker::{Cluster, PORT, WITH, WITHOUT, WORKER, is_held, is_on_trial, start, until_on_trial},
};

#[test]
fn an_edit_that_cuts_a_node_is_on_trial() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    filter.write_list(WITH)?;
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    let _worker = cluster.connect()?;

    filter.write_list(WITHOUT)?;
    daemon.line(is_on_trial)?;
    until_on_trial(&filter)?;
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
    ensure!(filter.status("provisional")?.is_null());
    let _worker = cluster.connect()?;
    daemon.line(is_held)?;
    // The edit is still there, and waits for a confirmation.
    assert_eq!(filter.list()?, WITHOUT);
    until_not_ready(&cluster.node)?;

    // Neither a restart nor a reboot puts it in force.
    drop(daemon);
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    daemon.line(is_held)?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.connect()?;
    drop(daemon);
    filter.boot()?;
    let mut daemon = filter.start(&["run", "--interface", "n0", "--on-cut-within", "1h"])?;
    daemon.line(|line| line.contains("was on trial and was not confirmed"))?;
    daemon.line(|line| line.contains("guarding"))?;
    let _worker = cluster.connect()?;

    // An explicit request puts the files on trial again, and the confirmation keeps them.
    daemon.signal(Signal::SIGHUP)?;
    daemon.line(is_on_trial)?;
    until_on_trial(&filter)?;
    filter.ok(&["confirm"])?;
    daemon.line(|line| line.contains("was confirmed"))?;
    cluster.is_out(&filter)?;
    ensure!(filter.status("drift")? == serde_json::json!([]));
    until_ready(&cluster.node)?;

    // The same change was confirmed once, so it needs no second confirmation.
    filter.write_list(WITH)?;
    filter.until_authorized(WORKER, true)?;
    let _worker = cluster.connect()?;
    filter.write_list(WITHOUT)?;
    daemon.line(|line| line.contains("was confirmed before"))?;
    filter.until_authorized(WORKER, false)?;
    ensure!(filter.status("provisional")?.is_null());
    Ok(())
}

#[test]
fn an_edit_of_a_trial_takes_it_back() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    filter.write_list(WITH)?;
    let mut daemon = start(&filter, &[])?;
    let _worker = cluster.connect()?;
    filter.write_list(WITHOUT)?;
    daemon.line(is_on_trial)?;
    until_on_trial(&filter)?;
    // Fixed: the new text cuts no client.
    filter.write_list(format!("{WITHOUT}{WORKER} # mended\n203.0.113.9\n"))?;
    daemon.line(|line| line.contains("the edit on trial reverts"))?;
    filter.until_authorized("203.0.113.9", true)?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.connect()?;
    // A change that is taken back by hand does not return by itself.
    filter.write_list(WITHOUT)?;
    until_on_trial(&filter)?;
    filter.ok(&["ranges", "rollback"])?;
    daemon.line(|line| line.starts_with("error: follow files"))?;
    ensure!(filter.status("provisional")?.is_null());
    cluster.connect()?;
    // The file agrees with the policy again.
    filter.ok(&["ranges", "rollback", "1"])?;
    until_ready(&cluster.node)?;
    ensure!(filter.list()?.contains("mended"));
    Ok(())
}

/// The mode and the ports cut clients as a list does.
#[test]
fn settings_that_cut_a_node_are_on_trial() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    filter.write_list(WITHOUT)?;
    filter.write_config("mode = \"monitor\"\n")?;
    let mut daemon = start(&filter, &["--on-cut-within", "1h"])?;
    let _worker = cluster.connect()?;
    filter.write_config("mode = \"enforce\"\n")?;
    daemon.line(is_on_trial)?;
    until_on_trial(&filter)?;
    cluster.is_out(&filter)?;
    lapse(&filter)?;
    ensure!(filter.status("state")? == "monitoring");
    daemon.line(is_held)?;
    cluster.connect().map(drop)
}

#[test]
fn an_edit_can_be_applied_or_refused_instead() -> Result<()> {
    let (cluster, _, _server) = Cluster::unguarded_server()?;
    for (on_cut, is_out) in [("apply", true), ("refuse", false)] {
        let filter = Apifence::new(&cluster.node)?;
        filter.write_list(WITH)?;
        filter.write_config(format!("on_cut = \"{on_cut}\"\n"))?;
        let mut daemon = start(&filter, &[])?;
        let _worker = cluster.connect()?;
        filter.write_list(WITHOUT)?;
        daemon.line(|line| {
            line.contains(WORKER) && (line.starts_with("warning: ") || line.starts_with("error: "))
        })?;
        if is_out {
            filter.until_authorized(WORKER, false)?;
            cluster.is_out(&filter)?;
        } else {
            until_not_ready(&cluster.node)?;
            cluster.connect()?;
        }
        ensure!(filter.status("provisional")?.is_null());
        drop(daemon);
        filter.ok(&["detach"])?;
    }
    Ok(())
}

/// Removing an address from the list revokes access.
#[test]
fn an_edit_that_cuts_another_client_applies_at_once() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(format!("{} # contractor\n192.0.2.99\n", UNLISTED[0]))?;
    let mut daemon = filter.start_run(&["--interface", INTERFACE])?;
    let _only_client = site.unlisted_gets_in(Family::V4, PORT)?;
    filter.write_list("192.0.2.99\n")?;
    daemon.line(|line| line.starts_with("warning: 1 of 1 "))?;
    daemon.line(|line| line.contains(UNLISTED[0]))?;
    daemon
        .line(|line| line.contains("ranges file applied: -203.0.113.9/32 (contractor); 1 range"))?;
    ensure!(filter.status("provisional")?.is_null());
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn an_edit_that_cuts_an_administrator_is_on_trial() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = [Echo::new(&site.node, PORT)?, Echo::new(&site.node, 22)?];
    filter.write_list("198.51.100.0/24\n203.0.113.0/24\n")?;
    let mut daemon = filter.start_run(&["--interface", INTERFACE])?;
    // Logged in by SSH, and not connected to the API server.
    let _ssh = open(&site.admin, ip(ADMIN[0]), at(NODE[0], 22))?;
    filter.write_list("203.0.113.0/24\n")?;
    daemon.line(|line| line.contains(ADMIN[0]) && line.contains("`apifence confirm`"))?;
    until_on_trial(&filter)?;
    filter.ok(&["ranges", "rollback"])?;
    site.admin_gets_in(Family::V4, PORT).map(drop)
}

/// An interface cannot be on trial. If an unlisted node is connected over it, an edit alone does
/// not guard it.
#[test]
fn an_interface_that_would_cut_a_node_waits() -> Result<()> {
    let (cluster, filter, _server) = Cluster::unguarded_server()?;
    filter.write_list(WITH)?;
    filter.write_config("interfaces = [\"n0\"]\n")?;
    let mut daemon = filter.start(&["run"])?;
    daemon.line(|line| line.contains("guarding `n0`"))?;
    let other = || open(&cluster.worker, ip("192.0.3.2"), at("192.0.3.1", PORT));
    let _worker = other()?;
    filter.write_config("interfaces = [\"n0\", \"n1\"]\n")?;
    daemon.line(|line| {
        line.starts_with("error: guard the interfaces") && line.contains("192.0.3.2")
    })?;
    until_not_ready(&cluster.node)?;
    other()?;
    // Once the node is listed, nothing blocks the change.
    filter.write_list(format!("{WITH}192.0.3.2\n"))?;
    daemon.line(|line| line.contains("guarding `n1`"))?;
    until_ready(&cluster.node)?;
    other().map(drop)
}
