//! What was last known of a file stays in force when the file cannot be used; and files that the
//! operator has to correct hold up no node.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::json;
use tests::{
    cli::{Apifence, Background},
    scrape::{scrape, until_not_ready, until_ready},
    site::{ADMIN_RANGES, INTERFACE, Site, UNLISTED},
    wait::while_it_lasts,
};

use super::{BEFORE, JOINED, OTHER, PORT, V4, file, followed, node_gets_in, write};

#[test]
fn a_file_that_cannot_be_used_leaves_its_last_known_ranges_in_force() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(Some(JOINED))?;
    let nodes = file(&filter, "@nodes");
    type Break<'a> = &'a dyn Fn() -> Result<()>;
    let texts = [
        ("", "the file has no range"),
        ("# none\n", "the file has no range"),
        ("203.0.113.9\n2001:db8:bb:", "@nodes:2"),
        ("192.0.2.0/33\n", "@nodes:1"),
        ("0.0.0.0/0\n", "wider than /8"),
        ("::/0\n", "wider than /16"),
        ("192.0.2.50\n10.0.0.0/7\n", "wider than /8"),
        ("2000::/15\n", "wider than /16"),
        ("disabled\n", "switches enforcement off"),
        (
            "192.0.2.50 expires=2099-01-01T00:00:00Z\n",
            "which this list cannot have",
        ),
        ("\0\u{1}\u{2}\n", "@nodes"),
    ];
    for (text, want) in texts {
        write(&filter, "@nodes", text)?;
        stays(&site, &filter, &mut daemon, want).with_context(|| text.to_owned())?;
    }
    let other_link = || {
        let link = file(&filter, ".link");
        symlink("/etc/hostname", &link)?;
        lchown(&link, Some(OTHER), Some(OTHER))?;
        Ok(fs::rename(link, &nodes)?)
    };
    let writable = || {
        write(&filter, "@nodes", "192.0.2.51\n")?;
        Ok(fs::set_permissions(&nodes, Permissions::from_mode(0o666))?)
    };
    let fifo = || Ok(mkfifo(&nodes, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let directory = || Ok(fs::create_dir(&nodes)?);
    let breaks: [(Break<'_>, &str); 5] = [
        (&|| Ok(()), "no such file (`apifence-kube` or"),
        (&other_link, "another user owns this link"),
        (&writable, "every user can write"),
        (&fifo, "a FIFO"),
        (&directory, "a directory"),
    ];
    for (break_it, want) in breaks {
        fs::remove_file(&nodes)?;
        break_it()?;
        stays(&site, &filter, &mut daemon, want).with_context(|| want.to_owned())?;
        if nodes.is_dir() {
            fs::remove_dir(&nodes)?;
        }
    }
    write(&filter, "@nodes", BEFORE)?;
    daemon.line(|line| line.contains("list `@nodes` can be used again"))?;
    filter.until_authorized(UNLISTED[0], false)?;
    until_ready(&site.node)?;
    filter.until_status("drift", json!([]))?;
    // That there are none can be said.
    write(&filter, "@nodes", "empty\n")?;
    filter.until_authorized("192.0.2.50", false)?;
    ensure!(filter.status("drift")? == json!([]));
    site.is_guarded(PORT)
}

/// The broken file is reported as `want` in the log, in `status` and in the metrics, and the node
/// gets in. Then the file is whole again.
fn stays(site: &Site, filter: &Apifence, daemon: &mut Background, want: &str) -> Result<()> {
    daemon.line(|line| line.contains(want))?;
    until_not_ready(&site.node)?;
    node_gets_in(site)?;
    let drift = filter.status("drift")?.to_string();
    ensure!(
        drift.contains(want) && drift.contains("its last good ranges stay in force"),
        "{drift}"
    );
    let page = scrape(&site.node)?;
    for (name, value) in [("apifence_list_usable", 0.0), ("apifence_list_ranges", 3.0)] {
        ensure!(
            page.sum(name, &[("list", "@nodes")]) == Some(value),
            "{name}"
        );
    }
    // A command that changes a list keeps them, too.
    let ran = filter.run(&["ranges", "add", "192.0.2.77"])?;
    ran.stderr_has(&["its last good ranges stay in force"])?;
    node_gets_in(site)?;
    if !file(filter, "@nodes").is_dir() {
        write(filter, "@nodes", JOINED)?;
        until_ready(&site.node)?;
    }
    Ok(())
}

#[test]
fn a_boot_without_the_files_finds_what_was_last_known() -> Result<()> {
    let (site, filter, daemon, _server) = followed(Some(BEFORE))?;
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    drop(daemon);
    filter.boot()?;
    fs::remove_file(file(&filter, "@nodes"))?;
    let start = || filter.start(&["run", "--interface", INTERFACE]);
    let mut daemon = start()?;
    daemon.line(|line| line.contains("its last good ranges stay in force"))?;
    daemon.line(|line| line.contains("guarding"))?;
    node_gets_in(&site)?;
    site.admin_gets_in(V4, PORT)?;
    drop(daemon);
    filter.boot()?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    node_gets_in(&site)?;

    // With a broken list the policy last in force holds, and with it the nodes.
    filter.boot()?;
    filter.write_list("nonsense\n")?;
    let mut daemon = start()?;
    daemon.line(|line| line.contains("guarding"))?;
    node_gets_in(&site)?;
    ensure!(filter.status("policy_source")? == "last_in_force");
    site.admin_gets_in(V4, PORT)?;
    drop(daemon);

    // Without a saved policy the implicit sources are let in, those of the file among them.
    filter.ok(&["detach"])?;
    fs::remove_dir_all(filter.history_directory())?;
    write(&filter, "@nodes", JOINED)?;
    let mut daemon = start()?;
    daemon.line(|line| line.contains("guarding"))?;
    ensure!(filter.status("policy_source")? == "implicit_sources");
    node_gets_in(&site)?;
    // A node that joins or leaves is followed, though the list cannot be.
    write(&filter, "@nodes", BEFORE)?;
    filter.until_authorized(UNLISTED[0], false)?;
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    ensure!(filter.status("policy_source")? == "implicit_sources");
    node_gets_in(&site)
}

#[test]
fn a_first_start_without_the_file_is_guarded_and_says_who_writes_it() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(None)?;
    daemon.line(|line| line.contains("guarding"))?;
    site.is_guarded(PORT)?;
    let log = daemon.line(|line| line.contains("@nodes`: no such file"))?;
    ensure!(
        log.contains("`apifence-kube` or your own program writes it"),
        "{log}"
    );
    until_not_ready(&site.node)?;
    let drift = filter.status("drift")?.to_string();
    ensure!(
        drift.contains("it does not authorize any source yet"),
        "{drift}"
    );
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    node_gets_in(&site)?;
    until_ready(&site.node)
}

#[test]
fn a_node_that_joins_waits_for_no_correction() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(Some(BEFORE))?;
    // A broken list and a broken config file.
    filter.write_list("nonsense\n")?;
    daemon.line(|line| line.contains("`nonsense`"))?;
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.write_config("cluster_cidrs = [\"@node\"]\n")?;
    daemon.line(|line| line.contains("unknown preset `@node`"))?;
    write(&filter, "@nodes", BEFORE)?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.write_config("cluster_cidrs = [\"@nodes\"]\n")?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    until_ready(&site.node)?;

    // An edit that was on trial and was not confirmed.
    filter.write_config("cluster_cidrs = [\"@nodes\"]\non_cut_within = \"2s\"\n")?;
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    let _worker = site.unlisted_gets_in(V4, PORT)?;
    filter.write_config("cluster_cidrs = []\non_cut_within = \"2s\"\n")?;
    daemon.line(|line| line.contains("the edit is on trial"))?;
    daemon.line(|line| line.contains("a change on trial was not confirmed"))?;
    node_gets_in(&site)?;
    write(&filter, "@nodes", &format!("{JOINED}192.0.2.51\n"))?;
    filter.until_authorized("192.0.2.51", true)?;
    ensure!(filter.run(&["check", "192.0.2.52"])?.code == Some(1));
    node_gets_in(&site)
}

#[test]
fn a_node_that_joins_during_a_trial_is_let_in_after_it() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(Some(BEFORE))?;
    while_it_lasts(|time| {
        filter.ok(&["ranges", "add", "192.0.2.90", "--confirm-within", time])?;
        write(&filter, "@nodes", JOINED)?;
        ensure!(filter.run(&["check", UNLISTED[0]])?.code == Some(1));
        Ok(())
    })?;
    filter.until_authorized(UNLISTED[0], true)?;
    ensure!(filter.run(&["check", "192.0.2.90"])?.code == Some(1));
    write(&filter, "@nodes", BEFORE)?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.ok(&["ranges", "add", "192.0.2.90", "--confirm-within", "1h"])?;
    write(&filter, "@nodes", JOINED)?;
    daemon.line(|line| line.contains("not in force until the trial ends"))?;
    filter.ok(&["confirm"])?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.ok(&["check", "192.0.2.90"])?;
    node_gets_in(&site)
}
