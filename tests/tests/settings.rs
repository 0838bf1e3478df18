//! Settings in force: which ones stay, which need `--force`, and the effect of the environment.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::{Apifence, INPUT, Killed, refused},
    netns::Namespace,
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED},
};

fn ports(filter: &Apifence) -> Result<String> {
    Ok(filter.status("ports")?.to_string())
}

/// A setting that was given once need not be given again: an omitted flag neither opens a port nor
/// cuts a client.
#[test]
fn settings_in_force_stay_until_they_are_changed() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    let nodes = format!("{}/32", UNLISTED[0]);
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    let attach = ["attach", "--interface", INTERFACE];
    filter.ok(&[
        &attach[..],
        &["--port", "6443,9345", "--cluster-cidrs", &nodes],
    ]
    .concat())?;
    let holds = || {
        assert_eq!(ports(&filter)?, "[6443,9345]");
        site.unlisted_gets_in(Family::V4, 9345)?;
        site.unlisted_is_dropped(Family::V6, 9345, &filter)
    };
    holds()?;
    let shows = |key: &str| {
        let config = filter.json(&["config"])?;
        let settings = config["settings"].as_array().context("no settings")?;
        let row = settings.iter().find(|row| row["key"] == key);
        let row = row.context("no such key")?;
        anyhow::Ok(format!("{} {}", row["value"], row["source"]))
    };
    assert_eq!(shows("ports")?, r#"[6443,9345] "in_force""#);
    assert_eq!(shows("mode")?, r#""enforce" "in_force""#);
    assert_eq!(shows("xdp_mode")?, r#""auto" "default""#);
    let said = filter.run(&attach)?.succeeded()?.stderr;
    ensure!(!said.contains("(was "), "{said}");
    holds()?;
    // A service keeps it as well.
    let mut run = filter.start_run(&["--interface", INTERFACE])?;
    holds()?;
    run.signal(Signal::SIGTERM)?;
    assert_eq!(run.wait()?, Some(0));
    holds()?;

    // A setting that opens, or blocks, more than a list does needs `--force`, and a dry run shows
    // it.
    let none = [("APIFENCE_NODE_ADDRESSES", "false")];
    for (environment, words, danger) in [
        (
            &[][..],
            &["--port", "443"][..],
            "opens TCP 6443, 9345 to everyone",
        ),
        (&[], &["--port", "6443"], "opens TCP 9345 to everyone"),
        (
            &[],
            &["--destination", NODE[0]],
            "opens every other address to everyone",
        ),
        (
            &[],
            &["--cluster-cidrs", ""],
            "only the list still allows 203.0.113.9/32",
        ),
        (
            &[],
            &["--cluster-cidrs", "10.0.0.0/8"],
            "only the list still allows 203.0.113.9/32",
        ),
        (
            &none,
            &[],
            "only the list still allows the node's own addresses",
        ),
    ] {
        let words = [&attach, words].concat();
        let ran = filter.run_with(environment, &words)?;
        refused(&ran, INPUT, &[danger])?;
        ensure!(
            ran.stderr.contains("`--force`"),
            "the way is not named; {ran}"
        );
        let ran = filter.run_with(environment, &[&words[..], &["--dry-run"]].concat())?;
        refused(&ran, INPUT, &[danger])?;
        ensure!(ran.stderr.starts_with("refused: "), "{ran}");
    }
    holds()?;

    // The file's setting holds as long as it is in the file.
    filter.write_config("ports = [6443, 9345, 8443]\nmode = 'monitor'\n")?;
    let drift = filter.status("drift")?.to_string();
    ensure!(drift.contains("mode monitor (was enforce)"), "{drift}");
    let said = filter.run(&attach)?.succeeded()?.stderr;
    ensure!(
        said.contains("warning: mode monitor (was enforce): nothing is dropped"),
        "{said}"
    );
    site.unlisted_gets_in(Family::V6, 9345)?;
    filter.write_config("ports = [6443, 9345, 8443]\n")?;
    assert_eq!(shows("mode")?, r#""enforce" "default""#);
    let drift = filter.status("drift")?.to_string();
    ensure!(drift.contains("mode enforce (was monitor)"), "{drift}");
    filter.ok(&attach)?;
    site.unlisted_is_dropped(Family::V6, 9345, &filter)?;
    assert_eq!(ports(&filter)?, "[6443,8443,9345]");
    filter.write_config("")?;
    let opens = ["opens TCP 8443, 9345 to everyone"];
    refused(&filter.run(&attach)?, INPUT, &opens)?;
    site.unlisted_is_dropped(Family::V6, 9345, &filter)?;

    filter.ok(&[&attach[..], &["--force"]].concat())?;
    assert_eq!(ports(&filter)?, "[443,6443]");
    site.unlisted_gets_in(Family::V6, 9345).map(drop)
}

/// `run` reports what a file that it follows opens, with the previous value.
#[test]
fn settings_that_change_under_run_are_logged_one_by_one() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    let words = [
        "run",
        "--interface",
        INTERFACE,
        "--cluster-cidrs",
        "10.0.0.0/8",
    ];
    let mut run = filter.start(&words)?;
    run.line(|line| line.contains("guarding"))?;
    for (text, wanted) in [
        (
            "mode = 'monitor'\n",
            "warning: mode monitor (was enforce): nothing is dropped",
        ),
        ("", "note: mode enforce (was monitor)"),
        (
            "ports = [443, 9345]\n",
            "warning: ports 443, 9345 (was 443, 6443): opens TCP 6443 to everyone",
        ),
    ] {
        filter.write_config(text)?;
        run.line(|line| line == wanted)?;
        run.line(|line| line.contains("config applied"))?;
    }
    site.unlisted_is_dropped(Family::V4, 9345, &filter)?;
    // With the file gone, no source contradicts.
    fs::remove_file(filter.config_file())?;
    run.line(|line| line.contains("no such file"))?;
    filter.write_config("ports = [443, 9345]\n")?;
    site.unlisted_is_dropped(Family::V4, 9345, &filter)
}

/// An unknown name may mean a port that stays open.
#[test]
fn an_unknown_or_invalid_variable_stops_commands_that_apply_settings() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    for (name, value, more) in [
        ("APIFENCE_BOGUS", "1", ""),
        ("APIFENCE_PROT", "9345", "did you mean `APIFENCE_PORT`?"),
        ("APIFENCE_PORT", "https", "invalid value `https`"),
        ("APIFENCE_MODE", "of", "`enforce`, `monitor`"),
        ("APIFENCE_OUTPUT", "xml", "`text`, `wide`, `json`"),
    ] {
        filter.ok(&ATTACH)?;
        let variable = [(name, value)];
        for words in [&["attach"][..], &["config"], &["attach", "--dry-run"]] {
            let ran = filter.run_with(&variable, words)?;
            refused(&ran, INPUT, &[name])?;
            let error = ran.stderr.lines().next().unwrap_or_default();
            ensure!(
                !error.contains("--"),
                "it names a flag that nobody typed; {ran}"
            );
            ensure!(ran.stderr.contains(more), "{ran}");
        }
        site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
        for words in [
            &["status"][..],
            &["check", ADMIN[0]],
            &["stats"],
            &["ranges", "list"],
            &["ranges", "history"],
            &["completions", "bash"],
            &["ranges", "clear"],
            &["detach"],
        ] {
            let ran = filter.run_with(&variable, words)?.succeeded()?;
            let warning = "warning: environment";
            ensure!(
                ran.stderr.contains(warning) && ran.stderr.contains(name),
                "it does not say so; {ran}"
            );
        }
        site.unlisted_gets_in(Family::V4, 6443)?;
    }
    Ok(())
}

/// A service must start, and a broken setting puts nothing in force.
#[test]
fn run_uses_the_last_policy_if_a_variable_is_invalid() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    filter.ok(&[&ATTACH[..], &["--port", "9345"]].concat())?;
    for (name, value) in [("APIFENCE_PROT", "443"), ("APIFENCE_PORTS", "https")] {
        // As after a reboot: all pins are gone.
        fs::remove_dir_all(filter.bpffs())?;
        let mut command = filter.command(&["run", "--interface", INTERFACE]);
        command.env(name, value).stderr(std::process::Stdio::null());
        let mut run = Killed(site.node.spawn(&mut command)?);
        filter.until_status("state", "enforcing")?;
        assert_eq!(ports(&filter)?, "[9345]");
        site.unlisted_is_dropped(Family::V4, 9345, &filter)?;
        assert!(run.0.try_wait()?.is_none());
    }
    Ok(())
}

#[test]
fn settings_stay_over_a_reboot() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    let more = ["--port", "6443,9345", "--cluster-cidrs", UNLISTED[0]];
    filter.ok(&[&ATTACH[..], &more].concat())?;
    // All pins are gone then.
    fs::remove_dir_all(filter.bpffs())?;
    let _run = filter.start_run(&["--interface", INTERFACE])?;
    assert_eq!(ports(&filter)?, "[6443,9345]");
    site.unlisted_gets_in(Family::V4, 9345)?;
    site.unlisted_is_dropped(Family::V6, 9345, &filter)
}

#[test]
fn a_variable_may_be_named_as_the_key_and_an_empty_one_says_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(9345)?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.write_config("cluster_cidrs = ['10.0.0.0/8']\n")?;
    let variables = [
        ("APIFENCE_PORTS", "9345"),
        ("APIFENCE_INTERFACES", INTERFACE),
        ("APIFENCE_CLUSTER_CIDRS", ""),
        ("APIFENCE_MODE", ""),
        ("APIFENCE_XDP_MODE", ""),
        ("APIFENCE_MAX_RANGES", ""),
        ("APIFENCE_NODE_ADDRESSES", ""),
        ("APIFENCE_VERBOSE", ""),
        ("APIFENCE_OUTPUT", ""),
        ("APIFENCE_BPFFS", ""),
        ("APIFENCE_CONFIG", ""),
        ("APIFENCE_DESTINATION", ""),
    ];
    let ran = filter.run_with(&variables, &["attach"])?.succeeded()?;
    ensure!(!ran.stderr.contains("warning"), "{ran}");
    assert_eq!(ports(&filter)?, "[9345]");
    site.unlisted_is_dropped(Family::V4, 9345, &filter)?;
    let origins = filter.status("origins")?.to_string();
    assert_eq!(origins, r#"{"cluster":1,"list":2,"node":2}"#);
    // Help does not depend on the policy in force.
    let wrong = [("APIFENCE_PORT", "https"), ("APIFENCE_BOGUS", "1")];
    for words in [&["--help"][..], &["attach", "--help"], &["help", "run"]] {
        let ran = filter.run_with(&wrong, words)?.succeeded()?;
        ensure!(
            ran.stderr.is_empty() && ran.stdout.contains("APIFENCE_"),
            "{ran}"
        );
    }
    Ok(())
}

#[test]
fn interfaces_that_are_guarded_stay_so_where_none_is_named() -> Result<()> {
    let lonely = Namespace::new("lonely")?;
    let filter = Apifence::new(&lonely)?;
    lonely.ip("link add one type veth peer name two")?;
    lonely.ip("link set one up")?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    // There is no default route that would name one.
    refused(&filter.run(&["attach"])?, INPUT, &["default route"])?;
    filter.ok(&["attach", "--interface", "one"])?;
    filter.ok(&["attach"])?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["interfaces"][0]["interface"], "one");
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(1));
    // An interface that a default route names is guarded as well.
    lonely.ip("link set two up")?;
    lonely.ip("address add 192.0.2.1/24 dev two")?;
    lonely.ip("route add default via 192.0.2.2 dev two")?;
    filter.ok(&["attach"])?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(2));
    Ok(())
}
