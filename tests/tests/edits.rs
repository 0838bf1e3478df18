//! A ranges file that other programs write: an editor, or a ConfigMap volume. The list that was in
//! force before is kept.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    cli::Apifence,
    config_map::ConfigMap,
    loaded::lapse,
    site::{ATTACH, Family, Site, UNLISTED},
};

const PORT: u16 = 6443;

/// Writes into the existing file, as some editors do: its previous text is gone from the disk.
fn edit(filter: &Apifence, change: impl Fn(&str) -> String) -> Result<()> {
    let text = filter.list()?;
    filter.write_list(change(&text))
}

fn admit_unlisted(text: &str) -> String {
    format!("{text}{} # by hand\n", UNLISTED[0])
}

#[test]
fn the_list_before_an_edit_can_be_rolled_back_to() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    edit(&filter, admit_unlisted)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.history()?[1]["ranges"] == 2, "the list in force");

    let edited = filter.list()?;
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, edited);
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    assert_eq!(filter.list()?, before);
    // Then back again, with the comment.
    filter.ok(&["ranges", "rollback"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, edited);
    Ok(())
}

/// During an edit's trial the file holds the list for a reboot: the previous one.
#[test]
fn an_edit_on_trial_is_in_the_file_once_it_is_confirmed() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    edit(&filter, admit_unlisted)?;
    let edited = filter.list()?;
    filter.ok(&["ranges", "reload", "--confirm-within", "1h"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, before);
    lapse(&filter)?;
    ensure!(filter.status("provisional")?.is_null());
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.status("drift")? == json!([]));

    // The edit is not lost.
    let kept = filter.history()?;
    ensure!(kept[1]["ranges"] == 3, "{kept:#?}");
    filter.ok(&["ranges", "rollback", "1", "--confirm-within", "1h"])?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    assert_eq!(filter.list()?, edited);
    Ok(())
}

#[test]
fn a_config_map_is_put_in_force_and_not_written() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let list = "198.51.100.0/24\n2001:db8:aa::/48\n";
    let map = ConfigMap::new(list)?;
    let filter = filter.with_ranges_file(map.file());
    filter.ok(&ATTACH[..3])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;

    map.update("..2", &admit_unlisted(list))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.status("drift")? != json!([]));
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.status("drift")? == json!([]));
    // A change that would have to write there is refused, with the source of the list.
    let ran = filter.run(&["ranges", "add", "192.0.2.1"])?;
    tests::cli::refused(&ran, tests::cli::FAILED, &["write ranges file"])?;
    ensure!(ran.stderr.contains("ConfigMap"), "{ran}");
    Ok(())
}

/// `add` builds on the edited file, and `set` does not: the output is right for both.
#[test]
fn a_change_reports_an_edit_that_was_not_in_force() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    edit(&filter, admit_unlisted)?;
    let ran = filter.run(&["ranges", "add", "192.0.2.99"])?.succeeded()?;
    ran.stderr_has(&[
        "+203.0.113.9/32",
        "this change applies the entries that it keeps",
    ])?;
    ran.stderr_lacks(&["this replaces it"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

/// A first `attach` without a confirmation leaves a file without edits.
#[test]
fn an_attach_after_an_unconfirmed_one_reports_no_edit() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.write_list("198.51.100.0/24\n")?;
    let attach = &ATTACH[..3];
    filter.ok(&[attach, &["--confirm-within", "1s"]].concat())?;
    filter.until_status("state", "off")?;
    let ran = filter.run(attach)?.succeeded()?;
    ran.stderr_has(&["this change applies it"])?;
    ran.stderr_lacks(&["edit"])
}
