//! A ranges file that other programs write: an editor, or a ConfigMap volume. The list that was in
//! force before is kept.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    cli::Apifence,
    config_map::ConfigMap,
    loaded::lapse,
    net::Echo,
    site::{ATTACH, Family, Site, UNLISTED},
    wait::until,
};

const PORT: u16 = 6443;

/// The lists that `ranges history` shows.
fn history(filter: &Apifence<'_>) -> Result<Vec<Value>> {
    let report = filter.json(&["ranges", "history"])?;
    Ok(report["lists"].as_array().cloned().unwrap_or_default())
}

/// Writes into the existing file, as some editors do: its previous text is gone from the disk.
fn edit(filter: &Apifence<'_>, change: impl Fn(&str) -> String) -> Result<()> {
    let text = fs::read_to_string(filter.ranges_file())?;
    Ok(fs::write(filter.ranges_file(), change(&text))?)
}

fn admit_unlisted(text: &str) -> String {
    format!("{text}{} # by hand\n", UNLISTED[0])
}

#[test]
fn the_list_before_an_edit_can_be_rolled_back_to() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    let before = fs::read_to_string(filter.ranges_file())?;
    edit(&filter, admit_unlisted)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(history(&filter)?[1]["ranges"] == 2, "the list in force");

    let edited = fs::read_to_string(filter.ranges_file())?;
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(fs::read_to_string(filter.ranges_file())?, edited);
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    assert_eq!(fs::read_to_string(filter.ranges_file())?, before);
    // Then back again, with the comment.
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(fs::read_to_string(filter.ranges_file())?, edited);
    Ok(())
}

/// During an edit's trial the file holds the list for a reboot: the previous one.
#[test]
fn an_edit_on_trial_is_in_the_file_once_it_is_confirmed() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    let before = fs::read_to_string(filter.ranges_file())?;
    edit(&filter, admit_unlisted)?;
    let edited = fs::read_to_string(filter.ranges_file())?;
    filter.ok(&["ranges", "reload", "--confirm-within", "1h"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(fs::read_to_string(filter.ranges_file())?, before);
    lapse(&filter)?;
    ensure!(filter.json(&["status"])?["provisional"].is_null());
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.json(&["status"])?["drift"] == json!([]));

    // The edit is not lost.
    let kept = history(&filter)?;
    ensure!(kept[1]["ranges"] == 3, "{kept:#?}");
    filter.ok(&["ranges", "rollback", "1", "--confirm-within", "1h"])?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(fs::read_to_string(filter.ranges_file())?, edited);
    Ok(())
}

#[test]
fn a_config_map_is_put_in_force_and_not_written() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    let list = "198.51.100.0/24\n2001:db8:aa::/48\n";
    let map = ConfigMap::new(list)?;
    let filter = filter.with_ranges_file(map.file());
    filter.ok(&ATTACH[..3])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;

    map.update("..2", &admit_unlisted(list))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.json(&["status"])?["drift"] != json!([]));
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.json(&["status"])?["drift"] == json!([]));
    // A change that would have to write there is refused, with the source of the list.
    let ran = filter.run(&["ranges", "add", "192.0.2.1"])?;
    tests::cli::refused(&ran, tests::cli::FAILED, &["write ranges file"])?;
    ensure!(ran.stderr.contains("ConfigMap"), "{ran}");
    Ok(())
}

/// `add` builds on the edited file, and `set` does not: the output is right for both.
#[test]
fn a_change_reports_an_edit_that_was_not_in_force() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    edit(&filter, admit_unlisted)?;
    let ran = filter.run(&["ranges", "add", "192.0.2.99"])?;
    ensure!(
        ran.code == Some(0)
            && ran.stderr.contains("+203.0.113.9/32")
            && ran.stderr.contains("comes into force with it")
            && !ran.stderr.contains("this replaces it"),
        "{ran}"
    );
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

/// A first `attach` without a confirmation leaves a file without edits.
#[test]
fn an_attach_after_an_unconfirmed_one_reports_no_edit() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    fs::write(filter.ranges_file(), "198.51.100.0/24\n")?;
    let attach = &ATTACH[..3];
    filter.ok(&[attach, &["--confirm-within", "1s"]].concat())?;
    until("the trial is over", || {
        Ok(filter.json(&["status"])?["state"] == "off")
    })?;
    let ran = filter.run(attach)?;
    ensure!(
        ran.code == Some(0)
            && ran.stderr.contains("this brings it into force")
            && !ran.stderr.contains("edit"),
        "{ran}"
    );
    Ok(())
}
