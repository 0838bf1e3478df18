//! What the screen shows: the filter, the details, the tabs, and comments.

use anyhow::{Context as _, Result, ensure};
use tests::{
    site::{ADMIN, ATTACH, Family, INTERFACE, Site, UNLISTED},
    terminal::Terminal,
};

use super::{PORT, send_syn, top};

#[test]
fn a_filter_keeps_what_has_its_text() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let other = "203.0.113.5";
    site.add_unlisted(other)?;
    filter.ok(&ATTACH)?;
    let mut top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[0])?;
    send_syn(&site, other)?;
    top.shows(&[UNLISTED[0], other])?;
    top.press("/113.5")?;
    let only = |text: &str| text.contains(other) && !text.contains(UNLISTED[0]);
    top.until("the other alone", |screen| only(&screen.contents()))?;
    top.shows(&["/113.5", "1 with `113.5`"])?;
    top.press("\r")?;
    top.shows(&["filter `113.5`"])?;
    // In the tables of entries and interfaces, too.
    top.press("3")?;
    top.shows(&["0 with `113.5`"])?;
    top.press("1\x1b")?;
    top.shows(&[UNLISTED[0], other])?;
    top.press("/unauth")?;
    top.shows(&["2 with `unauth`"])?;
    top.press("\x1b")?;
    top.shows(&["q quit"])?;
    top.press("\x1b")?;
    top.ended_well()
}

#[test]
fn details_of_sources_entries_and_interfaces() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let comment = ["--comment", "office Berlin", "--expires", "30d"];
    filter.ok(&[&["ranges", "add", "198.51.100.0/24"], &comment[..]].concat())?;
    let mut top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[0])?;
    top.shows(&[UNLISTED[0]])?;
    top.press("\r")?;
    top.shows(&[
        "source 203.0.113.9",
        "first seen",
        "last seen",
        "to ports    6443",
        "verdict     drop",
        "reason      unauthorized",
        "interface   eth0",
        "sampled     no",
    ])?;
    top.press("\r2")?;
    let _connection = site.admin_gets_in(Family::V4, PORT)?;
    top.shows(&["198.51.100.0/24", "default", "office Berlin"])?;
    top.press("\r")?;
    top.shows(&[
        "entry 198.51.100.0/24",
        "comment    office Berlin",
        "list       default",
        "origin     list",
        "expires    in 29 d",
        "packets",
    ])?;
    top.press("\r3\r")?;
    top.shows(&["interface eth0", "XDP", "native", "verdict"])?;
    // A comment alone changes nothing in the kernel.
    let list = filter.list()?.replace("office Berlin", "office Hamburg");
    filter.write_list(list)?;
    top.press("\r2")?;
    top.shows(&["office Hamburg"])?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn the_cursor_chooses_a_row() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let others = ["203.0.113.5", "203.0.113.6"];
    for other in others {
        site.add_unlisted(other)?;
    }
    filter.ok(&ATTACH)?;
    let mut top = top(&site, &filter)?;
    for source in [UNLISTED[0], others[0], others[1]] {
        send_syn(&site, source)?;
    }
    top.shows(&[UNLISTED[0], others[0], others[1]])?;
    // By name the order is fixed.
    top.press("sss")?;
    top.shows(&["SOURCE ▼"])?;
    top.press("\x1b[B\r")?;
    top.shows(&["source 203.0.113.6"])?;
    top.press("\r\x1b[F\r")?;
    top.shows(&["source 203.0.113.9"])?;
    top.press("\r\x1b[H\r")?;
    top.shows(&["source 203.0.113.5"])?;
    top.press("q")?;
    top.ended_well()
}

/// Every size has the tables, or the names of those that are hidden.
#[test]
fn panes_and_tabs_by_size() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[1])?;
    for (lines, letters) in [
        (10, 40),
        (20, 100),
        (24, 80),
        (40, 120),
        (44, 200),
        (60, 200),
    ] {
        top.resize(lines, letters)?;
        let has_all = lines >= 40;
        top.until(&format!("{letters}x{lines}"), |screen| {
            let text = screen.contents();
            let titles = ["1 refused sources", "2 used entries", "3 interfaces"];
            let tabs = text.contains("1 sources | 2 entries | 3 interfaces");
            text.contains("enforcing")
                && tabs != has_all
                && titles.iter().all(|title| text.contains(title)) == has_all
                && text.contains(UNLISTED[1])
        })?;
    }
    Ok(())
}

#[test]
fn without_colours_the_state_is_bold() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    for (no_color, bold) in [("", true), ("1", true)] {
        let top = Terminal::start(&filter, &site.node, &["top"], &[("NO_COLOR", no_color)])?;
        top.shows(&["enforcing"])?;
        top.until("bold state", |screen| {
            screen.cell(0, 0).is_some_and(|cell| cell.bold() == bold)
        })?;
    }
    Ok(())
}

#[test]
fn an_interval_can_be_chosen() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let slow = ["top", "--interval", "1h"];
    let mut top = Terminal::start(&filter, &site.node, &slow, &[])?;
    top.shows(&["enforcing"])?;
    send_syn(&site, UNLISTED[0])?;
    let printed = filter.ok(&["top", "--once", "--interval", "100ms"])?;
    ensure!(printed.contains(UNLISTED[0]), "{printed}");
    ensure!(!top.contents().contains(UNLISTED[0]), "{}", top.contents());
    // At a terminal, too, `--once` prints and ends.
    let once = ["top", "--once", "--interval", "100ms"];
    let mut printed = Terminal::start(&filter, &site.node, &once, &[])?;
    ensure!(printed.ended()?.context("no code")? == 0);
    printed.shows(&["REFUSED SOURCE", UNLISTED[0], INTERFACE])?;
    ensure!(!printed.contents().contains(ADMIN[0]));
    top.press("q")?;
    top.ended_well()
}
