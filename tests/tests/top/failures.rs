//! What becomes of `a` when something else fails meanwhile: the list stays whole, the view says
//! why, and the answers are kept.

use std::{fs::File, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    config_map::ConfigMap,
    site::{ADMIN_RANGES, ATTACH, Family, Site, UNLISTED},
};

use super::{
    PORT,
    add::{asked, checked, left},
};

#[test]
fn a_list_that_breaks_before_the_yes_stays_as_it_is() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let good = filter.list()?;
    let mut top = checked(&site, &filter)?;
    filter.write_list("nonsense\n")?;
    top.press("y")?;
    top.shows(&["not added", "nonsense", "comment  build agent"])?;
    ensure!(filter.list()? == "nonsense\n");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // The operator mends the file, and the same answers work.
    filter.write_list(good)?;
    top.press("\r\r")?;
    top.shows(&["nothing changed yet"])?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    top.press("\rq")?;
    top.ended_well()
}

#[test]
fn a_list_that_cannot_be_written_stays_as_it_is() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let list = ADMIN_RANGES.replace(',', "\n") + "\n";
    let map = ConfigMap::new(&list)?;
    let filter = filter.with_ranges_file(map.file());
    filter.ok(&ATTACH[..3])?;
    let mut top = checked(&site, &filter)?;
    top.press("y")?;
    top.shows(&["not added", "read-only file system", "comment  build agent"])?;
    ensure!(filter.list()? == list);
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    left(top)
}

#[test]
fn pins_that_cannot_be_written_are_told_in_words() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mount = |arguments: &[&str]| -> Result<()> {
        let done = Command::new("mount")
            .args(arguments)
            .arg(filter.bpffs())
            .status()?;
        ensure!(done.success(), "mount {arguments:?}");
        Ok(())
    };
    let mut top = asked(&site, &filter)?;
    let pins = filter.bpffs().to_str().context("UTF-8")?;
    mount(&["--bind", pins])?;
    mount(&["-o", "remount,bind,ro"])?;
    top.press("\r\r")?;
    top.shows(&["not added", "write pins", "c copy"])?;
    Command::new("umount").arg(filter.bpffs()).status()?;
    top.press("\r\r")?;
    top.shows(&["nothing changed yet"])?;
    left(top)
}

#[test]
fn a_source_that_is_listed_meanwhile_keeps_its_expiry() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = checked(&site, &filter)?;
    filter.ok(&["ranges", "add", "203.0.113.0/24", "--comment", "office"])?;
    let list = filter.list()?;
    top.press("y")?;
    top.shows(&["not added", "already has `203.0.113.0/24`", "(office)"])?;
    ensure!(filter.list()? == list);
    left(top)
}

/// `run` follows the change as that of a command; without it the change is made all the same.
#[test]
fn it_needs_no_run_and_disturbs_none() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    let mut top = checked(&site, &filter)?;
    daemon.signal(Signal::SIGSTOP)?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    daemon.signal(Signal::SIGCONT)?;
    filter.until_authorized(UNLISTED[0], true)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait()?;
    filter.ok(&["ranges", "remove", UNLISTED[0], "--force"])?;
    top.press("\ra\r\r")?;
    top.shows(&["nothing changed yet"])?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    top.press("\rq")?;
    top.ended_well()
}

#[test]
fn another_writer_is_named() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = checked(&site, &filter)?;
    let list = filter.list()?;
    // A list of another program may be locked as a file; a change locks the file next to it.
    let folder = filter.ranges_file().parent().context("a folder")?;
    let lock = folder.join(".ranges.lock");
    let lock = File::open(&lock).with_context(|| format!("open {}", lock.display()))?;
    lock.lock()?;
    top.press("y")?;
    top.shows(&["changing"])?;
    top.shows(&["not added", "holds it", "only one change can run"])?;
    ensure!(filter.list()? == list);
    lock.unlock()?;
    top.press("\r\r")?;
    top.shows(&["nothing changed yet"])?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    top.press("\rq")?;
    top.ended_well()
}

#[test]
fn a_change_on_trial_comes_first() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = checked(&site, &filter)?;
    filter.ok(&["ranges", "add", "192.0.2.77", "--confirm-within", "5m"])?;
    top.press("y")?;
    top.shows(&[
        "not added",
        "another change is on trial",
        "apifence confirm",
    ])?;
    filter.ok(&["confirm"])?;
    top.press("\r\r")?;
    top.shows(&["nothing changed yet"])?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    top.press("\rq")?;
    top.ended_well()
}

/// The list is the off switch: with an entry, everyone else is dropped, so that is refused.
#[test]
fn a_refusal_says_who_is_cut() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = checked(&site, &filter)?;
    filter.ok(&["ranges", "clear"])?;
    let _connection = site.admin_gets_in(Family::V4, PORT)?;
    let list = filter.list()?;
    top.press("y")?;
    top.shows(&["not added", "198.51.100.7", "--force"])?;
    ensure!(filter.list()? == list);
    site.unlisted_gets_in(Family::V4, PORT)?;
    left(top)
}

#[test]
fn a_terminal_that_goes_away_changes_nothing() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let list = filter.list()?;
    asked(&site, &filter)?.dies()?;
    checked(&site, &filter)?.dies()?;
    ensure!(filter.list()? == list);
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    // No lock and no trial is left.
    filter.ok(&["ranges", "add", UNLISTED[0]]).map(drop)
}
