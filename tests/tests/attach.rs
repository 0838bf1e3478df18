//! The changes that `attach` announces, its exit status, and its deadline.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use tests::{
    cli::{INPUT, Ran, refused},
    site::{ADMIN, Family, INTERFACE, Site, UNLISTED},
    strace::{NO_LOG, strace},
    wait::until,
};

mod snapshot;

use snapshot::same;

const PORT: u16 = 9345;
const LIST: &str = "# ours\n198.51.100.0/24 # the office\n2001:db8:aa::/48\n";
const ATTACH: [&str; 5] = ["attach", "--interface", INTERFACE, "--port", "6443,9345"];

/// The time of a trial starts at the activation, however long that takes.
#[test]
fn deadlines_count_from_the_activation() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    let layout = format!("layout-{}", filter_common::layout::LAYOUT_VERSION);
    let number = site.node.ifindex(INTERFACE)?.to_string();
    let interfaces = filter.bpffs().join(layout).join("interfaces").join(number);
    // Attaching takes four seconds, longer than the trial.
    let slowly = |words: &[&str]| -> Result<(Timestamp, Ran)> {
        let delay = "inject=mkdir,openat:delay_enter=4000000:when=1";
        let mut strace = strace(NO_LOG, &["trace=mkdir,openat", delay]);
        strace.arg("-P").arg(&interfaces);
        let start = Timestamp::now();
        Ok((start, filter.run_by(strace, words)?.succeeded()?))
    };
    let attach = [&ATTACH[..], &["--confirm-within", "2s"]].concat();
    let (start, ran) = slowly(&attach)?;
    let until_then = deadline(&ran)?;
    let least = start.as_second() + 4 + 2 - 1;
    ensure!(until_then.as_second() >= least, "from {start}: {ran}");
    until("the port is open again", || {
        Ok(site.unlisted_gets_in(Family::V4, PORT).is_ok())
    })?;
    ensure!(Timestamp::now().as_second() >= until_then.as_second() - 1);
    Ok(())
}

/// Time at which the started trial ends.
fn deadline(ran: &Ran) -> Result<Timestamp> {
    let words = ran.stderr.split(", until ").nth(1);
    let time = words.and_then(|words| words.split(": ").next());
    Ok(time.with_context(|| ran.to_string())?.parse()?)
}

#[test]
fn attach_shows_its_changes_before_and_after() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    filter.ok(&ATTACH)?;
    let mut said = Vec::new();
    let more = ["--port", "6443,9345,8443", "--authorized-ip-ranges"];
    let list = [ADMIN[0], UNLISTED[0], ADMIN[1]].join(",");
    let words = [&ATTACH[..3], &more, &[&list]].concat();
    let dry = [&words[..], &["--dry-run"]].concat();
    let shown = filter.run(&dry)?.succeeded()?;
    for line in ["+203.0.113.9/32", "-198.51.100.0/24", "ports would be"] {
        ensure!(shown.stdout.contains(line), "{shown}");
    }
    said.push(shown);
    let object = filter.json(&dry)?;
    assert_eq!(object["dry_run"], true);
    assert_eq!(object["refused"], json!(null));
    assert_eq!(object["settings"][0]["key"], "ports");
    assert_eq!(object["settings"][0]["now"], "6443, 8443, 9345");
    assert_eq!(object["settings"][0]["was"], "6443, 9345");
    assert_eq!(object["added"].as_array().map(Vec::len), Some(3));
    assert_eq!(object["removed"].as_array().map(Vec::len), Some(2));
    assert_eq!(object["interfaces"][0]["interface"], INTERFACE);
    assert_eq!(filter.list()?, LIST);
    let same_again = [&ATTACH[..3], &["--dry-run"]].concat();
    said.extend(filter.run_all(&[&words, &same_again])?);
    ensure!(said.iter().all(|ran| ran.code == Some(0)), "{said:?}");
    // A dry run refuses the same input.
    let _open = site.unlisted_gets_in(Family::V4, PORT)?;
    let cuts = ["--authorized-ip-ranges", "192.0.2.77"];
    for words in [
        [&ATTACH[..3], &cuts].concat(),
        [&ATTACH[..3], &["--port", "443"]].concat(),
        [&ATTACH[..3], &["--port", "443"], &cuts].concat(),
    ] {
        let real = filter.run(&words)?;
        let dry = filter.run(&[&words[..], &["--dry-run"]].concat())?;
        for ran in [&real, &dry] {
            refused(ran, INPUT, &[])?;
            ensure!(ran.stderr.starts_with("refused: "), "{ran}");
            ensure!(ran.stderr.contains("would"), "{ran}");
        }
        assert_eq!(real.stderr, dry.stderr);
        said.push(real);
    }
    site.unlisted_gets_in(Family::V4, PORT)?;
    let output = [
        &["-o", "json"],
        &ATTACH[..3],
        &["--port", "443", "--dry-run"],
    ]
    .concat();
    let output = site.node.output(&mut filter.command(&output))?;
    assert_eq!(output.status.code(), Some(INPUT));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        shown["refused"]
            .as_str()
            .is_some_and(|why| why.contains("opens TCP 6443")),
        "{shown:#}"
    );
    same("what-attach-would-change", &filter, &said);
    Ok(())
}

/// The exit status is that of the change, and not that of its output.
#[test]
fn a_change_is_made_where_output_cannot_be_written() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(LIST)?;
    let attach = [&["-o", "json"], &ATTACH[..]].concat();
    for (words, state) in [
        (&attach[..], "enforcing"),
        (&["-o", "json", "monitor"], "monitoring"),
    ] {
        let mut command = filter.command(words);
        command.stdin(std::process::Stdio::null());
        command.stdout(fs::File::options().write(true).open("/dev/full")?);
        command.stderr(std::process::Stdio::piped());
        let output = site.node.spawn(&mut command)?.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(0)
                && said.contains("no space left on device: the change is made"),
            "{words:?}: {output:?}"
        );
        assert_eq!(filter.status("state")?, state);
    }
    Ok(())
}

/// systemd and udev give alternative names, which `ip` accepts everywhere. A command or file that
/// uses one gets the real name in the error.
#[test]
fn an_alternative_name_leads_to_the_name_of_the_interface() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(LIST)?;
    site.node
        .ip(&format!("link property add dev {INTERFACE} altname wwx7"))?;
    let other = format!("another name of `{INTERFACE}`");
    for command in ["attach", "detach"] {
        let ran = filter.run(&[command, "--interface", "wwx7"])?;
        refused(&ran, INPUT, &["no such interface"])?;
        ensure!(ran.stderr.contains(&other), "{ran}");
    }
    for printed in [format!("{INTERFACE}@if12345"), format!("{INTERFACE}:1")] {
        let ran = filter.run(&["attach", "--interface", &printed])?;
        refused(&ran, INPUT, &["no such interface"])?;
        ran.stderr_has(&[&format!("did you mean `{INTERFACE}`?")])?;
    }
    filter.write_config("interfaces = [\"wwx7\"]\n")?;
    let mut daemon = filter.start(&["run"])?;
    daemon.line(|line| line.contains("`wwx7` does not exist") && line.contains(&other))?;
    drop(daemon);
    filter.ok(&["attach", "--interface", INTERFACE])?;
    let status = filter.ok(&["status"])?;
    ensure!(status.contains(&other), "{status}");
    Ok(())
}
