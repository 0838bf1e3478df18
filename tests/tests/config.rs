//! The config file: below the environment and the flags, and broken.

mod snapshot;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use snapshot::same;
use tests::{
    cli::{Apifence, FAILED, INPUT, Ran, binary, refused, words},
    mounts,
    net::Echo,
    site::{ADMIN, ADMIN_RANGES, Family, INTERFACE, Site, UNLISTED},
};

/// Runs `words` alone: without options for the config file, the list or the pins.
fn bare(site: &Site, words: &[&str]) -> Result<Ran> {
    Ran::new(words, &site.node.output(&mut command(words))?)
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("APIFENCE_") {
            command.env_remove(name);
        }
    }
    command.args(words);
    command
}

fn ports(filter: &Apifence) -> Result<String> {
    Ok(filter.status("ports")?.to_string())
}

#[test]
fn each_source_goes_before_the_one_below() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    let names = format!("interfaces = ['{INTERFACE}']\n");
    filter.write_config(&names)?;
    filter.ok(&["attach"])?;
    assert_eq!(ports(&filter)?, "[443,6443]");

    let file = format!("{names}ports = [8001]\nmax_ranges = 77\ncluster_cidrs = ['10.0.0.0/8']\n");
    filter.write_config(file)?;
    filter.ok(&["attach", "--force"])?;
    assert_eq!(ports(&filter)?, "[8001]");

    let environment = [
        ("APIFENCE_PORT", "8002"),
        ("APIFENCE_OUTBOUND_IPS", "203.0.113.200"),
    ];
    filter
        .run_with(&environment, &["attach", "--force"])?
        .succeeded()?;
    assert_eq!(ports(&filter)?, "[8002]");

    let flag = ["attach", "--force", "--port", "8003,8004"];
    filter.run_with(&environment, &flag)?.succeeded()?;
    // All four at once: ports by the flag, outbound addresses by the environment, cluster and limit
    // by the file, the node's addresses by default.
    let status = filter.json(&["status"])?;
    assert_eq!(status["ports"].to_string(), "[8003,8004]");
    assert_eq!(status["max_ranges"], 77);
    assert_eq!(
        status["origins"].to_string(),
        r#"{"cluster":1,"list":2,"node":2,"outbound":1}"#
    );

    let _filtered = Echo::new(&site.node, 8003)?;
    let _open = Echo::new(&site.node, 8002)?;
    for family in Family::BOTH {
        site.unlisted_is_dropped(family, 8003, &filter)?;
        site.admin_gets_in(family, 8003)?;
        site.unlisted_gets_in(family, 8002)?;
    }
    Ok(())
}

#[test]
fn a_broken_file_changes_nothing_and_stops_no_command_that_does_not_need_it() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    let before = filter.json(&["status"])?;
    filter.write_config("prots = [8001]\nmode = 'monitor'\n")?;

    let line = format!("{}:1", filter.config_file().display());
    for command in [&["attach"][..], &["config"]] {
        refused(&filter.run(command)?, INPUT, &[&line, "`prots`"])?;
    }
    let mut now = filter.json(&["status"])?;
    let drift = now["drift"].take();
    assert!(drift.to_string().contains(&line), "{drift}");
    now["drift"] = before["drift"].clone();
    assert_eq!(now, before);
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    // `run` says so and keeps what is in force, even if a part of the file can be read.
    let mut daemon = filter.start(&["run", "--metrics-listen", "off"])?;
    daemon.line(|text| text.contains(&line) && text.contains("`prots`"))?;
    let list = filter.list()?;
    filter.write_list(format!("{list}192.0.2.222\n"))?;
    daemon.line(|text| text.contains("ranges file applied"))?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    drop(daemon);
    ensure!(filter.status("state")? == "enforcing");

    for command in [
        &["check", ADMIN[0]][..],
        &["stats"],
        &["ranges", "list"],
        &["ranges", "history"],
        &["ranges", "add", UNLISTED[0], "--confirm-within", "1h"],
        &["confirm"],
    ] {
        let ran = filter.run(command)?.succeeded()?;
        let warning = format!("warning: {line}");
        ensure!(ran.stderr.contains(&warning), "it does not say so; {ran}");
    }
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&["ranges", "remove", UNLISTED[0]])?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    filter.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V4, 443).map(drop)
}

/// Without a flag or a variable the file is the one in `/etc`; it may name all other places.
#[test]
fn the_file_may_say_where_list_and_pins_are_and_then_must_be_readable() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    // This thread and its processes have a mount namespace of their own.
    let options = None::<&str>;
    mount(
        Some("tmpfs"),
        "/etc",
        Some("tmpfs"),
        MsFlags::empty(),
        options,
    )
    .context("mount /etc")?;
    // These commands keep their state at the default place.
    mounts::own("/var/lib")?;
    fs::create_dir("/etc/apifence")?;
    let file = Path::new("/etc/apifence/apifence.toml");
    let good = format!(
        "bpffs = '{}'\nranges_file = '{}'\n",
        filter.bpffs().display(),
        filter.ranges_file().display()
    );
    fs::write(file, &good)?;

    bare(&site, &["ranges", "set", ADMIN_RANGES])?.succeeded()?;
    assert!(filter.ranges_file().exists());
    bare(&site, &["attach", "--interface", INTERFACE])?.succeeded()?;
    assert_eq!(filter.status("state")?, "enforcing");

    // The place of the list is unknown, so no command takes back the change on trial, as it would
    // if the list were gone.
    bare(
        &site,
        &["ranges", "add", UNLISTED[0], "--confirm-within", "1h"],
    )?
    .succeeded()?;
    fs::write(file, good.replace("ranges_file = ", "ranges_file = = "))?;
    for command in [
        &["status"][..],
        &["check", ADMIN[0]],
        &["stats"],
        &["ranges", "list"],
    ] {
        bare(&site, command)?.succeeded()?;
    }
    let place = "/etc/apifence/apifence.toml:2";
    for command in [
        &["confirm"][..],
        &["ranges", "rollback"],
        &["ranges", "history"],
    ] {
        refused(&bare(&site, command)?, INPUT, &[place])?;
    }
    let list = filter.ranges_file().display().to_string();
    bare(&site, &["--ranges-file", &list, "confirm"])?.succeeded()?;
    site.unlisted_gets_in(Family::V4, 443)?;

    // Nor is the place of the pins.
    fs::write(file, good.replace("bpffs = '", "bpffs = "))?;
    let ran = bare(&site, &["detach"])?;
    refused(&ran, INPUT, &["/etc/apifence/apifence.toml:1"])?;
    ensure!(
        ran.stderr.contains("`--bpffs`"),
        "the way out is not named; {ran}"
    );
    let pins = filter.bpffs().display().to_string();
    bare(&site, &["--bpffs", &pins, "detach"])?.succeeded()?;
    assert!(!filter.bpffs().exists());

    // An unreadable file may say anything.
    fs::remove_file(file)?;
    fs::create_dir(file)?;
    refused(&bare(&site, &["stats"])?, INPUT, &["is a directory"])?;
    let ran = bare(&site, &["--bpffs", &pins, "stats"])?;
    refused(&ran, FAILED, &["no filter is attached"])?;
    // A missing file says nothing.
    fs::remove_dir(file)?;
    refused(
        &bare(&site, &["stats"])?,
        FAILED,
        &["no filter is attached"],
    )?;
    let named = ["--config", "/etc/nothing", "stats"];
    refused(&bare(&site, &named)?, INPUT, &["no such file"])?;
    let mut by_variable = command(&["stats"]);
    by_variable.env("APIFENCE_CONFIG", "/etc/nothing");
    let ran = Ran::new(&["stats"], &site.node.output(&mut by_variable)?)?;
    refused(&ran, INPUT, &["no such file"])
}

#[test]
fn the_limit_of_the_list_is_the_files_until_a_filter_has_one() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.write_config("max_ranges = 2\n")?;
    let three = "192.0.2.1,192.0.2.2,192.0.2.3";
    let over = filter.run(&["ranges", "set", three])?;
    refused(&over, INPUT, &["3", "the maximum is 2"])?;
    ensure!(over.stderr.contains("`max_ranges`"), "{over}");
    over.stderr_has(&["`apifence attach --max-ranges N`"])?;
    assert!(!filter.ranges_file().exists());
    filter
        .run_with(&[("APIFENCE_MAX_RANGES", "3")], &["ranges", "set", three])?
        .succeeded()?;
    let ran = filter.run_with(&[("APIFENCE_MAX_RANGES", "0")], &["ranges", "set", three])?;
    refused(&ran, INPUT, &["`max_ranges` cannot be read"])?;

    refused(
        &filter.run(&["attach", "--interface", INTERFACE])?,
        INPUT,
        &["the maximum is 2"],
    )?;
    filter.ok(&["attach", "--interface", INTERFACE, "--max-ranges", "4"])?;
    filter.write_config("max_ranges = 'many'\n")?;
    filter.ok(&["ranges", "add", "192.0.2.4"])?;
    let ran = filter.run(&["ranges", "add", "192.0.2.5"])?;
    refused(&ran, INPUT, &["5", "the maximum is 4"])
}

#[test]
fn run_detaches_at_its_end_if_the_file_says_so() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    for (said, state) in [("false", "enforcing"), ("true", "detached")] {
        let file = format!("interfaces = ['{INTERFACE}']\ndetach_on_exit = {said}\n");
        filter.write_config(file)?;
        let mut run = filter.start_run(&[])?;
        // It handles signals before it guards.
        run.signal(Signal::SIGTERM)?;
        assert_eq!(run.wait()?, Some(0));
        assert_eq!(filter.status("state")?, state);
    }
    Ok(())
}

#[test]
fn config_shows_settings_and_their_sources() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?.with_ranges_file("/etc/apifence/ranges");
    filter.write_config(
        "# ours\n\
         ports = [443, 6443, 8443]\n\
         mode = 'monitor'\n\
         cluster_cidrs = [\n    '10.0.0.0/8', # pods\n    'fd00::/8',\n]\n",
    )?;
    let variables = [
        ("APIFENCE_MODE", "enforce"),
        ("APIFENCE_INTERFACE", "eth0,eth1"),
        ("APIFENCE_NODE_ADDRESSES", "false"),
    ];
    let show = |words: &[&str]| {
        let words = [
            words,
            &["config", "--interface", "eth2", "--max-ranges", "9"],
        ]
        .concat();
        filter.run_with(&variables, &words)
    };
    let mut said = filter.run_all(&[
        &["config"],
        &words(&format!(
            "config --authorized-ip-ranges {ADMIN_RANGES} --xdp-mode generic"
        )),
    ])?;
    said.extend([show(&[])?, show(&["-o", "json"])?]);
    same("config", &filter, &said);
    Ok(())
}

#[test]
fn errors_of_the_config_file_match_their_snapshot() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut said = Vec::new();
    for text in [
        "ports = [0, 443, 70000, 'https']\n\
         max_ranges = 1_000_001\n\
         mode = 'monitr'\n\
         xdp_mode = 1\n\
         output = 'yaml'\n\
         destinations = '10.0.0.0/8'\n\
         cluster_cidrs = [\n  '10.1.2.3/8',\n  'nobody',\n  5,\n]\n\
         verbose = 'yes'\n\
         bpffs = 'apifence'\n\
         outbound_ips = ['10.0.0.0/8', '127.0.0.1']\n\
         outbound_ip_prefixes = [['10.0.0.0/8']]\n\
         node_addresses = 0\n\
         interfaces = ['eth0', '']\n\
         detach_on_exit = 2027-01-31T18:00:00Z\n",
        "ports = []\n\
         interface = ['eth0']\n\
         max-ranges = 9\n\
         no_node_addresses = true\n\
         authorized_ip_ranges = ['10.0.0.0/8']\n\
         colour = 'red'\n\
         [policy]\n\
         mode = 'monitor'\n",
        "ports = [443, 6443\n\
         mode = monitor\n\
         max_ranges 9\n\
         verbose = true\n\
         verbose = false\n\
         output = \"json\n",
        "203.0.113.9\n198.51.100.0/24 # the office\n",
    ] {
        filter.write_config(text)?;
        said.push(filter.run(&["config"])?);
    }
    filter.write_config([0xff, 0xfe])?;
    said.push(filter.run(&["attach"])?);
    filter.write_config("bpffs = 5\n")?;
    for command in [&["stats"][..], &["attach"]] {
        said.push(filter.run(command)?);
    }
    said.push(bare(
        &site,
        &["--config", "/nowhere/apifence.toml", "status"],
    )?);
    let variables = [
        ("APIFENCE_DESTINATION", "10.1.2.3/8"),
        ("APIFENCE_OUTBOUND_IPS", "10.0.0.0/8"),
    ];
    filter.write_config("prots = [443]\n")?;
    said.push(filter.run_with(&variables, &["attach", "--cluster-cidrs", "all"])?);
    same("refusals-of-the-config-file", &filter, &said);
    Ok(())
}

#[test]
fn drift_of_the_config_file_matches_its_snapshot() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.ok(&words(&format!(
        "attach --interface {INTERFACE} --port 443 --max-ranges 9"
    )))?;
    let mut said = Vec::new();
    for text in [
        // Named settings are in force, and unnamed ones do not count as different.
        "ports = [443]\nmax_ranges = 9\ninterfaces = ['eth0']\n",
        "ports = [443, 8443]\nmode = 'monitor'\ncluster_cidrs = ['10.0.0.0/8']\ninterfaces = ['eth1', 'eth0']\n",
        "ports = 443\nmod = 'monitor'\n",
    ] {
        filter.write_config(text)?;
        said.push(filter.run(&["status"])?);
    }
    filter.ok(&["detach"])?;
    said.push(filter.run(&["status"])?);
    same("drift-of-the-config-file", &filter, &said);
    Ok(())
}
