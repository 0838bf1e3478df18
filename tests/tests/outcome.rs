//! The result of a change is in its exit status and its first word, whatever fails.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    cli::{FAILED, INPUT, Ran, refused},
    net::Echo,
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
    strace::{NO_LOG, strace},
};

const PORT: u16 = 6443;

/// A list that is in force counts as success, even if the output cannot be written.
#[test]
fn the_exit_status_is_that_of_the_change() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let full = |arguments: &[&str]| -> Result<Ran> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" > /dev/full", "sh"]);
        filter.run_by(shell, &[&["-o", "json"], arguments].concat())
    };
    let ran = full(&["ranges", "add", UNLISTED[0]])?.succeeded()?;
    ran.stderr_has(&["the change is made"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    // A dry run has only its output, so it failed.
    let ran = full(&["ranges", "remove", UNLISTED[0], "--dry-run"])?;
    ensure!(ran.code == Some(FAILED), "{ran}");
    filter.ok(&["ranges", "remove", UNLISTED[0], "--confirm-within", "1h"])?;
    let ran = full(&["confirm"])?.succeeded()?;
    ran.stderr_has(&["the change is confirmed"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

/// The same for a filter that is off.
#[test]
fn a_filter_that_is_off_is_off_where_output_cannot_be_written() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    for interface in [&[][..], &["--interface", INTERFACE]] {
        filter.ok(&ATTACH)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" > /dev/full", "sh"]);
        let ran = filter
            .run_by(shell, &[&["-o", "json", "detach"], interface].concat())?
            .succeeded()?;
        ran.stderr_has(&["the filter is detached"])?;
        ensure!(filter.status("state")? == "detached", "{ran}");
    }
    Ok(())
}

/// Every call to the kernel in a change fails once: exit status 0 means that the change is in
/// force.
#[test]
fn the_exit_status_shows_a_failed_call() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let mut failures = 0;
    for (command, undo) in [
        (
            &["ranges", "add", UNLISTED[0]][..],
            &["ranges", "set", ADMIN_RANGES][..],
        ),
        (
            &["ranges", "add", UNLISTED[0], "--confirm-within", "1h"],
            &["ranges", "rollback"],
        ),
    ] {
        let generation = || -> Result<Value> {
            let list = filter.json(&["ranges", "list"])?;
            let ranges = list["ranges"].as_array().cloned().unwrap_or_default();
            Ok(ranges
                .iter()
                .any(|row| row["range"] == "203.0.113.9/32")
                .into())
        };
        for call in (1..).step_by(3) {
            let inject = format!("inject=bpf:error=EIO:when={call}");
            let strace = strace(NO_LOG, &["trace=bpf", &inject]);
            let ran = filter.run_by(strace, command)?;
            let is_listed = generation()? == json!(true);
            ensure!(
                (ran.code == Some(0)) == is_listed,
                "call {call}: listed {is_listed}; {ran}"
            );
            if is_listed {
                filter.ok(undo)?;
            }
            if ran.code == Some(0) && !ran.stderr.contains("warning") {
                break;
            }
            failures += usize::from(ran.code != Some(0));
            ensure!(call < 600, "no end");
        }
    }
    ensure!(failures > 10, "{failures} failures");
    Ok(())
}

#[test]
fn a_full_disk_leaves_a_way_to_open() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let folder = tempfile::tempdir()?;
    let mount = ["-t", "tmpfs", "-o", "size=64k", "none"];
    let mounted = Command::new("mount")
        .args(mount)
        .arg(folder.path())
        .status()?;
    ensure!(mounted.success());
    let filter = filter.with_ranges_file(folder.path().join("ranges"));
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    // All of it.
    let _ = fs::write(folder.path().join("full"), vec![0; 1 << 20]);
    let ran = filter.run(&["ranges", "clear"])?;
    refused(&ran, FAILED, &["write ranges file"])?;
    ensure!(ran.stderr.contains("`apifence monitor`"), "{ran}");
    // The output claims nothing that was not done.
    for arguments in [
        &["ranges", "clear"][..],
        &["ranges", "add", UNLISTED[0]],
        &["ranges", "add", UNLISTED[0], "--confirm-within", "1h"],
        &[&ATTACH[..3], &["--authorized-ip-ranges", UNLISTED[0]]].concat(),
    ] {
        let ran = filter.run(arguments)?;
        refused(
            &ran,
            FAILED,
            &["write ranges file", "no space left on device"],
        )?;
        ensure!(ran.stderr.starts_with("error: "), "{ran}");
    }
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["monitor"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    Ok(())
}

#[test]
fn a_refusal_reads_as_one() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let _admin = site.admin_gets_in(Family::V4, PORT)?;
    for dry in [&[][..], &["--dry-run"]] {
        let command = [&["ranges", "set", "192.0.2.0/24"], dry].concat();
        let ran = filter.run(&command)?;
        refused(&ran, INPUT, &[])?;
        ensure!(ran.stderr.starts_with("refused: "), "{ran}");
        ran.stderr_has(&["would be cut"])?;
        ran.stderr_lacks(&["are cut"])?;
        let output = filter.run(&[&["-o", "json"], &command[..]].concat())?;
        ensure!(output.code == Some(INPUT), "{output}");
        let change: Value = serde_json::from_str(&output.stdout)?;
        ensure!(
            change["refused"].is_string() && change["cut"].as_array().map(Vec::len) == Some(1),
            "{change:#}"
        );
    }
    let ran = filter.run(&["ranges", "set", "192.0.2.0/24", "--dry-run", "--force"])?;
    ensure!(
        ran.code == Some(0) && ran.stdout.contains("would be cut"),
        "{ran}"
    );
    site.admin_gets_in(Family::V4, PORT).map(drop)
}
