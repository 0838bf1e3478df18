//! Lists with owners: the union is in force, and a list that breaks harms no other.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tests::{
    cli::{INPUT, refused},
    scrape::scrape,
    site::{ADMIN, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at},
    strace::strace,
    wait::{until, while_it_lasts},
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const V4: Family = Family::V4;

#[test]
fn the_union_of_all_lists_is_in_force() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    site.is_guarded(PORT)?;
    let added = filter.ok(&[
        "ranges",
        "--list",
        "guests",
        "add",
        UNLISTED[0],
        "--comment",
        "one",
    ])?;
    ensure!(added.is_empty(), "{added}");
    site.unlisted_gets_in(V4, PORT)?;
    site.admin_gets_in(V4, PORT)?;
    ensure!(
        fs::read_to_string(filter.list_file("guests"))? == format!("{}/32 # one\n", UNLISTED[0])
    );
    ensure!(!filter.list()?.contains(UNLISTED[0]));

    let checked = filter.ok(&["check", UNLISTED[0], ADMIN[0]])?;
    ensure!(
        checked.contains("(list: guests) # one") && checked.contains("`198.51.100.0/24` (list)"),
        "{checked}"
    );
    let shown = filter.json(&["ranges", "list", "--list", "guests"])?;
    ensure!(
        shown["ranges"]
            .as_array()
            .is_some_and(|rows| rows.len() == 1),
        "{shown:#}"
    );
    ensure!(
        shown["ranges"][0]["lists"] == json!(["guests"]),
        "{shown:#}"
    );
    let text = filter.ok(&["ranges", "list"])?;
    ensure!(
        text.contains("list guests") && text.contains("list default"),
        "{text}"
    );
    let state = filter.list_state("guests")?;
    ensure!(
        state["ranges"] == 1 && state["owner"] == "root" && state["fault"].is_null(),
        "{state:#}"
    );
    ensure!(filter.status("drift")? == json!([]));

    // The last entry of a list that is not `default` may go.
    filter.ok(&["ranges", "remove", UNLISTED[0], "--list", "guests"])?;
    ensure!(fs::read_to_string(filter.list_file("guests"))? == "empty\n");
    site.unlisted_is_dropped(V4, PORT, &filter)?;
    filter.ok(&["ranges", "rollback", "--list", "guests"])?;
    site.unlisted_gets_in(V4, PORT)?;
    filter.ok(&["ranges", "delete", "--list", "guests"])?;
    site.unlisted_is_dropped(V4, PORT, &filter)?;
    ensure!(!filter.list_file("guests").exists());
    // A list that is gone comes back from its history.
    filter.ok(&["ranges", "rollback", "--list", "guests", "1"])?;
    site.unlisted_gets_in(V4, PORT).map(drop)
}

#[test]
fn the_off_switch_is_in_the_default_list_alone() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    for words in [
        &["ranges", "clear", "--list", "guests"][..],
        &["ranges", "set", "", "--force", "--list", "guests"],
    ] {
        refused(
            &filter.run(words)?,
            INPUT,
            &["list `guests`: the word `disabled`"],
        )?;
    }
    refused(
        &filter.run(&["ranges", "delete"])?,
        INPUT,
        &["`default` cannot be deleted"],
    )?;
    let ran = filter.run(&["ranges", "add", "--list", "a.b.c", "192.0.2.1"])?;
    ensure!(
        ran.code == Some(INPUT) && ran.stderr.contains("letters, digits"),
        "{ran}"
    );
    site.is_guarded(PORT)?;
    filter.ok(&["ranges", "add", "--list", "guests", UNLISTED[0]])?;
    filter.ok(&["ranges", "clear", "--force"])?;
    ensure!(filter.status("state")? == "off");
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(V4, PORT)?;
    filter.ok(&["ranges", "delete", "--list", "guests"])?;
    site.is_guarded(PORT)
}

#[test]
fn a_list_that_breaks_keeps_its_last_good_entries_and_holds_up_no_other() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    filter.write_list_of("guests", UNLISTED[0].to_owned() + "\n")?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.write_list_of("guests", "203.0.113.9/24\n")?;
    daemon.line(|line| line.contains("guests:1") && line.contains("bits set"))?;
    filter.write_list_of("office", "192.0.2.77\n")?;
    filter.until_authorized("192.0.2.77", true)?;
    site.unlisted_gets_in(V4, PORT)?;
    let broken = filter.list_state("guests")?;
    ensure!(
        broken["ranges"] == 1 && broken["fault"].is_string(),
        "{broken:#}"
    );
    let drift = filter.status("drift")?.to_string();
    ensure!(drift.contains("guests:1"), "{drift}");
    let shown = filter.ok(&["status"])?;
    let line = "lists         default 2, guests 1 (cannot be used), office 1";
    ensure!(shown.contains(line), "{shown}");
    let list = filter.run(&["ranges", "list"])?.succeeded()?;
    list.stderr_has(&["guests:1"])?;
    ensure!(
        list.stdout.contains("guests") && list.stdout.contains("office"),
        "{list}"
    );
    let metrics = scrape(&site.node)?.text;
    ensure!(
        metrics.contains("apifence_list_usable{list=\"guests\"} 0"),
        "{metrics}"
    );
    ensure!(
        metrics.contains("apifence_list_usable{list=\"office\"} 1"),
        "{metrics}"
    );
    // A command that changes another list says so, and changes it.
    let ran = filter.run(&["ranges", "add", "--list", "office", "192.0.2.78"])?;
    ensure!(
        ran.code == Some(0) && ran.stderr.contains("keeps its last good entries"),
        "{ran}"
    );
    site.unlisted_gets_in(V4, PORT)?;

    // A broken ranges file holds up no other list either.
    filter.write_list("198.51.100.0/33\n")?;
    filter.write_list_of("office", "192.0.2.79\n")?;
    filter.until_authorized("192.0.2.79", true)?;
    site.admin_gets_in(V4, PORT)?;
    ensure!(filter.run(&["check", "192.0.2.77"])?.code == Some(1));
    filter.write_list(LIST)?;

    // A boot with a broken list.
    drop(daemon);
    filter.boot()?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    site.unlisted_gets_in(V4, PORT)?;
    filter.write_list_of("guests", "empty\n")?;
    filter.until_authorized(UNLISTED[0], false)?;
    site.is_guarded(PORT)
}

#[test]
fn a_list_that_vanishes_keeps_its_entries_until_it_is_deleted() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    filter.write_list_of("guests", UNLISTED[0].to_owned() + "\n")?;
    filter.until_authorized(UNLISTED[0], true)?;
    fs::remove_file(filter.list_file("guests"))?;
    daemon.line(|line| line.contains("ranges delete --list guests"))?;
    site.unlisted_gets_in(V4, PORT)?;
    for empty in ["", "\n# nothing\n"] {
        filter.write_list_of("guests", empty)?;
        daemon.line(|line| line.contains("the file has no range"))?;
        site.unlisted_gets_in(V4, PORT)?;
        fs::remove_file(filter.list_file("guests"))?;
        daemon.line(|line| line.contains("no such file"))?;
    }
    filter.ok(&["ranges", "delete", "--list", "guests"])?;
    site.unlisted_is_dropped(V4, PORT, &filter)?;
    filter.until_status("drift", json!([]))
}

#[test]
fn a_copy_of_a_list_lets_nobody_in() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    for name in [
        "office.bak",
        "office~",
        ".office.swp",
        "office.dpkg-old",
        "#office#",
        "default",
    ] {
        filter.write_list_of(name, format!("{}\n", UNLISTED[0]))?;
    }
    filter.write_list_of("office", "192.0.2.77\n")?;
    filter.until_authorized("192.0.2.77", true)?;
    daemon.line(|line| line.contains("+192.0.2.77/32"))?;
    site.is_guarded(PORT)?;
    let ran = filter.run(&["ranges", "lists"])?;
    for name in [
        "office.bak",
        "office~",
        "office.dpkg-old",
        "#office#",
        "default",
    ] {
        ensure!(
            ran.stderr.contains(&format!("/{name}` is ignored")),
            "{name}: {ran}"
        );
    }
    Ok(())
}

#[test]
fn a_change_of_a_list_on_trial_takes_itself_back_or_stays() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let add = [
        "ranges",
        "--list",
        "guests",
        "add",
        UNLISTED[0],
        "--confirm-within",
    ];
    while_it_lasts(|time| {
        filter.ok(&[&add[..], &[time]].concat())?;
        site.unlisted_gets_in(V4, PORT).map(drop)
    })?;
    until("the trial ends", || {
        Ok(filter.run(&["check", UNLISTED[0]])?.code == Some(1))
    })?;
    site.unlisted_is_dropped(V4, PORT, &filter)?;
    ensure!(!filter.list_file("guests").exists());
    filter.ok(&[&add[..], &["1h"]].concat())?;
    let shown = filter.ok(&["ranges", "list"])?;
    ensure!(shown.contains("list guests"), "{shown}");
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(V4, PORT)?;
    ensure!(fs::read_to_string(filter.list_file("guests"))?.contains(UNLISTED[0]));
    filter.ok(&[
        "ranges",
        "--list",
        "guests",
        "set",
        "192.0.2.1",
        "--confirm-within",
        "1h",
        "--force",
    ])?;
    site.unlisted_is_dropped(V4, PORT, &filter)?;
    // Another list has to wait for the decision.
    let ran = filter.run(&["ranges", "add", "192.0.2.2"])?;
    ensure!(
        ran.code != Some(0) && ran.stderr.contains("is on trial"),
        "{ran}"
    );
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(V4, PORT).map(drop)
}

#[test]
fn lists_come_back_after_a_boot_and_with_another_attach() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    filter.ok(&["ranges", "add", "--list", "guests", UNLISTED[0]])?;
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    site.unlisted_gets_in(V4, PORT)?;
    site.admin_gets_in(V4, PORT)?;
    // `enforce` and `monitor` keep all lists.
    filter.ok(&["monitor"])?;
    filter.ok(&["enforce"])?;
    site.unlisted_gets_in(V4, PORT)?;
    filter.ok(&["ranges", "set", "192.0.2.1,198.51.100.0/24"])?;
    site.unlisted_gets_in(V4, PORT)?;
    // Lists alone guard a node, without a ranges file.
    filter.boot()?;
    fs::remove_file(filter.ranges_file())?;
    fs::remove_dir_all(filter.state_dir())?;
    filter.ok(&ATTACH[..3])?;
    site.unlisted_gets_in(V4, PORT)?;
    filter.drops(|| tests::net::silent(&site.admin, tests::site::ip(ADMIN[0]), at(NODE[0], PORT)))
}

/// Sources in the list before a change, and after it.
const OLD: &str = "192.0.2.71";
const NEW: &str = "192.0.2.72";

#[test]
fn a_change_of_a_list_that_is_killed_is_made_or_not() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let folder = tempfile::tempdir()?;
    let calls = "bpf,fsync,renameat,rename,linkat,link,unlink,write";
    let set = ["ranges", "--list", "guests", "set", NEW];
    let (mut old, mut new) = (0, 0);
    for change in [
        &set[..],
        &["confirm"],
        &["ranges", "--list", "guests", "delete"],
    ] {
        // Each third call: the suite `transaction` kills a change of the ranges file at every one.
        for number in (1..).step_by(3) {
            filter.ok(&["ranges", "--list", "guests", "set", OLD, "--force"])?;
            if change == ["confirm"] {
                filter.ok(&[&set[..], &["--confirm-within", "1h"]].concat())?;
            }
            let log = folder.path().join("strace");
            let inject = format!("inject={calls}:signal=SIGKILL:when={number}");
            let by = strace(&log, &[&format!("trace={calls}"), &inject]);
            let ran = filter.run_by(by, change)?;
            if !fs::read_to_string(&log)?.contains("killed by SIGKILL") {
                break;
            }
            let step = || format!("`{}` killed at call {number}: {ran}", change.join(" "));
            // The next writer completes or takes back what was half done.
            let writer = ["ranges", "--list", "guests", "set", OLD, "--dry-run"];
            if filter.run(&writer)?.stderr.contains("is on trial") {
                filter.ok(&["ranges", "rollback"]).with_context(step)?;
            }
            let is_in =
                |source| Ok::<_, anyhow::Error>(filter.run(&["check", source])?.code == Some(0));
            ensure!(is_in(ADMIN[0])?, "{}", step());
            let file = fs::read_to_string(filter.list_file("guests")).unwrap_or_default();
            match (is_in(OLD)?, is_in(NEW)?, change.contains(&"delete")) {
                (true, false, false) => {
                    ensure!(file.contains(OLD), "{}: {file}", step());
                    old += 1;
                }
                // Its file may be gone already: its entries stay until the list is deleted again.
                (true, false, true) => old += 1,
                (false, true, false) => {
                    ensure!(file.contains(NEW), "{}: {file}", step());
                    new += 1;
                }
                (false, false, true) => {
                    ensure!(file.is_empty(), "{}: {file}", step());
                    new += 1;
                }
                mixed => bail!("{}: {mixed:?}", step()),
            }
            if change.contains(&"delete") && is_in(OLD)? {
                filter.ok(change).with_context(step)?;
                ensure!(!is_in(OLD)?, "{}", step());
            }
            filter.until_status("drift", json!([])).with_context(step)?;
        }
    }
    ensure!(
        old > 15 && new > 5,
        "{old} times the old list, {new} times the new"
    );
    Ok(())
}

#[test]
fn a_feed_that_changes_during_a_trial_does_not_stop_its_confirmation() -> Result<()> {
    let (site, filter, daemon, _server) = Site::followed(PORT)?;
    filter.write_list_of("feed", "192.0.2.1\n")?;
    filter.write_list_of("other", "192.0.2.2\n")?;
    filter.until_authorized("192.0.2.2", true)?;
    filter.until_authorized("192.0.2.1", true)?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--confirm-within", "1h"])?;
    filter.write_list_of("feed", "192.0.2.3\n")?;
    filter.write_list_of("other", "192.0.2.4\n")?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(V4, PORT)?;
    ensure!(filter.list()?.contains(UNLISTED[0]));
    for (source, wanted) in [
        ("192.0.2.3", true),
        ("192.0.2.4", true),
        ("192.0.2.1", false),
    ] {
        filter.until_authorized(source, wanted)?;
    }
    // A trial that begins before `run` has seen a feed's change leaves the feed's file alone.
    drop(daemon);
    filter.write_list_of("feed", "192.0.2.5\n")?;
    filter.ok(&["ranges", "add", "192.0.2.99", "--confirm-within", "1h"])?;
    filter.ok(&["ranges", "rollback"])?;
    ensure!(fs::read_to_string(filter.list_file("feed"))? == "192.0.2.5\n");
    Ok(())
}
