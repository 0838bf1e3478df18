//! A failed or unconfirmed change must not come into force indirectly.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    cli::{Apifence, FAILED, refused, words},
    foreign::Foreign,
    loaded::lapse,
    peer::Peer,
    scrape::{get, until_not_ready, until_ready},
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
    strace::{NO_LOG, strace},
    wait::until,
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";

/// After an unconfirmed first attach, the list is in the file, and there is no filter again: only
/// an explicit command puts it in force.
#[test]
fn an_unconfirmed_first_attach_does_not_return() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    filter.ok(&[&ATTACH[..3], &["--confirm-within", "1h"]].concat())?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("a change is on trial"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    lapse(&filter)?;
    daemon.line(|line| line.starts_with("error: follow files"))?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    until_not_ready(&site.node)?;
    let drift = filter.status("drift")?;
    ensure!(drift != json!([]), "status shows no drift");
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    until_ready(&site.node)
}

#[test]
fn an_attach_that_failed_is_not_completed_by_the_next_command() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    // An interface without native XDP makes the attach fail after the new policy is staged.
    site.node.ip("link add br9 type bridge")?;
    site.node.ip("link set br9 up")?;
    filter.write_list(format!("{LIST}{}\n", UNLISTED[0]))?;
    let monitor = words("--interface br9 --xdp-mode native --mode monitor --force");
    refused(
        &filter.run(&[&ATTACH[..3], &monitor].concat())?,
        FAILED,
        &["br9"],
    )?;
    for look in [
        &["check", UNLISTED[0]][..],
        &["status"],
        &["ranges", "list"],
    ] {
        filter.run(look)?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    }
    ensure!(filter.status("state")? == "enforcing");
    site.admin_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn a_trial_of_an_edited_file_leaves_the_list_before_for_a_reboot() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    filter.write_list(format!("{LIST}{}\n", UNLISTED[0]))?;
    filter.ok(&[&ATTACH[..3], &["--confirm-within", "1h"]].concat())?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, before);
    lapse(&filter)?;
    ensure!(filter.status("provisional")?.is_null());
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.status("drift")? == json!([]));
    Ok(())
}

#[test]
fn a_command_with_another_file_ends_no_trial() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--confirm-within", "1h"])?;
    let pending = filter.ranges_file().with_file_name(".ranges.pending");
    let list = fs::read_to_string(&pending)?;
    // A missing file, one with the old list, and one with the list on trial.
    let files = [None, Some(LIST), Some(list.as_str())];
    let others = files.map(|list| -> Result<Apifence> {
        let other = Apifence::new(&site.node)?;
        if let Some(list) = list {
            other.write_list(list)?;
        }
        Ok(other)
    });
    let mut others = others.into_iter().collect::<Result<Vec<_>>>()?;
    // A link that led to the ranges file, and now leads to a copy of the list on trial.
    let swapped = filter.ranges_file().with_file_name("swapped");
    std::os::unix::fs::symlink(others[2].ranges_file(), &swapped)?;
    others.push(Apifence::new(&site.node)?.with_ranges_file(swapped));
    for other in &others {
        for show in SHOW {
            other.run(show)?;
        }
        for change in [
            &["ranges", "set", "192.0.2.1", "--force"][..],
            &["ranges", "reload", "--force"],
        ] {
            let ran = other.run(change)?;
            ensure!(ran.code != Some(0), "{ran}");
            ensure!(!ran.stderr.contains("complete"), "{ran}");
        }
        let provisional = filter.status("provisional")?;
        ensure!(provisional.is_object(), "the trial was ended");
        ensure!(pending.exists(), "the list on trial is gone");
    }
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

/// Commands that only show.
const SHOW: [&[&str]; 11] = [
    &["init", "--print"],
    &["doctor"],
    &["status"],
    &["check", UNLISTED[0]],
    &["stats"],
    &["top"],
    &["suggest"],
    &["events", "--recent"],
    &["ranges", "list"],
    &["ranges", "history"],
    &["config"],
];

/// They write neither files nor maps and take no lock that another command could wait for, whatever
/// a writer or a deadline left.
#[test]
fn commands_that_show_write_nothing() -> Result<()> {
    const WRITING: [&str; 8] = [
        "_UPDATE_",
        "_DELETE_",
        "BPF_OBJ_PIN",
        "BPF_MAP_CREATE",
        "BPF_PROG_LOAD",
        "LINK_CREATE",
        "O_WRONLY",
        "O_RDWR",
    ];
    let calls = "trace=bpf,open,openat,openat2,creat,flock,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,truncate,ftruncate,utimensat";
    let (_site, filter) = Site::unguarded()?;
    let log = tempfile::NamedTempFile::new()?;
    let add = |time| ["ranges", "add", UNLISTED[0], "--confirm-within", time];
    let mut seen = 0;
    let mut all_read = |when: &str| -> Result<()> {
        for show in SHOW {
            let strace = strace(log.path(), &["signal=none", calls]);
            let ran = filter.run_by(strace, show)?;
            ensure!(
                ran.code == Some(0) || ["check", "doctor"].contains(&show[0]),
                "{when}: {ran}"
            );
            let text = fs::read_to_string(log.path())?;
            for line in text.lines().filter(|line| !line.contains("\"/dev/")) {
                let call = line.split_whitespace().nth(1).unwrap_or_default();
                // The end of a call that another thread's line interrupted.
                let reads = ["bpf(", "open", "<..."]
                    .iter()
                    .any(|begin| call.starts_with(begin));
                ensure!(
                    reads && !WRITING.iter().any(|word| line.contains(word)),
                    "{when}, {show:?}: {line}"
                );
                seen += 1;
            }
        }
        Ok(())
    };
    filter.ok(&ATTACH)?;
    all_read("settled")?;
    filter.ok(&add("1h"))?;
    all_read("on trial")?;
    filter.ok(&["ranges", "rollback"])?;
    filter.ok(&add("1s"))?;
    filter.until_status("provisional", ())?;
    all_read("fallen back")?;
    // A writer that died when its list was in the file.
    let kill = ["trace=fsync", "inject=fsync:signal=SIGKILL:when=1"];
    let mut strace = strace(NO_LOG, &kill);
    // The file has its name by then, and the folder is written to the disk.
    let folder = filter.ranges_file().with_file_name("");
    strace.arg("-P").arg(folder);
    filter.run_by(strace, &["ranges", "add", UNLISTED[0]])?;
    let drift = filter.status("drift")?;
    ensure!(drift != json!([]), "killed too early or too late");
    all_read("half done")?;
    ensure!(seen > 100, "{seen} calls seen");
    Ok(())
}

#[test]
fn no_generation_has_the_number_of_one_before() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let mut numbers = std::collections::BTreeMap::new();
    let mut look = |list: &str| -> Result<()> {
        let generation = filter.status("generation")?.as_u64();
        let before = numbers.insert(generation, list.to_owned());
        ensure!(
            before.as_ref().is_none_or(|before| before == list),
            "{generation:?} was {before:?} and is {list}"
        );
        Ok(())
    };
    look("first")?;
    let add = ["ranges", "add", UNLISTED[0], "--confirm-within"];
    filter.ok(&[&add[..], &["1h"]].concat())?;
    look("on trial")?;
    filter.ok(&["ranges", "rollback"])?;
    look("first")?;
    filter.ok(&[&add[..], &["1h"]].concat())?;
    look("on trial again")?;
    lapse(&filter)?;
    look("first")?;
    for list in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        filter.ok(&["ranges", "set", list, "--force"])?;
        look(list)?;
    }
    ensure!(numbers.len() == 6, "{numbers:?}");
    Ok(())
}

#[test]
fn one_interface_that_cannot_be_guarded_keeps_no_other_open() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let peer = Peer::new(&site)?;
    let both = ["run", "--interface", INTERFACE, "--interface", "eth1"];
    let typed = ["--authorized-ip-ranges", ADMIN_RANGES];
    let mut daemon = filter.start(&[&both[..], &typed].concat())?;
    daemon.line(|line| line.contains("metrics at") || line.contains("authorized: "))?;
    until("both are guarded", || {
        let status = filter.json(&["status"])?;
        Ok(status["interfaces"]
            .as_array()
            .is_some_and(|all| all.len() == 2))
    })?;
    peer.is_silenced(PORT)?;
    daemon.signal(nix::sys::signal::Signal::SIGSTOP)?;
    // Both links are detached by hand, and a foreign program is on the first interface at the next
    // tick of `run`.
    let layout = format!("layout-{}", filter_common::layout::LAYOUT_VERSION);
    for entry in fs::read_dir(filter.bpffs().join(layout).join("interfaces"))? {
        tests::kernel::detach_link(&entry?.path().join("link"))?;
    }
    until("the port is open", || Ok(peer.gets_in(PORT).is_ok()))?;
    let mut foreign = Foreign::load()?;
    let _link = site.node.run(|| foreign.attach(INTERFACE))?;
    daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
    daemon.line(|line| line.contains("has the XDP program"))?;
    until("the other is guarded", || {
        let status = filter.json(&["status"])?;
        let interfaces = status["interfaces"].as_array().cloned();
        Ok(interfaces
            .unwrap_or_default()
            .iter()
            .any(|one| one["interface"] == "eth1" && one["guarded"] == true))
    })?;
    peer.is_silenced(PORT)?;
    ensure!(get(&site.node, "/readyz")?.status == 503);
    Ok(())
}

#[test]
fn a_broken_file_in_the_history_is_passed_over() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    filter.write_list("10.2.0.0/8x\n")?;
    filter.ok(&["ranges", "set", UNLISTED[0], "--force"])?;
    let ran = filter
        .run(&["ranges", "rollback", "--force"])?
        .succeeded()?;
    ran.stderr_has(&["number 1 in the history is not a list"])?;
    assert_eq!(filter.list()?, before);
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

/// A dry run of a rollback of a trial shows it, and takes nothing back.
#[test]
fn a_dry_run_takes_no_trial_back() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let add = ["ranges", "add", UNLISTED[0], "--confirm-within", "1h"];
    for change in [&add[..], &["monitor", "--confirm-within", "1h"]] {
        filter.ok(change)?;
        let shown = filter.ok(&["ranges", "rollback", "--dry-run"])?;
        ensure!(shown.contains("would be undone"), "{shown}");
        ensure!(filter.status("provisional")?.is_object());
        site.unlisted_gets_in(Family::V4, PORT)?;
        filter.ok(&["ranges", "rollback"])?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    }
    Ok(())
}

/// Enforcement is switched off, and the file was edited since then: the mode is kept for the boot
/// that puts the edit in force.
#[test]
fn a_mode_outlives_a_boot_where_the_off_switch_is_in_no_file() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    filter.ok(&["ranges", "clear"])?;
    filter.write_list(LIST)?;
    filter.ok(&["monitor"])?;
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    ensure!(filter.status("state")? == "monitoring");
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}
