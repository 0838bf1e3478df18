//! Names in `cluster_cidrs`: the ranges of vendors, and the files `@nodes` and `@pods`, which `run`
//! follows.

mod known;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    cli::{Apifence, Background, INPUT, Ran, refused},
    net::{Echo, exchange},
    scrape::{ready, scrape, until_ready},
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
    stand_in::StandIn,
    wait::{PATIENCE, until},
};

const PORT: u16 = 6443;
const V4: Family = Family::V4;
/// The user that writes the files in some tests.
const OTHER: u32 = 65534;
/// A file that lets the unlisted client in, by both families, next to another node.
const JOINED: &str = "192.0.2.50 # worker 1\n203.0.113.9 # worker 2\n2001:db8:bb::9\n";
/// The same without that client.
const BEFORE: &str = "192.0.2.50 # worker 1\n";

fn file(filter: &Apifence, name: &str) -> PathBuf {
    filter.state_dir().join(name)
}

/// Replaces the file `name` of the cluster by rename, as its writer does.
fn write(filter: &Apifence, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(filter.state_dir())?;
    let new = file(filter, ".being-written");
    fs::write(&new, text)?;
    Ok(fs::rename(new, file(filter, name))?)
}

/// `run` with the list of the administrator and `@nodes`, which has `nodes`.
fn followed(nodes: Option<&str>) -> Result<(Site, Apifence, Background, Echo)> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    filter.write_config("cluster_cidrs = [\"@nodes\"]\n")?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    if let Some(nodes) = nodes {
        write(&filter, "@nodes", nodes)?;
    }
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.starts_with("metrics at"))?;
    if nodes.is_some() {
        until_ready(&site.node)?;
    }
    Ok((site, filter, daemon, server))
}

/// The unlisted client gets in by both families.
fn node_gets_in(site: &Site) -> Result<()> {
    for family in Family::BOTH {
        site.unlisted_gets_in(family, PORT)?;
    }
    Ok(())
}

#[test]
fn a_node_that_joins_is_let_in_within_a_second_and_is_no_change_of_an_operator() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(Some(BEFORE))?;
    site.is_guarded(PORT)?;
    let operators = ["applied_at", "applied_by", "policy_source"].map(|key| filter.status(key));
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        write(&filter, "@nodes", JOINED)?;
        filter.until_authorized(UNLISTED[0], true)?;
        times.push(began.elapsed());
        node_gets_in(&site)?;
        write(&filter, "@nodes", BEFORE)?;
        filter.until_authorized(UNLISTED[0], false)?;
    }
    times.sort_unstable();
    eprintln!("a node is let in after {times:?}");
    ensure!(times[2] < Duration::from_secs(1), "{times:?}");
    write(&filter, "@nodes", JOINED)?;
    daemon.line(|line| {
        line.contains("cluster addresses: +203.0.113.9/32; +2001:db8:bb::9/128; 3 ranges")
    })?;
    for (key, before) in ["applied_at", "applied_by", "policy_source"]
        .iter()
        .zip(operators)
    {
        ensure!(filter.status(key)? == before?, "`{key}` is not as before");
    }
    ensure!(filter.history()?.len() <= 1);

    // A node that is taken out is cut, and `run` says so.
    let mut connection = site.unlisted_gets_in(V4, PORT)?;
    write(&filter, "@nodes", BEFORE)?;
    daemon.line(|line| line.contains("established connections are cut"))?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.cuts(&mut connection)?;

    // Without `run` all stays as it is; `run` catches up with what it missed.
    write(&filter, "@nodes", JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    let mut connection = site.unlisted_gets_in(V4, PORT)?;
    daemon.signal(nix::sys::signal::Signal::SIGKILL)?;
    daemon.wait()?;
    exchange(&mut connection, PATIENCE)?;
    node_gets_in(&site)?;
    write(&filter, "@nodes", BEFORE)?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    filter.until_authorized(UNLISTED[0], false)?;
    site.is_guarded(PORT)
}

#[test]
fn commands_name_the_file_and_count_its_ranges() -> Result<()> {
    let (site, filter, daemon, _server) = followed(Some(JOINED))?;
    let checked = filter.ok(&["check", UNLISTED[0]])?;
    ensure!(
        checked.contains("`203.0.113.9/32` (cluster: @nodes)"),
        "{checked}"
    );
    let listed = filter.ok(&["ranges", "list"])?;
    ensure!(listed.contains("cluster @nodes"), "{listed}");
    let rows = filter.json(&["ranges", "list"])?;
    let rows = rows["ranges"].as_array().context("rows")?;
    let of_nodes = rows
        .iter()
        .filter(|row| row["presets"] == json!(["@nodes"]));
    ensure!(of_nodes.count() == 3, "{rows:#?}");
    let text = filter.ok(&["status"])?;
    ensure!(text.contains("cluster       @nodes (3 ranges)\n"), "{text}");
    ensure!(
        filter.status("cluster")? == json!([{"value": "@nodes", "ranges": 3, "fault": null}]),
        "{text}"
    );
    ensure!(filter.status("drift")? == json!([]));
    let config = filter.run(&["config"])?;
    config.stderr_has(&["note: `cluster_cidrs`: @nodes (3 ranges)"])?;
    ensure!(config.stdout.contains("[\"@nodes\"]"), "{config}");
    let page = scrape(&site.node)?;
    page.check()?;
    for (name, value) in [("apifence_list_usable", 1.0), ("apifence_list_ranges", 3.0)] {
        ensure!(
            page.sum(name, &[("list", "@nodes")]) == Some(value),
            "{name}"
        );
    }
    // It is no list of an operator.
    let lists = filter.ok(&["ranges", "lists"])?;
    ensure!(!lists.contains("@nodes"), "{lists}");
    let ran = filter.run(&["ranges", "add", "--list", "@nodes", "192.0.2.1"])?;
    ensure!(ran.code == Some(INPUT), "{ran}");
    // `attach` reads it once, and says so.
    drop(daemon);
    let ran = filter.run(&["attach"])?;
    ran.stderr_has(&["@nodes was read once; `apifence run` follows"])?;
    node_gets_in(&site)
}

#[test]
fn a_file_of_the_cluster_is_no_list() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("cluster_cidrs = [\"@nodes\"]\n")?;
    write(&filter, "@nodes", BEFORE)?;
    let attach = ["attach", "--interface", INTERFACE];
    refused(&filter.run(&attach)?, INPUT, &["no such file"])?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    ensure!(filter.status("policy_source")? == "fresh_installation");
    ensure!(filter.status("state")? == "monitoring");
    site.unlisted_gets_in(V4, PORT).map(drop)
}

#[test]
fn the_writer_may_be_another_user_and_has_bounds() -> Result<()> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    filter.write_config(
        "cluster_cidrs = [\"@nodes\", \"@pods\"]\n\
         [lists.\"@nodes\"]\nmax_ranges = 3\nwidest = { ipv4 = 32 }\n\
         [lists.\"@pods\"]\nwidest = { ipv4 = 4, ipv6 = 4 }\n",
    )?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    let owners = tempfile::tempdir()?;
    let writes = |text: &str| -> Result<()> {
        let new = owners.path().join(".new");
        fs::write(&new, text)?;
        chown(&new, Some(OTHER), Some(OTHER))?;
        Ok(fs::rename(new, owners.path().join("nodes"))?)
    };
    fs::set_permissions(owners.path(), Permissions::from_mode(0o755))?;
    chown(owners.path(), Some(OTHER), Some(OTHER))?;
    writes(BEFORE)?;
    fs::create_dir_all(filter.state_dir())?;
    symlink(owners.path().join("nodes"), file(&filter, "@nodes"))?;
    write(&filter, "@pods", "16.0.0.0/4\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    writes(JOINED)?;
    filter.until_authorized(UNLISTED[0], true)?;
    node_gets_in(&site)?;
    for (text, want) in [
        (
            format!("{JOINED}192.0.2.51\n"),
            "it has 4 ranges, and the most is 3",
        ),
        ("192.0.2.0/31\n".to_owned(), "wider than /32"),
        // The default of the other family holds.
        ("2000::/15\n".to_owned(), "wider than /16"),
    ] {
        writes(&text)?;
        daemon.line(|line| line.contains(want))?;
        node_gets_in(&site).context(text)?;
        writes(JOINED)?;
        daemon.line(|line| line.contains("can be used again"))?;
    }
    let checked = filter.ok(&["check", "17.0.0.1"])?;
    ensure!(checked.contains("(cluster: @pods)"), "{checked}");
    // One file is followed while the other is broken.
    write(&filter, "@pods", "nonsense\n")?;
    daemon.line(|line| line.contains("`nonsense`"))?;
    writes(BEFORE)?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.ok(&["check", "17.0.0.1"])?;
    drop(server);
    Ok(())
}

#[test]
fn taking_the_name_away_needs_force_and_is_on_trial_under_run() -> Result<()> {
    let (site, filter, mut daemon, _server) = followed(Some(JOINED))?;
    let mut worker = site.unlisted_gets_in(V4, PORT)?;
    let _admin = site.admin_gets_in(V4, PORT)?;
    filter.write_config("cluster_cidrs = []\non_cut_within = \"1h\"\n")?;
    let log = daemon.line(|line| line.contains("the edit is on trial"))?;
    ensure!(
        log.contains("203.0.113.9, a cluster node (in `@nodes`),"),
        "{log}"
    );
    filter.ok(&["ranges", "rollback"])?;
    exchange(&mut worker, PATIENCE)?;
    drop(daemon);
    let ran = filter.run(&ATTACH)?;
    refused(&ran, INPUT, &["only the list still allows @nodes"])?;
    ran.stderr_has(&["cluster node (in `@nodes`)"])?;
    exchange(&mut worker, PATIENCE)?;
    filter.ok(&[&ATTACH[..], &["--force"]].concat())?;
    filter.cuts(&mut worker)?;
    site.is_guarded(PORT)
}

#[test]
fn presets_of_vendors_have_their_ranges_and_unknown_names_are_errors() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let with = |value: &str| filter.run(&[&ATTACH[..], &["--cluster-cidrs", value]].concat());
    let is_unknown = |ran: &Ran, place: &str, hint: &str| {
        refused(ran, INPUT, &[place, "unknown preset"])?;
        let names = "the presets are `@gcp-health-checks`, `@azure-probe`, `@nodes`, `@pods`";
        ran.stderr_has(&[&format!("hint: {hint}{names}")])
    };
    let ran = with("@node,10.0.0.0/8")?;
    is_unknown(&ran, "--cluster-cidrs: ", "`@nodes`? ")?;
    let ran = filter.run_with(&[("APIFENCE_CLUSTER_CIDRS", "@office")], &ATTACH)?;
    is_unknown(&ran, "environment APIFENCE_CLUSTER_CIDRS: ", "")?;
    filter.write_config("cluster_cidrs = [\"10.0.0.0/8\", \"@gpc-health-checks\"]\n")?;
    let ran = filter.run(&ATTACH)?;
    is_unknown(&ran, ":1: `cluster_cidrs`: ", "`@gcp-health-checks`? ")?;
    filter.write_config("")?;

    let value = "@gcp-health-checks,@azure-probe,192.0.2.128/25";
    with(value)?.succeeded()?;
    for (source, preset) in [
        ("35.191.3.4", "@gcp-health-checks"),
        ("130.211.0.7", "@gcp-health-checks"),
        ("209.85.204.1", "@gcp-health-checks"),
        ("2600:2d00:1:b029::1", "@gcp-health-checks"),
        ("2600:1901:8001::1", "@gcp-health-checks"),
        ("168.63.129.16", "@azure-probe"),
    ] {
        let checked = filter.ok(&["check", source])?;
        ensure!(
            checked.contains(&format!("(cluster: {preset})")),
            "{checked}"
        );
    }
    let checked = filter.ok(&["check", "192.0.2.129"])?;
    ensure!(checked.contains("`192.0.2.128/25` (cluster)"), "{checked}");
    let text = filter.ok(&["status"])?;
    let line =
        "cluster       192.0.2.128/25, @gcp-health-checks (7 ranges), @azure-probe (1 range)\n";
    ensure!(text.contains(line), "{text}");
    // Names stay in force like CIDRs, until the settings say otherwise.
    filter.ok(&["monitor"])?;
    filter.ok(&["enforce"])?;
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    filter.ok(&["check", "35.191.3.4", "168.63.129.16"])?;
    let ran = with("192.0.2.128/25")?;
    refused(
        &ran,
        INPUT,
        &["only the list still allows @gcp-health-checks, @azure-probe"],
    )
}

#[test]
fn a_first_enforcement_waits_for_a_node_in_the_file() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let program = Path::new(env!("CARGO_BIN_EXE_stand-in"));
    let program = program.to_str().context("a path")?;
    let _kubelet = StandIn::new(&site.node, program, "kubelet", &["10250"])?;
    filter.write_config("cluster_cidrs = [\"@nodes\", \"@gcp-health-checks\"]\n")?;
    let lack = "`cluster_cidrs` has no range of a node or pod yet (@gcp-health-checks, @nodes)";
    refused(&filter.run(&ATTACH)?, INPUT, &[lack])?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains(lack))?;
    daemon.line(|line| line.contains("guarding"))?;
    ensure!(filter.status("state")? == "monitoring");
    // The file is all that was missing.
    write(&filter, "@nodes", BEFORE)?;
    until("it is enforced", || {
        Ok(filter.status("state")? == "enforcing")
    })?;
    site.is_guarded(PORT)
}
