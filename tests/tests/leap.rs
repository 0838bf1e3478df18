//! Impact of a change: connections that it cuts are named first, and cutting every client, or the
//! operator's own session, needs `--force`.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{
    cli::{INPUT, refused},
    net::{Echo, exchange},
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, NODE, Site, UNLISTED},
    wait::PATIENCE,
};

const PORT: u16 = 6443;

/// The addresses of the clients that `change` reports as cut.
fn cut(change: &Value) -> Vec<String> {
    let connections = change["cut"].as_array().cloned().unwrap_or_default();
    let remotes = connections.iter().filter_map(|cut| cut["remote"].as_str());
    let hosts = remotes.map(|remote| match remote.rsplit_once(':') {
        Some((host, _)) => host.trim_matches(['[', ']']).to_owned(),
        None => remote.to_owned(),
    });
    hosts.collect()
}

#[test]
fn a_change_names_the_connections_that_it_cuts() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let _neighbour = Echo::new(&site.node, PORT + 1)?;
    filter.ok(&ATTACH)?;
    filter.ok(&["ranges", "add", UNLISTED[0], UNLISTED[1]])?;
    let mut unlisted_sources = Vec::new();
    let mut admins = Vec::new();
    for family in Family::BOTH {
        unlisted_sources.push(site.unlisted_gets_in(family, PORT)?);
        admins.push(site.admin_gets_in(family, PORT)?);
    }
    // A connection to another port does not concern the filter.
    let mut other = site.unlisted_gets_in(Family::V4, PORT + 1)?;

    let remove = ["ranges", "remove", UNLISTED[0], UNLISTED[1]];
    let before = fs::read(filter.ranges_file())?;
    let dry = [&remove[..], &["--dry-run"]].concat();
    let change = filter.json(&dry)?;
    let mut hosts = cut(&change);
    hosts.sort_unstable();
    ensure!(
        hosts == UNLISTED.map(str::to_owned).as_slice() || hosts == [UNLISTED[1], UNLISTED[0]],
        "{change:#}"
    );
    ensure!(
        change["kept"] == 2
            && change["dry_run"] == true
            && change["removed"]
                .as_array()
                .is_some_and(|gone| gone.len() == 2),
        "{change:#}"
    );
    let text = filter.ok(&dry)?;
    ensure!(
        text.contains("2 of 4 established connections would be cut") && text.contains(UNLISTED[0]),
        "{text}"
    );
    ensure!(
        fs::read(filter.ranges_file())? == before,
        "a dry run changed the file"
    );
    for open in &mut unlisted_sources {
        exchange(open, PATIENCE)?;
    }

    let ran = filter.run(&remove)?.succeeded()?;
    ran.stderr_has(&["2 of 4"])?;
    for open in &mut unlisted_sources {
        filter.cuts(open)?;
    }
    for open in &mut admins {
        exchange(open, PATIENCE)?;
    }
    exchange(&mut other, PATIENCE)?;
    Ok(())
}

#[test]
fn cutting_every_client_needs_force() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    // Before the first attach every client can be connected.
    let mut unlisted = site.unlisted_gets_in(Family::V4, PORT)?;
    let ran = filter.run(&ATTACH)?;
    refused(&ran, INPUT, &["the only connection would be cut"])?;
    exchange(&mut unlisted, PATIENCE)?;
    ensure!(filter.status("state")? == "detached");
    ensure!(!filter.ranges_file().exists());
    // Monitor mode cuts no connection.
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    exchange(&mut unlisted, PATIENCE)?;
    let mut admin = site.admin_gets_in(Family::V6, PORT)?;
    // If one client stays, it needs no `--force`.
    let ran = filter
        .run(&[&ATTACH[..], &["--mode", "enforce"]].concat())?
        .succeeded()?;
    ran.stderr_has(&["1 of 2"])?;
    filter.cuts(&mut unlisted)?;
    exchange(&mut admin, PATIENCE)?;

    for change in [
        &["ranges", "set", "192.0.2.128/25"][..],
        &["ranges", "remove", "2001:db8:aa::/48"],
        &["ranges", "set", "0.0.0.0/32", "--confirm-within", "1h"],
    ] {
        let ran = filter.run(change)?;
        refused(&ran, INPUT, &["would be cut"])?;
        exchange(&mut admin, PATIENCE)?;
    }
    // The off switch cuts no connection; then neither does a change that only adds.
    filter.ok(&["ranges", "clear"])?;
    exchange(&mut admin, PATIENCE)?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.ok(&["ranges", "set", "192.0.2.128/25", "--force"])?;
    filter.cuts(&mut admin)?;
    Ok(())
}

#[test]
fn blocking_ones_own_shell_needs_force() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut other = site.admin_gets_in(Family::V6, PORT)?;
    let from_ssh = |words: &[&str]| {
        let mut by = Command::new("env");
        by.arg(format!("SSH_CONNECTION={} 50000 {} 22", ADMIN[0], NODE[0]));
        filter.run_by(by, words)
    };
    let remove = ["ranges", "remove", "198.51.100.0/24"];
    let ran = from_ssh(&remove)?;
    refused(
        &ran,
        INPUT,
        &["198.51.100.7, the address of your SSH session, would lose"],
    )?;
    // It does not block an operator from another network, nor one with `--force`.
    ensure!(filter.run(&[&remove[..], &["--dry-run"]].concat())?.code == Some(0));
    let ran = from_ssh(&[&remove[..], &["--force"]].concat())?.succeeded()?;
    ran.stderr_has(&["loses the protected ports"])?;
    // The address is blocked already, so the change takes nothing from it.
    let ran = from_ssh(&["ranges", "add", "192.0.2.128/25"])?.succeeded()?;
    ran.stderr_lacks(&["protected ports"])?;
    exchange(&mut other, PATIENCE).map_err(Into::into)
}
