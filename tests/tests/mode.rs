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

/// A site with a server, and the filter attached with [`LIST`] and these flags.
fn attached(flags: &[&str]) -> Result<(Site, Apifence, Echo)> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    filter.ok(&[&ATTACH[..], flags].concat())?;
    Ok((site, filter, server))
}

/// The contents of the ranges file and the number of lists in its history.
fn files(filter: &Apifence) -> Result<(String, usize)> {
    Ok((filter.list()?, filter.history()?.len()))
}

#[test]
fn the_mode_changes_alone_and_stays() -> Result<()> {
    let (site, filter, _server) =
        attached(&["--cluster-cidrs", "10.0.0.0/8", "--mode", "monitor"])?;
    let before = files(&filter)?;
    let config = || filter.status("origins");
    let origins = config()?;
    let unchanged = || -> Result<()> {
        ensure!(files(&filter)? == before, "the list was touched");
        assert_eq!(config()?, origins);
        assert_eq!(filter.status("ports")?, json!([6443, 9345]));
        assert_eq!(filter.status("drift")?, json!([]));
        Ok(())
    };
    let enforces = |state| -> Result<()> {
        assert_eq!(filter.status("state")?, state);
        unchanged()?;
        if state == "enforcing" {
            site.unlisted_is_dropped(Family::V6, PORT, &filter)?;
        } else {
            site.unlisted_gets_in(Family::V6, PORT)?;
        }
        site.admin_gets_in(Family::V4, PORT).map(drop)
    };
    let mut said = Vec::new();
    for (verb, state) in [("enforce", "enforcing"), ("monitor", "monitoring")] {
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
        enforces(state)?;
        // Repeating it changes nothing.
        let generation = filter.status("generation")?;
        said.push(filter.run(&[verb])?.succeeded()?);
        assert_eq!(filter.status("generation")?, generation);
        // A bare `attach` keeps the mode, over a reboot as well.
        let again = filter.run(&ATTACH[..3])?.succeeded()?;
        ensure!(!again.stderr.contains("(was "), "{again}");
        enforces(state)?;
        filter.boot()?;
        filter.ok(&ATTACH[..3])?;
        enforces(state)?;
        filter.boot()?;
        let mut run = filter.start_run(&["--interface", INTERFACE])?;
        enforces(state)?;
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
    let (site, filter, _server) = attached(&[])?;
    let mut run = filter.start(&["run", "--interface", INTERFACE])?;
    // It has compared the policy with its files.
    run.line(|line| line.contains("in force: "))?;
    for verb in ["monitor", "enforce"] {
        filter.ok(&[verb])?;
        let generation = filter.status("generation")?;
        run.line(|line| line.contains("` by root: mode "))?;
        // It reads its files again, without a change to make.
        run.signal(Signal::SIGHUP)?;
        filter.write_config(format!("# {verb}\n"))?;
        filter.write_list(format!("{LIST}# {verb}\n192.0.2.77\n"))?;
        run.line(|line| line.contains("ranges file applied"))?;
        ensure!(filter.status("generation")? != generation);
        filter.write_list(LIST)?;
        run.line(|line| line.contains("ranges file applied"))?;
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
    assert_eq!(filter.status("state")?, "monitoring");
    Ok(())
}

/// A mode that `run` or the next start would undo is refused.
#[test]
fn the_source_of_another_mode_is_named() -> Result<()> {
    let (site, filter, _server) = attached(&[])?;
    let run = ["run", "--interface", INTERFACE];
    let place = format!("{}:2", filter.config_file().display());

    filter.write_config("# ours\nmode = 'enforce'\n")?;
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
    filter.write_config("# ours\nmode = 'monitor'\n")?;
    daemon.line(|line| line.contains("config applied"))?;
    let ran = filter.run(&["monitor"])?.succeeded()?;
    ensure!(ran.stderr.contains("already"), "{ran}");
    drop(daemon);
    filter.write_config("")?;
    filter.ok(&["enforce"])?;

    let mut daemon = filter.start(&[&run[..], &["--mode", "enforce"]].concat())?;
    daemon.line(|line| line.contains("guarding"))?;
    let ran = filter.run(&["monitor"])?;
    refused(&ran, INPUT, &["`apifence run` (pid ", "flag --mode"])?;
    drop(daemon);

    let mut command = filter.command(&run);
    command.env("APIFENCE_MODE", "enforce");
    command.stderr(std::process::Stdio::null());
    let daemon = Killed(site.node.spawn(&mut command)?);
    until("it is on watch", || {
        let ran = filter.run(&["monitor"])?;
        let named = refused(
            &ran,
            INPUT,
            &["`apifence run` (pid ", "environment APIFENCE_MODE"],
        );
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
    filter.write_config("mode = 'monitor'\n")?;
    filter.ok(&ATTACH[..3])?;
    filter.write_config("")?;
    ensure!(filter.status("drift")? != json!([]));
    filter.ok(&["monitor"])?;
    assert_eq!(filter.status("drift")?, json!([]));
    filter.ok(&ATTACH[..3])?;
    assert_eq!(filter.status("state")?, "monitoring");
    // With a broken file the command works nevertheless.
    filter.ok(&["enforce"])?;
    filter.write_config("mode = \n")?;
    filter.ok(&["monitor"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn a_mode_on_trial_goes_back_by_itself() -> Result<()> {
    let (site, filter, _server) = attached(&["--mode", "monitor"])?;
    let before = files(&filter)?;
    let ran = filter
        .run(&["enforce", "--confirm-within", "1h"])?
        .succeeded()?;
    ensure!(ran.stderr.contains("on trial for"), "{ran}");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    for words in [
        &["enforce"][..],
        &["monitor"],
        &["ranges", "reload"],
        &ATTACH[..3],
    ] {
        refused(&filter.run(words)?, FAILED, &["is on trial"])?;
    }
    lapse(&filter)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.status("state")?, "monitoring");
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
    assert_eq!(filter.status("provisional")?, json!(null));
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
    let (site, filter, _server) = attached(&[])?;
    let edited = "203.0.113.0/24 # not yet\n198.51.100.0/24\n";
    for text in [edited, "disabled\n", "203.0.113.0/24x\n"] {
        filter.write_list(text)?;
        filter.ok(&["monitor"])?;
        filter.ok(&["enforce", "--confirm-within", "1h"])?;
        filter.ok(&["confirm"])?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        site.admin_gets_in(Family::V6, PORT)?;
        assert_eq!(filter.list()?, text);
    }
    // After a reboot with that file, the last policy holds in its mode.
    filter.ok(&["monitor"])?;
    filter.boot()?;
    let run = filter.start_run(&["--interface", INTERFACE])?;
    assert_eq!(filter.status("state")?, "monitoring");
    filter.ok(&["enforce"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V6, PORT)?;
    drop(run);

    // The list is in no file now.
    fs::remove_file(filter.ranges_file())?;
    drop(fs::remove_dir_all(filter.state_dir()));
    refused(
        &filter.run(&["monitor"])?,
        FAILED,
        &["neither the ranges file nor the history"],
    )?;
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
    filter.write_list("disabled\n")?;
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
    let (site, filter, _server) = attached(&["--mode", "monitor"])?;
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
        assert_eq!(filter.status("state")?, "monitoring");
    }
    let output = site
        .node
        .output(&mut filter.command(&["-o", "json", "enforce", "--dry-run"]))?;
    assert_eq!(output.status.code(), Some(INPUT));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        shown["refused"]
            .as_str()
            .is_some_and(|why| why.contains("would be cut")),
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
    let (site, filter, _server) = attached(&["--mode", "monitor"])?;
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
            let now = filter.status("state")?;
            match now.as_str() {
                Some("enforcing") => made += 1,
                Some("monitoring") => not_made += 1,
                _ => anyhow::bail!("{words:?} killed at {number}: {now}"),
            }
            site.admin_gets_in(Family::V4, PORT)?;
            ensure!(files(&filter)? == before, "{words:?} killed at {number}");
            if !filter.status("provisional")?.is_null() {
                filter.ok(&["ranges", "rollback"])?;
            }
            filter.ok(&["monitor"])?;
            assert_eq!(filter.status("state")?, "monitoring");
        }
        if !filter.status("provisional")?.is_null() {
            filter.ok(&["ranges", "rollback"])?;
        }
        filter.ok(&["monitor"])?;
    }
    ensure!(made > 2 && not_made > 6, "{made} made, {not_made} not");
    Ok(())
}
