//! Changes of ports with lists of their own: what they tell, what is refused, and what a crash
//! leaves.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tests::{
    cli::{INPUT, refused},
    guards::{API, ETCD, GUARD, each_reaches_its_own, guarded, is_in},
    net::{Echo, exchange},
    site::{ADMIN, ATTACH, Family, UNLISTED},
    strace::strace,
    wait::PATIENCE,
};

#[test]
fn a_change_says_what_it_opens_and_closes() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    // A client of a port of etcd is a node of the cluster, and has messages of its own.
    let _server = Echo::new(&site.node, 4001)?;
    let guard = GUARD.replace("2379, 2380", "4001, 4002");
    filter.write_config(&guard)?;
    let attach = &ATTACH[..3];
    let forced = [attach, &["--force"]].concat();
    let dry = [attach, &["--dry-run", "--force"]].concat();
    let opens = "opens TCP 2379, 2380 to everyone";
    let shown = filter.ok(&dry)?;
    ensure!(
        shown.contains(&opens.replace("opens", "would open")),
        "{shown}"
    );
    let ran = filter.run(attach)?;
    ensure!(ran.code != Some(0) && ran.stderr.contains(opens), "{ran}");
    filter.write_config("")?;
    filter.ok(&forced)?;
    // A guard that cuts the only client of its port, while others stay at the API server.
    let mut cut = site.admin_gets_in(Family::V4, 4001)?;
    let mut api = site.admin_gets_in(Family::V4, API)?;
    filter.write_config(&guard)?;
    let shown = filter.ok(&dry)?;
    let line = format!(
        "  {} -> 192.0.2.10:4001: listed as 198.51.100.0/24, port of the list `control-plane`",
        cut.local_addr()?
    );
    ensure!(
        shown.contains(&line) && shown.contains("1 of 2 established connections would be cut"),
        "{shown}"
    );
    let ran = filter.run(attach)?;
    ensure!(
        ran.code != Some(0)
            && ran
                .stderr
                .contains("the only connection to TCP 4001, 4002 would be cut")
            && ran.stderr.contains("add it to the list `control-plane`"),
        "{ran}"
    );
    exchange(&mut cut, PATIENCE)?;
    filter.ok(&forced)?;
    filter.cuts(&mut cut)?;
    exchange(&mut api, PATIENCE)?;
    // A port of all lists that gets a guard is closed to the others, and says so.
    filter.write_config(guard.replace("4002", "6443"))?;
    let ran = filter.run(attach)?;
    ensure!(
        ran.stderr
            .contains("closes TCP 6443 to all but this node and the list `control-plane`"),
        "{ran}"
    );
    // A list that takes the control plane out of its port.
    filter.write_config(GUARD)?;
    filter.ok(&forced)?;
    let mut peer = site.unlisted_gets_in(Family::V4, ETCD)?;
    let set = ["ranges", "set", "--list", "control-plane", "192.0.2.99"];
    let ran = filter.run(&set)?;
    ensure!(
        ran.code != Some(0)
            && ran
                .stderr
                .contains("cluster node (etcd peer), port of the list `control-plane`"),
        "{ran}"
    );
    exchange(&mut peer, PATIENCE)?;
    filter.ok(&[&set[..], &["--force"]].concat())?;
    filter.cuts(&mut peer)
}

#[test]
fn a_guard_needs_its_lists() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    let delete = ["ranges", "delete", "--list", "control-plane"];
    refused(
        &filter.run(&delete)?,
        INPUT,
        &["delete list `control-plane`: the guard of TCP 2379, 2380 uses it"],
    )?;
    filter.write_config(GUARD.replace("control-plane", "none"))?;
    for words in [&ATTACH[..3], &[&ATTACH[..3], &["--dry-run"]].concat()] {
        let ran = filter.run(words)?;
        refused(
            &ran,
            INPUT,
            &["guard TCP 2379, 2380: list `none` is missing"],
        )?;
        ensure!(ran.stderr.contains("ranges set --list none CIDR"), "{ran}");
    }
    each_reaches_its_own(&site, &filter)?;
    filter.ok(&["ranges", "set", "--list", "none", ADMIN[0]])?;
    filter.ok(&[&ATTACH[..3], &["--force"]].concat())?;
    site.admin_gets_in(Family::V4, ETCD)?;
    site.unlisted_is_dropped(Family::V4, ETCD, &filter)?;
    filter.ok(&delete)?;
    site.unlisted_is_dropped(Family::V4, API, &filter)?;
    // On trial, and back.
    let words = [
        "ranges",
        "--list",
        "none",
        "add",
        UNLISTED[0],
        "--confirm-within",
        "1h",
    ];
    filter.ok(&words)?;
    site.unlisted_gets_in(Family::V4, ETCD)?;
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_is_dropped(Family::V4, ETCD, &filter)
}

/// Sources in the list before a change, and after it.
const OLD: &str = "192.0.2.71";
const NEW: &str = "192.0.2.72";

#[test]
fn a_change_that_is_killed_opens_each_port_or_none() -> Result<()> {
    let (_site, filter, _servers) = guarded()?;
    let folder = tempfile::tempdir()?;
    let calls = "bpf,fsync,renameat,rename,linkat,link,unlink,write";
    let list = ["ranges", "--list", "control-plane"];
    let (mut old, mut new) = (0, 0);
    // With a guard more or less, the slots have other maps.
    let configs = [
        GUARD.to_owned(),
        format!("{GUARD}{}", GUARD.replace("2379, 2380", "4001")),
    ];
    // Each third call: the suite `transaction` kills a change of the ranges file at every one.
    for number in (1..).step_by(3) {
        filter.write_config(&configs[number % 2])?;
        filter.ok(&[&ATTACH[..3], &["--force"]].concat())?;
        filter.ok(&[&list[..], &["set", OLD, "--force"]].concat())?;
        let log = folder.path().join("strace");
        let inject = format!("inject={calls}:signal=SIGKILL:when={number}");
        let by = strace(&log, &[&format!("trace={calls}"), &inject]);
        let ran = filter.run_by(by, &[&list[..], &["set", NEW]].concat())?;
        if !fs::read_to_string(&log)?.contains("killed by SIGKILL") {
            break;
        }
        let step = || format!("killed at call {number}: {ran}");
        // The next writer completes or takes back what was half done.
        filter.ok(&[&list[..], &["set", OLD, "--dry-run", "--force"]].concat())?;
        let sources = [OLD, NEW]
            .map(|source| [API, ETCD].map(|port| is_in(&filter, source, port).unwrap_or_default()));
        match sources {
            [[true, true], [false, false]] => old += 1,
            [[false, false], [true, true]] => new += 1,
            mixed => bail!("{}: {mixed:?}", step()),
        }
        ensure!(!is_in(&filter, ADMIN[0], ETCD)?, "{}", step());
        filter.until_status("drift", json!([])).with_context(step)?;
    }
    ensure!(
        old > 10 && new > 2,
        "{old} times the old list, {new} times the new"
    );
    Ok(())
}
