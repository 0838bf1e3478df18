//! `enforce` and `monitor` change only the mode, until another command changes it.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::{
    cli::{Apifence, FAILED, INPUT, Killed, Ran, refused},
    config_map::ConfigMap,
    loaded::lapse,
    net::Echo,
    site::{ADMIN_RANGES, Family, INTERFACE, Site, UNLISTED},
    strace::{NO_LOG, strace},
    wait::until,
};

mod snapshot;

use snapshot::same;

const PORT: u16 = 9345;
const LIST: &str = "# ours\n198.51.100.0/24 # the office\n2001:db8:aa::/48\n";
const ATTACH: [&str; 5] = ["attach", "--interface", INTERFACE, "--port", "6443,9345"];

fn status(filter: &Apifence, key: &str) -> Result<serde_json::Value> {
    Ok(filter.json(&["status"])?[key].clone())
}

/// The contents of the ranges file and its history.
fn files(filter: &Apifence) -> Result<(String, usize)> {
    let history = filter.json(&["ranges", "history"])?;
    let lists = history["lists"].as_array().map_or(0, Vec::len);
    Ok((fs::read_to_string(filter.ranges_file())?, lists))
}

#[test]
fn the_mode_changes_alone_and_stays() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&[
        &ATTACH[..],
        &["--cluster-cidrs", "10.0.0.0/8", "--mode", "monitor"],
    ]
    .concat())?;
    let before = files(&filter)?;
    let config = || filter.status("origins");
    let origins = config()?;
    let unchanged = || -> Result<()> {
        ensure!(files(&filter)? == before, "the list was touched");
        assert_eq!(config()?, origins);
        assert_eq!(status(&filter, "ports")?, json!([6443, 9345]));
        assert_eq!(status(&filter, "drift")?, json!([]));
        Ok(())
    };
    let enforces = |says| -> Result<()> {
        assert_eq!(status(&filter, "state")?, says);
        unchanged()?;
        if says == "enforcing" {
            site.unlisted_is_dropped(Family::V6, PORT, &filter)?;
        } else {
            site.unlisted_gets_in(Family::V6, PORT)?;
        }
        site.admin_gets_in(Family::V4, PORT).map(drop)
    };
    let mut said = Vec::new();
    for (verb, says) in [("enforce", "enforcing"), ("monitor", "monitoring")] {
        let other = if verb == "enforce" {
            "monitoring"
        } else {
            "enforcing"
        };
        let shown = filter.run(&[verb, "--dry-run"])?.succeeded()?;
        ensure!(shown.stdout.contains("mode would be"), "{shown}");
        said.push(shown);
        enforces(other)?;
        // The server has noticed the end of its clients.
        until("no connection is left", || {
            let shown = filter.json(&[verb, "--dry-run"])?;
            Ok(shown["cut"] == serde_json::json!([]))
        })?;
        said.push(filter.run(&[verb])?.succeeded()?);
        enforces(says)?;
        // Repeating it changes nothing.
        let generation = status(&filter, "generation")?;
        said.push(filter.run(&[verb])?.succeeded()?);
        assert_eq!(status(&filter, "generation")?, generation);
        // A bare `attach` keeps the mode, over a reboot as well.
        let again = filter.run(&ATTACH[..3])?.succeeded()?;
        ensure!(!again.stderr.contains("(was "), "{again}");
        enforces(says)?;
        filter.boot()?;
        filter.ok(&ATTACH[..3])?;
        enforces(says)?;
        filter.boot()?;
        let mut run = filter.start_run(&["--interface", INTERFACE])?;
        enforces(says)?;
        run.signal(Signal::SIGTERM)?;
        run.wait()?;
    }
    let changed = filter.json(&["enforce"])?;
    assert_eq!(changed["mode"], "enforce");
    assert_eq!(changed["was"], "monitor");
    assert_eq!(changed["settings"][0]["key"], "mode");
    assert_eq!(changed["settings"][0]["was"], "monitor");
    assert_eq!(changed["dry_run"], false);
    same("modes", &filter, &said);
    Ok(())
}

#[test]
fn a_run_that_is_up_goes_on_in_the_mode() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&ATTACH)?;
    let mut run = filter.start(&["run", "--interface", INTERFACE])?;
    // It has compared the policy with its files.
    run.line(|line| line.contains("in force: "))?;
    for verb in ["monitor", "enforce"] {
        filter.ok(&[verb])?;
        let generation = status(&filter, "generation")?;
        run.line(|line| line.contains("` by root: mode "))?;
        // It reads its files again, without a change to make.
        run.signal(Signal::SIGHUP)?;
        fs::write(filter.config_file(), format!("# {verb}\n"))?;
        fs::write(
            filter.ranges_file(),
            format!("{LIST}# {verb}\n192.0.2.77\n"),
        )?;
        run.line(|line| line.contains("the ranges file is in force"))?;
        ensure!(status(&filter, "generation")? != generation);
        fs::write(filter.ranges_file(), LIST)?;
        run.line(|line| line.contains("the ranges file is in force"))?;
        if verb == "monitor" {
            site.unlisted_gets_in(Family::V4, PORT)?;
        } else {
            site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        }
    }
    filter.ok(&["monitor"])?;
    run.line(|line| line.contains("` by root: mode "))?;
    drop(run);
    filter.boot()?;
    let _run = filter.start_run(&["--interface", INTERFACE])?;
    assert_eq!(status(&filter, "state")?, "monitoring");
    Ok(())
}

/// A mode that `run` or the next start would undo is refused.
#[test]
fn the_source_of_another_mode_is_named() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&ATTACH)?;
    let run = ["run", "--interface", INTERFACE];
    let place = format!("{}:2", filter.config_file().display());

    fs::write(filter.config_file(), "# ours\nmode = 'enforce'\n")?;
    let ran = filter.run(&["monitor"])?;
    refused(&ran, INPUT, &[&place, "mode = \"enforce\""])?;
    ensure!(ran.stderr.contains("`apifence attach`"), "{ran}");
    let mut daemon = filter.start(&run)?;
    daemon.line(|line| line.contains("guarding"))?;
    for words in [
        &["monitor"][..],
        &["monitor", "--dry-run"],
        &["monitor", "--force"],
    ] {
        let ran = filter.run(words)?;
        refused(&ran, INPUT, &[&place, "follows that file"])?;
        ensure!(ran.stderr.contains("within a second"), "{ran}");
    }
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // The hint works; then the file agrees.
    fs::write(filter.config_file(), "# ours\nmode = 'monitor'\n")?;
    daemon.line(|line| line.contains("the config file is in force"))?;
    let ran = filter.run(&["monitor"])?.succeeded()?;
    ensure!(ran.stderr.contains("already"), "{ran}");
    drop(daemon);
    fs::write(filter.config_file(), "")?;
    filter.ok(&["enforce"])?;

    let mut daemon = filter.start(&[&run[..], &["--mode", "enforce"]].concat())?;
    daemon.line(|line| line.contains("guarding"))?;
    let ran = filter.run(&["monitor"])?;
    refused(&ran, INPUT, &["process", "flag --mode"])?;
    drop(daemon);

    let mut command = filter.command(&run);
    command.env("APIFENCE_MODE", "enforce");
    command.stderr(std::process::Stdio::null());
    let daemon = Killed(site.node.spawn(&mut command)?);
    until("it is on watch", || {
        let ran = filter.run(&["monitor"])?;
        let named = refused(&ran, INPUT, &["process", "environment APIFENCE_MODE"]);
        if named.is_err() {
            filter.ok(&["enforce"])?;
        }
        Ok(named.is_ok())
    })?;
    drop(daemon);

    // The command's own environment causes a warning, and the command takes precedence.
    let mut command = filter.command(&["monitor"]);
    command.env("APIFENCE_MODE", "enforce");
    let ran = Ran::new(&["monitor"], &site.node.output(&mut command)?).succeeded()?;
    ran.stderr_has(&["warning: environment APIFENCE_MODE"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    // A mode that the file has lost does not count either.
    fs::write(filter.config_file(), "mode = 'monitor'\n")?;
    filter.ok(&ATTACH[..3])?;
    fs::write(filter.config_file(), "")?;
    ensure!(status(&filter, "drift")? != json!([]));
    filter.ok(&["monitor"])?;
    assert_eq!(status(&filter, "drift")?, json!([]));
    filter.ok(&ATTACH[..3])?;
    assert_eq!(status(&filter, "state")?, "monitoring");
    // With a broken file the command works nevertheless.
    filter.ok(&["enforce"])?;
    fs::write(filter.config_file(), "mode = \n")?;
    filter.ok(&["monitor"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn a_mode_on_trial_goes_back_by_itself() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    let before = files(&filter)?;
    let ran = filter
        .run(&["enforce", "--confirm-within", "1h"])?
        .succeeded()?;
    ensure!(ran.stderr.contains("the mode before returns"), "{ran}");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    for words in [
        &["enforce"][..],
        &["monitor"],
        &["ranges", "reload"],
        &ATTACH[..3],
    ] {
        refused(&filter.run(words)?, FAILED, &["waits for its confirmation"])?;
    }
    lapse(&filter)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(status(&filter, "state")?, "monitoring");
    ensure!(files(&filter)?.0 == before.0);

    // A trial that is taken back while `run` is up, and one that is confirmed.
    let mut run = filter.start(&["run", "--interface", INTERFACE])?;
    run.line(|line| line.contains("in force: "))?;
    let trial = ["enforce", "--confirm-within", "1h"];
    filter.ok(&trial)?;
    run.line(|line| line.contains("on trial"))?;
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&trial)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let ran = filter.run(&["confirm"])?.succeeded()?;
    ensure!(ran.stderr.contains("the mode is enforce"), "{ran}");
    assert_eq!(status(&filter, "provisional")?, json!(null));
    drop(run);
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(files(&filter)?.0 == before.0);
    // The other mode as well; and a reboot ends a trial.
    filter.ok(&["monitor", "--confirm-within", "1h"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

/// Neither needs a writable ranges file.
#[test]
fn a_mode_change_does_not_need_a_writable_list() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let map = ConfigMap::new(LIST)?;
    let filter = filter.with_ranges_file(map.file());
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    filter.ok(&["enforce", "--confirm-within", "1h"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["confirm"])?;
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["monitor"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

/// An edit that is not in force stays an edit.
#[test]
fn the_mode_brings_no_edited_list_into_force() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&ATTACH)?;
    let edited = "203.0.113.0/24 # not yet\n198.51.100.0/24\n";
    for text in [edited, "disabled\n", "203.0.113.0/24x\n"] {
        fs::write(filter.ranges_file(), text)?;
        filter.ok(&["monitor"])?;
        filter.ok(&["enforce", "--confirm-within", "1h"])?;
        filter.ok(&["confirm"])?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        site.admin_gets_in(Family::V6, PORT)?;
        assert_eq!(fs::read_to_string(filter.ranges_file())?, text);
    }
    // After a reboot with that file, the last policy holds in its mode.
    filter.ok(&["monitor"])?;
    filter.boot()?;
    let run = filter.start_run(&["--interface", INTERFACE])?;
    assert_eq!(status(&filter, "state")?, "monitoring");
    filter.ok(&["enforce"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V6, PORT)?;
    drop(run);

    // The list is in no file now.
    fs::remove_file(filter.ranges_file())?;
    let history = filter.ranges_file().with_file_name("ranges.history");
    drop(fs::remove_dir_all(history));
    drop(fs::remove_dir_all(filter.state_dir()));
    refused(&filter.run(&["monitor"])?, FAILED, &["in no file"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn where_the_mode_changes_nothing_that_is_said() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut said = filter.run_all(&[&["enforce"], &["monitor"]])?;
    for ran in &said {
        refused(ran, FAILED, &["no filter is attached"])?;
        ensure!(ran.stderr.contains("`apifence attach`"), "{ran}");
    }
    fs::write(filter.ranges_file(), "disabled\n")?;
    filter.ok(&ATTACH)?;
    let ran = filter.run(&["enforce"])?;
    refused(&ran, INPUT, &["disabled"])?;
    ran.stderr_has(&["ranges set", "rollback"])?;
    said.push(ran);
    // With the next list no packet is dropped yet.
    said.push(filter.run(&["monitor"])?.succeeded()?);
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["enforce"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["detach"])?;

    // A fresh installation has no list to enforce.
    fs::remove_file(filter.ranges_file())?;
    drop(fs::remove_dir_all(
        filter.ranges_file().with_file_name("ranges.history"),
    ));
    fs::remove_dir_all(filter.state_dir())?;
    let _run = filter.start_run(&["--interface", INTERFACE])?;
    let ran = filter.run(&["enforce", "--force"])?;
    refused(&ran, INPUT, &["no list yet"])?;
    said.push(ran);
    same("modes-that-change-nothing", &filter, &said);
    Ok(())
}

/// Clients that are connected now and would be cut.
#[test]
fn enforcing_refuses_to_cut_every_client() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    let _open = site.unlisted_gets_in(Family::V4, PORT)?;
    for words in [
        &["enforce"][..],
        &["enforce", "--dry-run"],
        &["enforce", "--confirm-within", "1m"],
    ] {
        let ran = filter.run(words)?;
        refused(&ran, INPUT, &[])?;
        ensure!(
            ran.stderr.starts_with("refused: ")
                && ran.stderr.contains(UNLISTED[0])
                && ran.stderr.contains("would be"),
            "{ran}"
        );
        assert_eq!(status(&filter, "state")?, "monitoring");
    }
    let output = site
        .node
        .output(&mut filter.command(&["-o", "json", "enforce", "--dry-run"]))?;
    assert_eq!(output.status.code(), Some(INPUT));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        shown["refused"]
            .as_str()
            .is_some_and(|why| why.contains("every")),
        "{shown:#}"
    );
    ensure!(
        shown["cut"].as_array().is_some_and(|cut| cut.len() == 1),
        "{shown:#}"
    );
    filter.ok(&["enforce", "--force"])?;
    site.unlisted_is_dropped(Family::V6, PORT, &filter)
}

/// Whichever system call is the last, the mode is the old one or the new one, with the same list,
/// and the next command works.
#[test]
fn a_change_of_the_mode_that_is_killed_is_made_or_not_made() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    let before = files(&filter)?;
    let calls = "bpf,fsync,renameat,rename,linkat,link,unlink,write";
    let killed = |words: &[&str], number: usize| -> Result<bool> {
        let kill = format!("inject={calls}:signal=SIGKILL:when={number}");
        let strace = strace(NO_LOG, &[&format!("trace={calls}"), &kill]);
        Ok(filter.run_by(strace, words)?.code.is_none())
    };
    let (mut made, mut not_made) = (0, 0);
    for words in [
        &["enforce"][..],
        &["enforce", "--confirm-within", "1h"],
        &["confirm"],
    ] {
        for number in (1..).step_by(5) {
            if words == ["confirm"] {
                filter.ok(&["enforce", "--confirm-within", "1h"])?;
            }
            if !killed(words, number)? {
                break;
            }
            let now = status(&filter, "state")?;
            match now.as_str() {
                Some("enforcing") => made += 1,
                Some("monitoring") => not_made += 1,
                _ => anyhow::bail!("{words:?} killed at {number}: {now}"),
            }
            site.admin_gets_in(Family::V4, PORT)?;
            ensure!(files(&filter)? == before, "{words:?} killed at {number}");
            if !status(&filter, "provisional")?.is_null() {
                filter.ok(&["ranges", "rollback"])?;
            }
            filter.ok(&["monitor"])?;
            assert_eq!(status(&filter, "state")?, "monitoring");
        }
        if !status(&filter, "provisional")?.is_null() {
            filter.ok(&["ranges", "rollback"])?;
        }
        filter.ok(&["monitor"])?;
    }
    ensure!(made > 2 && not_made > 6, "{made} made, {not_made} not");
    Ok(())
}
