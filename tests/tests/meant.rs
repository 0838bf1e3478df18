//! A change of the list does what its author meant, and reports what it did: added ranges are
//! authorized, edits are kept, and a rollback goes no further than announced.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    cli::{Apifence, FAILED, Ran, refused},
    site::{ADMIN_RANGES, Family, Site, UNLISTED},
    strace::{NO_LOG, strace},
    wait::{until, while_it_lasts},
};

const PORT: u16 = 6443;

/// Runs it, and requires exit code 0 and all of `words` in the output.
fn reports(filter: &Apifence, command: &[&str], words: &[&str]) -> Result<Ran> {
    let ran = filter.run(command)?.succeeded()?;
    for word in words {
        ensure!(ran.stderr.contains(word), "`{word}` is not said; {ran}");
    }
    Ok(ran)
}

#[test]
fn an_expired_entry_that_is_added_again_is_let_in() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let add = ["ranges", "add", UNLISTED[0], "--comment", "home"];
    let said = ["+203.0.113.9/32 (home), until 20"];
    while_it_lasts(|time| {
        // The time of a previous attempt.
        filter.run(&["ranges", "remove", UNLISTED[0]])?;
        reports(&filter, &[&add[..], &["--expires", time]].concat(), &said)?;
        site.unlisted_gets_in(Family::V4, PORT)
    })?;
    filter.until_authorized(UNLISTED[0], false)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let said = [
        "~203.0.113.9/32 (home), in force again, and does not expire (it had expired)",
        "1 changed, 2 unchanged",
    ];
    reports(&filter, &add[..3], &said)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.list()?.ends_with("203.0.113.9/32 # home\n"));
    // A live entry stays as it is, as reported.
    reports(
        &filter,
        &[&add[..3], &["--expires", "30d"]].concat(),
        &[", until 20", "(did not expire)"],
    )?;
    reports(&filter, &add[..3], &["3 unchanged\n"])?;
    ensure!(filter.list()?.contains("expires="));
    let said = [", does not expire (was until 20"];
    reports(
        &filter,
        &[&add[..3], &["--expires", "never"]].concat(),
        &said,
    )?;
    ensure!(!filter.list()?.contains("expires="));
    let said = ["~203.0.113.9/32, no comment (was `home`)", "1 changed"];
    reports(&filter, &[&add[..3], &["--comment", ""]].concat(), &said)?;
    ensure!(!filter.list()?.contains('#'));
    Ok(())
}

#[test]
fn an_expiry_without_effect_is_reported() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let host = ["ranges", "add", UNLISTED[0], "--expires", "30d"];
    filter.ok(&host)?;
    let said = [
        "~203.0.113.9/32, stays in force after 20",
        "warning: the expiry of `203.0.113.9/32` has no effect: a wider range allows it for longer",
    ];
    reports(&filter, &["ranges", "add", "203.0.113.0/24"], &said)?;
    // The same the other way round, and with another expiry.
    filter.ok(&["ranges", "remove", UNLISTED[0]])?;
    reports(
        &filter,
        &host,
        &["+203.0.113.9/32, stays in force after", said[1]],
    )?;
    let later = ["ranges", "add", UNLISTED[0], "--expires", "60d"];
    let ran = reports(
        &filter,
        &later,
        &["~203.0.113.9/32, stays in force after", said[1]],
    )?;
    ensure!(ran.stderr.contains("1 changed"), "{ran}");
    Ok(())
}

#[test]
fn a_change_of_comments_alone_is_reported_and_kept() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let before = filter.list()?;
    let add = ["ranges", "add", "198.51.100.0/24", "--comment", "office"];
    let change = filter.json(&add)?;
    ensure!(
        change["edited"] == json!(["198.51.100.0/24"]) && change["changed"] == json!([]),
        "{change:#}"
    );
    let lists = filter.history()?;
    ensure!(
        lists[0]["change"]["edited"] == json!(["198.51.100.0/24"]),
        "{lists:#?}"
    );
    filter.ok(&["ranges", "rollback"])?;
    assert_eq!(filter.list()?, before);
    // Edited by hand, and put in force.
    filter.write_list(before.replace('\n', " # by hand\n"))?;
    reports(
        &filter,
        &["ranges", "reload"],
        &["comment `by hand`", "2 changed"],
    )?;
    ensure!(
        filter.history()?[0]["change"]["edited"]
            .as_array()
            .map(Vec::len)
            == Some(2)
    );
    Ok(())
}

#[test]
fn expired_entries_are_removed() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let past = "203.0.113.7 expires=2020-01-01T00:00:00Z # contractor\n";
    filter.write_list(format!("{}{past}", filter.list()?))?;
    reports(
        &filter,
        &["ranges", "reload"],
        &["+203.0.113.7/32 (contractor), expired 2020-01-01T00:00:00Z: allows no source"],
    )?;
    reports(
        &filter,
        &["ranges", "prune", "--dry-run"],
        &["nothing changed"],
    )?;
    ensure!(filter.list()?.ends_with(past));
    reports(
        &filter,
        &["ranges", "prune"],
        &["-203.0.113.7/32 (contractor), expired 2020-01-01T00:00:00Z"],
    )?;
    ensure!(!filter.list()?.contains("contractor"));
    reports(&filter, &["ranges", "prune"], &["2 unchanged"])?;
    Ok(())
}

#[test]
fn a_rollback_after_a_trial_that_lapsed_changes_nothing() -> Result<()> {
    let (_site, filter, _server) = Site::guarded_server(PORT)?;
    filter.ok(&["ranges", "add", "192.0.2.77"])?;
    let good = filter.list()?;
    // Without another process, and after another one recovered: `run`, or another command.
    for settled in [false, true] {
        filter.ok(&["ranges", "add", UNLISTED[0], "--confirm-within", "1s"])?;
        filter.until_status("provisional", ())?;
        if settled {
            filter.ok(&["ranges", "add", "192.0.2.77"])?;
        }
        let before = filter.status("generation")?;
        for _ in 0..2 {
            if !settled {
                let ran = reports(
                    &filter,
                    &["ranges", "rollback"],
                    &[
                        "was not confirmed and reverted at 20",
                        "`apifence ranges rollback 1`",
                    ],
                )?;
                ensure!(ran.stdout.is_empty(), "{ran}");
            }
            assert_eq!(filter.list()?, good);
            ensure!(filter.status("generation")? == before);
        }
    }
    // A later change is the one that is rolled back.
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    filter.ok(&["ranges", "rollback"])?;
    assert_eq!(filter.list()?, good);
    filter.ok(&["ranges", "rollback", "3"])?;
    ensure!(!filter.list()?.contains("192.0.2.77"));
    Ok(())
}

/// Stops `apifence` at its first call of a kind on the ranges file's folder, so that an editor can
/// save.
fn stopped_at_sync(filter: &Apifence, arguments: &[&str], edit: &str) -> Result<Ran> {
    // Of the new list, which is written next to the file.
    let delay = "inject=fsync:delay_enter=1500000:when=1";
    let strace = strace(NO_LOG, &["trace=fsync", delay]);
    let file = filter.ranges_file().to_owned();
    let new = file.with_file_name(".ranges.new");
    let edit = edit.to_owned();
    let editor = std::thread::spawn(move || -> Result<()> {
        until("the new list is written", || Ok(new.exists()))?;
        fs::write(file, edit)?;
        Ok(())
    });
    let ran = filter.run_by(strace, arguments)?;
    editor.join().expect("the editor")?;
    Ok(ran)
}

#[test]
fn an_edit_that_is_saved_during_a_change_is_not_lost() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    for command in [
        &["ranges", "add", UNLISTED[0]][..],
        &["ranges", "set", "192.0.2.0/24", "--force"],
    ] {
        let edit = format!("{}192.0.2.200 # edited\n", filter.list()?);
        let ran = stopped_at_sync(&filter, command, &edit)?;
        refused(&ran, FAILED, &["another process edited it meanwhile"])?;
        assert_eq!(filter.list()?, edit);
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        filter.ok(&["ranges", "rollback"])?;
    }
    Ok(())
}

#[test]
fn an_edit_during_a_trial_is_in_the_history() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--confirm-within", "1h"])?;
    let edit = format!("{}192.0.2.200 # edited\n", filter.list()?);
    filter.write_list(&edit)?;
    reports(
        &filter,
        &["confirm"],
        &["number 1 in `apifence ranges history`"],
    )?;
    ensure!(!filter.list()?.contains("192.0.2.200"));
    filter.ok(&["ranges", "rollback", "1"])?;
    assert_eq!(filter.list()?, edit);
    // If an edit was there before and is not in force, a command that replaces it says so, and one
    // that builds on it.
    let edit = edit.replace("200", "201");
    filter.write_list(&edit)?;
    reports(
        &filter,
        &["ranges", "add", "192.0.2.202"],
        &["+192.0.2.201/32"],
    )?;
    filter.write_list(format!("{edit}192.0.2.203\n"))?;
    reports(
        &filter,
        &["ranges", "set", ADMIN_RANGES],
        &["the edit is number 1 in `apifence ranges history`"],
    )?;
    filter.ok(&["ranges", "rollback", "1"])?;
    ensure!(filter.list()?.contains("192.0.2.203"));
    Ok(())
}

/// Without an edit the output mentions none.
#[test]
fn without_an_edit_none_is_reported() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    for command in [
        &["ranges", "add", "192.0.2.7", "--confirm-within", "1h"][..],
        &["confirm"],
        &["ranges", "set", ADMIN_RANGES],
        &["ranges", "rollback"],
        &["ranges", "remove", "192.0.2.7"],
        &["ranges", "reload"],
    ] {
        let ran = filter.run(command)?;
        ensure!(ran.code == Some(0) && !ran.stderr.contains("edit"), "{ran}");
    }
    Ok(())
}

#[test]
fn the_history_names_user_and_command() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let mut env = Command::new("env");
    env.args(["SUDO_USER=daemon", "SUDO_UID=1"]);
    filter.run_by(env, &["ranges", "add", UNLISTED[0]])?;
    let by = filter.history()?[0]["by"].clone();
    ensure!(by["user"] == "daemon" && by["uid"] == 1, "{by:#}");
    ensure!(
        by["command"]
            .as_str()
            .is_some_and(|command| command.ends_with("ranges add 203.0.113.9")),
        "{by:#}"
    );
    let shown = filter.ok(&["ranges", "history"])?;
    ensure!(
        shown.contains("ranges add, daemon") && shown.contains("attach, root"),
        "{shown}"
    );
    // A confirmation put it in force for good.
    filter.ok(&["ranges", "remove", UNLISTED[0], "--confirm-within", "1h"])?;
    filter.ok(&["confirm"])?;
    let by = filter.history()?[0]["by"].clone();
    ensure!(
        by["command"]
            .as_str()
            .is_some_and(|command| command.ends_with("confirm")),
        "{by:#}"
    );
    // A file name that is not one of our numbers is not a list.
    let folder = filter.history_directory();
    fs::write(folder.join(u64::MAX.to_string()), "10.0.0.0/8\n")?;
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    ensure!(filter.history()?[1]["ranges"] == 2);
    Ok(())
}

#[test]
fn the_list_that_a_service_was_set_up_with_takes_nothing_back() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let run = [
        "run",
        "--interface",
        "eth0",
        "--authorized-ip-ranges",
        ADMIN_RANGES,
    ];
    let in_force = || filter.until_authorized(UNLISTED[0], true);
    {
        let _daemon = filter.start(&run)?;
        filter.until_status("state", "enforcing")?;
        filter.ok(&["ranges", "add", UNLISTED[0]])?;
        in_force()?;
    }
    let mut daemon = filter.start(&run)?;
    daemon.line(|line| {
        line.starts_with("warning: `--authorized-ip-ranges` is not used")
            && line.contains("+203.0.113.9/32")
    })?;
    in_force()?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.list()?.contains(UNLISTED[0]));
    Ok(())
}

/// The output reports only this change, not an earlier one.
#[test]
fn a_change_that_changes_nothing_says_so() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    for comment in ["office", "head office", ""] {
        filter.ok(&["ranges", "add", "198.51.100.0/24", "--comment", comment])?;
        for command in [
            &["ranges", "prune"][..],
            &["ranges", "reload"],
            &["ranges", "add", "198.51.100.0/24"],
        ] {
            let ran = filter.run(command)?;
            ensure!(
                ran.code == Some(0) && ran.stderr == "2 unchanged\nin force: 2 ranges\n",
                "{ran}"
            );
        }
    }
    Ok(())
}

/// The words about entries do not depend on a filter.
#[test]
fn without_a_filter_the_output_is_the_same() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    let host = ["ranges", "add", UNLISTED[0], "--expires", "30d"];
    reports(&filter, &host, &["+203.0.113.9/32, until 20"])?;
    let said = [
        "~203.0.113.9/32, stays in force after",
        "warning: the expiry of `203.0.113.9/32` has no effect",
    ];
    reports(&filter, &["ranges", "add", "203.0.113.0/24"], &said)?;
    filter.ok(&["ranges", "remove", "203.0.113.0/24"])?;
    let guest = [&host[..3], &["--comment", "a guest"]].concat();
    reports(
        &filter,
        &guest,
        &["~203.0.113.9/32, comment `a guest`", "1 changed"],
    )?;
    // In a form that can be typed again.
    let by = filter.history()?[0]["by"]["command"].clone();
    ensure!(by == "ranges add 203.0.113.9 --comment 'a guest'", "{by}");
    Ok(())
}
