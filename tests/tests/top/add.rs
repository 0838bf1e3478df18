//! A refused source is added to a list from the view.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    cli::Apifence,
    site::{ADMIN_RANGES, Family, Site, UNLISTED},
    terminal::Terminal,
};

use super::{PORT, send_syn, top};

/// A view with the source of a dropped packet under the cursor, at the form.
pub(crate) fn asked(site: &Site, filter: &Apifence) -> Result<Terminal> {
    let mut top = top(site, filter)?;
    send_syn(site, UNLISTED[0])?;
    top.shows(&[UNLISTED[0]])?;
    top.press("a")?;
    top.shows(&["add to a list", "range    203.0.113.9", "expires  8h"])?;
    Ok(top)
}

/// The same, with a comment, after the dry run.
pub(crate) fn checked(site: &Site, filter: &Apifence) -> Result<Terminal> {
    let mut top = asked(site, filter)?;
    top.press("\rbuild agent\r")?;
    top.shows(&[
        "nothing changed yet",
        "+203.0.113.9/32",
        "comment  build agent",
        "y add it",
    ])?;
    Ok(top)
}

/// Leaves the form, and ends the view.
pub(crate) fn left(mut top: Terminal) -> Result<()> {
    top.shows(&["Esc leave"])?;
    // An escape and a letter at once are another key.
    top.press("\x1b")?;
    top.until("no form", |screen| !screen.contents().contains("Esc leave"))?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn a_dropped_source_that_is_added_passes() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    let mut top = checked(&site, &filter)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    ensure!(filter.list()? == before, "a dry run changes nothing");
    top.press("y")?;
    top.shows(&["in force:", "3 ranges"])?;
    let _connection = site.unlisted_gets_in(Family::V4, PORT)?;
    site.unlisted_is_dropped(Family::V6, PORT, &filter)?;
    let list = filter.list()?;
    let line = list.lines().find(|line| line.starts_with(UNLISTED[0]));
    let line = line.with_context(|| format!("not in:\n{list}"))?;
    ensure!(
        line.contains("expires=") && line.ends_with("# build agent"),
        "{line}"
    );
    let history = filter.history()?;
    let by = history[0].to_string();
    let command = "ranges add 203.0.113.9 --expires 8h --comment 'build agent' (from top)";
    ensure!(by.contains(command), "{by}");
    top.press("\r2")?;
    top.shows(&[UNLISTED[0], "build agent"])?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn answers_can_be_changed_before_a_yes() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = filter.list()?;
    let mut top = asked(&site, &filter)?;
    // An expiry that cannot be read, and back: nothing that was typed is lost.
    top.press("x\rbuild agent\r")?;
    top.shows(&["not added", "expiry `8hx`", "comment  build agent"])?;
    top.press("\r\x1b[A\x7f\x7f\x7f2d\r\r")?;
    top.shows(&["nothing changed yet", "expires  2d", "comment  build agent"])?;
    // The range may be wider.
    top.press("\r\x1b[A\x1b[A\x1b[A\x15203.0.113.0/24\r\r\r\r")?;
    top.shows(&["nothing changed yet", "+203.0.113.0/24"])?;
    left(top)?;
    ensure!(filter.list()? == before);
    Ok(())
}

#[test]
fn the_command_is_copied_and_printed() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[0])?;
    top.shows(&[UNLISTED[0]])?;
    top.press("c")?;
    let command = "apifence ranges add 203.0.113.9 --expires 8h";
    top.shows(&[command, "OSC 52"])?;
    top.press("\r")?;
    top.shows(&["q quit"])?;
    top.press("q")?;
    ensure!(top.ended()? == Some(0));
    top.until("the command after the view", |screen| {
        screen.contents().trim() == command
    })?;
    Ok(())
}

#[test]
fn a_source_of_a_port_with_its_own_list_is_added_to_that() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(2379)?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n"))?;
    fs::create_dir_all(filter.list_file("backup").parent().context("a folder")?)?;
    filter.write_list_of("backup", "192.0.2.77\n")?;
    filter.write_config(
        "interfaces = [\"eth0\"]\n[[guard]]\nports = [2379]\nlists = [\"backup\"]\n",
    )?;
    filter.ok(&["attach"])?;
    let mut top = Terminal::start(&filter, &site.node, &["top"], &[])?;
    tests::net::silent(
        &site.unlisted,
        tests::site::ip(UNLISTED[0]),
        tests::site::at(tests::site::NODE[0], 2379),
    )?;
    top.shows(&[UNLISTED[0], "2379"])?;
    top.press("a")?;
    top.shows(&["list     backup"])?;
    top.press("\r\r")?;
    top.shows(&["nothing changed yet"])?;
    top.press("y")?;
    top.shows(&["in force:"])?;
    site.unlisted_gets_in(Family::V4, 2379)?;
    ensure!(!filter.list()?.contains(UNLISTED[0]));
    top.press("\rq")?;
    top.ended_well()
}

/// A change that is under way is made in full, and its report is printed.
#[test]
fn a_view_that_ends_during_the_change_says_how_that_ended() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = checked(&site, &filter)?;
    top.press("y")?;
    top.signal(Signal::SIGTERM)?;
    ensure!(top.ended()? == Some(0));
    let is_added = filter.list()?.contains(UNLISTED[0]);
    // The signal may come before the key.
    ensure!(
        is_added == top.contents().contains("in force"),
        "{}",
        top.contents()
    );
    Ok(())
}
