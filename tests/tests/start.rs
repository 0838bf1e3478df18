//! The policy after a start, usually a boot: whatever is broken, the port is not opened, and the
//! node does not lock itself out.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    cli::{Apifence, Background, words},
    foreign::Foreign,
    net::Echo,
    netns::{Namespace, two_interfaces},
    scrape::{get, scrape},
    site::{ADMIN_RANGES, Family, INTERFACE, Site},
    wait::until,
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const RUN: [&str; 3] = ["run", "--interface", INTERFACE];

/// Waits until `run` has tried to guard every interface; returns the time since `began`.
fn tried(site: &Site, began: Instant) -> Result<Duration> {
    until("it was tried", || {
        let answer = get(&site.node, "/readyz");
        Ok(answer.is_ok_and(|answer| !answer.body.contains("starting")))
    })?;
    Ok(began.elapsed())
}

/// `/readyz` is 503 with all of these words.
fn not_ready(namespace: &Namespace, words: &[&str]) -> Result<()> {
    let answer = get(namespace, "/readyz")?;
    ensure!(answer.status == 503, "{}", answer.body);
    for word in words {
        ensure!(answer.body.contains(word), "`{word}`: {}", answer.body);
    }
    Ok(())
}

fn is_ready(namespace: &Namespace) -> Result<()> {
    until("it is ready", || {
        Ok(get(namespace, "/readyz").is_ok_and(|answer| answer.status == 200))
    })
}

/// Ends `run` as a crash would.
fn kill(mut daemon: Background) -> Result<()> {
    daemon.signal(nix::sys::signal::Signal::SIGKILL)?;
    daemon.wait().map(drop)
}

/// The unlisted source is dropped, the listed one gets in, over both families.
fn guarded(site: &Site, filter: &Apifence) -> Result<()> {
    for family in Family::BOTH {
        site.unlisted_is_dropped(family, PORT, filter)?;
        site.admin_gets_in(family, PORT)?;
    }
    Ok(())
}

/// Replaces the file at a path.
type Break = fn(&Path) -> Result<()>;

const BROKEN: [(&str, Break, &str); 6] = [
    (
        "a broken list",
        |path| Ok(fs::write(path, "192.0.2.10\nx\n")?),
        "`x` is",
    ),
    ("an empty list", |path| Ok(fs::write(path, "")?), "no range"),
    (
        "a missing list",
        |path| Ok(fs::remove_file(path)?),
        "no such file",
    ),
    (
        "a FIFO",
        |path| {
            fs::remove_file(path)?;
            Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR)?)
        },
        "it is a FIFO",
    ),
    (
        "a device that never ends",
        |path| {
            fs::remove_file(path)?;
            Ok(std::os::unix::fs::symlink("/dev/zero", path)?)
        },
        "it is a device",
    ),
    (
        "no text",
        |path| Ok(fs::write(path, [0xff, 0xfe, 0x31])?),
        "UTF-8",
    ),
];

#[test]
fn after_a_boot_with_a_broken_list_the_policy_last_in_force_holds() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let file = filter.ranges_file();
    for (what, make, named) in BROKEN {
        fs::write(file, LIST)?;
        filter.ok(&words(&format!(
            "attach --interface {INTERFACE} --port 443,6443,9345"
        )))?;
        filter.boot()?;
        site.unlisted_gets_in(Family::V4, PORT)?;

        make(file)?;
        let began = Instant::now();
        let mut daemon = filter.start(&RUN)?;
        let warned = daemon.line(|line| line.starts_with("warning: the last good policy"))?;
        ensure!(warned.contains(named), "{what}: {warned}");
        let took = tried(&site, began)?;
        println!("{what}: guarded {took:?} after the start");
        guarded(&site, &filter)?;
        not_ready(&site.node, &["the last good policy is in force", named])?;
        let status = filter.json(&["status"])?;
        ensure!(status["state"] == "enforcing", "{status}");
        ensure!(status["policy_source"] == "last_in_force", "{status}");
        ensure!(status["ports"] == json!([443, 6443, 9345]), "{status}");
        let page = scrape(&site.node)?;
        let source = [("source", "last_in_force")];
        assert_eq!(page.sum("apifence_policy_source", &source), Some(1.0));

        let _ = fs::remove_file(file);
        fs::write(file, LIST)?;
        is_ready(&site.node)?;
        guarded(&site, &filter)?;
        ensure!(filter.status("policy_source")? == "files");
        kill(daemon)?;
        filter.ok(&["detach"])?;
    }
    Ok(())
}

#[test]
fn after_a_boot_with_a_broken_config_its_last_settings_hold() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    filter.write_list(LIST)?;
    let config = filter.config_file();
    let good = format!("ports = [6443, 9345]\ninterfaces = [\"{INTERFACE}\"]\n");
    fs::write(config, &good)?;
    filter.ok(&["attach"])?;
    let broken: [(&str, &str); 5] = [
        // No part of a broken file comes into force, even if it can be read.
        (
            "prots = [6443]\nmode = \"monitor\"\nports = [443]\n",
            "prots",
        ),
        ("ports = [6443, \"x\"]\n", "ports"),
        ("prots = [6443]\n", "prots"),
        ("ports = [6443\n", "apifence.toml"),
        ("mode = \"watch\"\n", "watch"),
    ];
    for (text, words) in broken {
        filter.boot()?;
        fs::write(config, text)?;
        let began = Instant::now();
        let daemon = filter.start(&["run"])?;
        tried(&site, began)?;
        site.unlisted_is_dropped(Family::V4, 9345, &filter)?;
        site.admin_gets_in(Family::V4, 9345)?;
        not_ready(&site.node, &["the last good policy is in force", words])?;
        // The list is followed nevertheless, under the settings in force.
        filter.write_list("198.51.100.0/25\n")?;
        filter.until_authorized("198.51.100.200", false)?;
        site.unlisted_is_dropped(Family::V4, 9345, &filter)?;
        filter.write_list(LIST)?;
        fs::write(config, &good)?;
        is_ready(&site.node)?;
        kill(daemon)?;
    }
    Ok(())
}

#[test]
fn lost_settings_are_reported_until_they_are_accepted() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    let ports = ["--port", "443,6443,9345"];
    filter.ok(&[&["attach", "--interface", INTERFACE], &ports[..]].concat())?;
    filter.boot()?;
    fs::write(filter.state_dir().join("policy"), "\0x")?;
    let mut daemon = filter.start(&RUN)?;
    daemon.line(|line| line.starts_with("warning: settings from earlier flags are lost"))?;
    tried(&site, Instant::now())?;
    guarded(&site, &filter)?;
    // The list is followed, which does not restore the settings.
    filter.write_list(format!("{LIST}192.0.2.77\n"))?;
    filter.until_authorized("192.0.2.77", true)?;
    not_ready(
        &site.node,
        &["settings from earlier flags are lost", "incomplete"],
    )?;
    ensure!(filter.status("policy_source")? == "default_settings");
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    is_ready(&site.node)?;
    ensure!(filter.status("policy_source")? == "files");
    // The next change closes a state directory that other users may write.
    kill(daemon)?;
    fs::set_permissions(filter.state_dir(), fs::Permissions::from_mode(0o777))?;
    filter.ok(&[&["attach", "--interface", INTERFACE], &ports[..]].concat())?;
    let mode = fs::metadata(filter.state_dir())?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "{mode:o}");
    filter.boot()?;
    let _daemon = filter.start(&RUN)?;
    is_ready(&site.node)?;
    ensure!(filter.status("ports")? == json!([443, 6443, 9345]));
    Ok(())
}

#[test]
fn at_a_first_start_a_good_list_is_enforced_unless_the_settings_are_in_doubt() -> Result<()> {
    let site = Site::new()?;
    for (text, is_enforced) in [
        ("bogus = 1\nports = [6443]\n", true),
        ("bogus = 1\nmode = \"monitor\"\n", false),
        ("mode = \"watch\"\n", false),
        ("cluster_cidrs = [\"10.0.0.0/33\"]\n", false),
        ("ports = [6443\n", false),
    ] {
        let filter = Apifence::new(&site.node)?;
        let _server = Echo::new(&site.node, PORT)?;
        filter.write_list(LIST)?;
        filter.write_config(text)?;
        let daemon = filter.start(&RUN)?;
        tried(&site, Instant::now())?;
        if is_enforced {
            guarded(&site, &filter)?;
        } else {
            site.unlisted_gets_in(Family::V4, PORT)?;
        }
        ensure!(get(&site.node, "/readyz")?.status == 503, "{text}");
        filter.write_config("")?;
        is_ready(&site.node)?;
        guarded(&site, &filter)?;
        kill(daemon)?;
        filter.ok(&["detach"])?;
    }
    Ok(())
}

#[test]
fn files_that_others_may_write_are_warned_of_and_a_unit_goes_by_the_last_policy() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    ensure!(!filter.ok(&["status"])?.contains("[W06]"));
    filter.write_list("0.0.0.0/0\n")?;
    let anybody = fs::Permissions::from_mode(0o666);
    fs::set_permissions(filter.ranges_file(), anybody)?;
    ensure!(filter.ok(&["status"])?.contains("[W06]"));
    filter.boot()?;
    let mut command = filter.command(&RUN);
    command.env("INVOCATION_ID", "5ad1e0a6ac3b4bd8a0fa0c1e2d4f5a6b");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = tests::cli::Killed(site.node.spawn(&mut command)?);
    tried(&site, Instant::now())?;
    guarded(&site, &filter)?;
    not_ready(
        &site.node,
        &["other users can write to", "last good policy"],
    )?;
    drop(daemon);
    Ok(())
}

#[test]
fn a_node_that_has_enforced_lets_in_implicit_sources_alone_when_no_list_is_left() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    filter.boot()?;
    fs::remove_file(filter.ranges_file())?;
    fs::remove_dir_all(filter.history_directory())?;
    fs::write(filter.state_dir().join("policy"), "{\"settings\"")?;
    let mut daemon = filter.start(&RUN)?;
    daemon.line(|line| line.starts_with("warning: only the implicit sources are allowed"))?;
    daemon.line(|line| line.starts_with("guarding"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.status("policy_source")? == "implicit_sources");
    ensure!(filter.run(&["check", "192.0.2.10"])?.code == Some(0));
    ensure!(filter.run(&["check", "198.51.100.7"])?.code == Some(1));
    not_ready(&site.node, &["only the implicit sources"])?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    is_ready(&site.node)?;
    guarded(&site, &filter)
}

#[test]
fn lists_of_an_older_version_count_as_the_last_in_force() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    // A list that was set without a filter, and is in the history.
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.write_list("198.51.100.0/24\nx\n")?;
    let mut daemon = filter.start(&RUN)?;
    daemon.line(|line| line.starts_with("warning: the last good policy"))?;
    daemon.line(|line| line.starts_with("guarding"))?;
    guarded(&site, &filter)
}

#[test]
fn a_fresh_installation_without_a_list_starts_in_monitor_mode() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut daemon = filter.start(&RUN)?;
    daemon.line(|line| line.starts_with("warning: monitor mode: nothing is dropped"))?;
    daemon.line(|line| line.starts_with("guarding"))?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.packets("would_drop", "unauthorized")? > 0);
    let status = filter.json(&["status"])?;
    ensure!(status["state"] == "monitoring", "{status}");
    ensure!(status["policy_source"] == "fresh_installation", "{status}");
    not_ready(&site.node, &["monitor mode"])?;
    // With a list it enforces.
    filter.write_list(LIST)?;
    is_ready(&site.node)?;
    guarded(&site, &filter)
}

#[test]
fn what_was_set_before_a_boot_holds_after_it() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(LIST)?;
    let extra = ["--port", "6443,9345", "--cluster-cidrs", "10.0.0.0/8"];
    filter.ok(&[&["attach", "--interface", INTERFACE], &extra[..]].concat())?;
    filter.boot()?;
    let daemon = filter.start(&RUN)?;
    is_ready(&site.node)?;
    let status = filter.json(&["status"])?;
    ensure!(status["ports"] == json!([6443, 9345]), "{status}");
    ensure!(filter.run(&["check", "10.1.2.3"])?.code == Some(0));
    // A reboot ends a change on trial.
    let trial = words("ranges set 192.0.2.77 --confirm-within 10m --force");
    filter.ok(&trial)?;
    kill(daemon)?;
    filter.boot()?;
    filter.write_list("x\n")?;
    let daemon = filter.start(&RUN)?;
    filter.until_authorized("198.51.100.7", true)?;
    ensure!(filter.run(&["check", "192.0.2.77"])?.code == Some(1));
    kill(daemon)?;
    // A filter that was detached on purpose does not come back.
    filter.ok(&["detach"])?;
    filter.write_list(LIST)?;
    let _daemon = filter.start(&RUN)?;
    is_ready(&site.node)?;
    ensure!(filter.status("ports")? == json!([443, 6443]));
    Ok(())
}

/// The interfaces among `n0` and `n1` that carry a filter.
fn carrying(node: &Namespace) -> Result<[bool; 2]> {
    let carries = |name: &str| -> Result<bool> {
        let shown = node.ip(&format!("-d link show dev {name}"))?;
        Ok(shown.contains("name apifence"))
    };
    Ok([carries("n0")?, carries("n1")?])
}

#[test]
fn each_interface_is_guarded_by_itself() -> Result<()> {
    let both = ["run", "--interface", "n0,n1"];
    // A missing interface.
    let [node, client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    filter.write_list("192.0.2.2\n")?;
    node.ip("link del n1")?;
    let mut daemon = filter.start(&both)?;
    daemon.line(|line| line.contains("`n1` does not exist"))?;
    daemon.line(|line| line.starts_with("guarding `n0`"))?;
    not_ready(&node, &["`n1` is not guarded: it does not exist"])?;
    node.ip("link add n1 type veth peer name c1")?;
    daemon.line(|line| line.starts_with("guarding `n1`"))?;
    is_ready(&node)?;
    kill(daemon)?;
    filter.ok(&["detach"])?;

    // An interface with a foreign program.
    let [node, _client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    filter.write_list("192.0.2.2\n")?;
    let mut foreign = Foreign::load()?;
    let link = node.run(|| foreign.attach("n1"))?;
    let mut daemon = filter.start(&both)?;
    daemon.line(|line| line.contains("error: attach filter to `n1`"))?;
    assert_eq!(carrying(&node)?, [true, false]);
    not_ready(&node, &["`n1` is not guarded", "has the XDP program"])?;
    drop(link);
    daemon.line(|line| line.starts_with("guarding `n1`"))?;
    is_ready(&node)?;
    kill(daemon)?;
    filter.ok(&["detach"])?;

    // A mode that one of them lacks: a bridge has no native XDP.
    node.ip("link add br0 type bridge")?;
    let mut daemon = filter.start(&["run", "--interface", "br0,n0", "--xdp-mode", "native"])?;
    daemon.line(|line| line.contains("error: attach filter to `br0`"))?;
    until("the other one is guarded", || Ok(carrying(&node)?[0]))?;
    kill(daemon)?;
    drop(client);
    Ok(())
}
