//! A guarded node on this kernel, and the refusal of a kernel that is too old.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::{Apifence, FAILED, refused},
    loaded::{HEADLESS, INTERFACE as QUIET, add_interface},
    net::Echo,
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
    table::Rules,
    wait::{until, while_it_lasts},
};

use crate::{
    case::{Outcome, case, plain},
    devices, pair, verdicts,
};

/// The guarded port; its neighbour is open.
const PORT: u16 = 6443;

/// Runs all cases; `long` adds the devices and the second hook.
pub(crate) fn guard(long: bool) -> Result<()> {
    let site = Site::new()?;
    add_interface(&site.node)?;
    site.node
        .ip(&format!("tuntap add dev {HEADLESS} mode tun"))?;
    let filter = Apifence::new(&site.node)?;
    let _servers = [
        Echo::new(&site.node, PORT)?,
        Echo::new(&site.node, PORT + 1)?,
    ];
    if !case("load", || load(&filter, &site)) {
        return Ok(());
    }
    case("verdict table", || {
        let frames = verdicts::judge(&filter, &site.node, !long)?;
        Ok(Outcome::Passed(format!("{frames} frames")))
    });
    plain("settings", || {
        if long {
            // Ports and destinations stay in force until the filter is detached, guards and their
            // lists as long as their files are there.
            filter.ok(&["detach"])?;
            filter.write_config("")?;
            let lists = filter.list_file("any");
            fs::remove_dir_all(lists.parent().context("in a folder")?)?;
            filter.ok(&ATTACH)?;
        } else {
            filter.ok(&["ranges", "set", ADMIN_RANGES, "--force"])?;
        }
        Ok(())
    });
    plain("hook native", || guards(&site, &filter, "native"));
    plain("commit-confirm", || confirms(&site, &filter));
    plain("expiry", || expires(&site, &filter));
    if long {
        devices::guard(&site.node, &filter);
        plain("hook generic", || {
            filter.ok(&["detach", "--interface", INTERFACE])?;
            filter.ok(&[
                "attach",
                "--interface",
                INTERFACE,
                "--xdp-mode",
                "generic",
                "--force",
            ])?;
            guards(&site, &filter, "generic")
        });
    }
    plain("detach", || {
        filter.ok(&["detach"])?;
        for family in Family::BOTH {
            site.unlisted_gets_in(family, PORT)?;
        }
        Ok(())
    });
    Ok(())
}

/// The kernel is refused by its version before anything is made, and everything passes.
pub(crate) fn refuse() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    case("refusal", || {
        let list = [
            "--interface",
            INTERFACE,
            "--authorized-ip-ranges",
            ADMIN_RANGES,
        ];
        let ran = filter.run(&[&["attach"], &list[..]].concat())?;
        refused(&ran, FAILED, &["it needs Linux 5.18 or later"])?;
        ensure!(!filter.bpffs().exists(), "pins are left");
        for family in Family::BOTH {
            site.unlisted_gets_in(family, PORT)?;
        }
        let error = ran.stderr.lines().find(|line| line.starts_with("error: "));
        Ok(Outcome::Passed(error.unwrap_or_default().to_owned()))
    });
    Ok(())
}

/// Attaches the filter; tells the seconds, and the instructions that the verifier processed.
fn load(filter: &Apifence, site: &Site) -> Result<Outcome> {
    let interfaces = format!("--interface={INTERFACE},{QUIET},{HEADLESS}");
    let ranges = format!(
        "--authorized-ip-ranges={}",
        Rules::Enforce.ranges().join(",")
    );
    let mut words = vec!["attach".to_owned(), interfaces, ranges];
    words.extend(Rules::Enforce.options());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = Instant::now();
    filter.ok(&words)?;
    let seconds = started.elapsed().as_secs_f32();
    let mut verified = Vec::new();
    for program in verdicts::open(filter, &site.node)? {
        let info = program.program().info()?;
        let count = info.verified_instruction_count();
        verified.push(
            count
                .context("the kernel does not say what it verified")?
                .to_string(),
        );
    }
    Ok(Outcome::Passed(format!(
        "{seconds:.1} s, {} instructions",
        verified.join(" + ")
    )))
}

/// The filter on the site's interface runs at `hook`. Listed sources pass, unlisted ones do not,
/// and the neighbouring port stays open.
fn guards(site: &Site, filter: &Apifence, hook: &str) -> Result<()> {
    let have = pair::hook(filter, INTERFACE)?;
    ensure!(have == hook, "attached as {have}, not as {hook}");
    for family in Family::BOTH {
        site.admin_gets_in(family, PORT)?;
        site.unlisted_is_dropped(family, PORT, filter)?;
        site.unlisted_gets_in(family, PORT + 1)?;
        site.other_protocols_pass(family, PORT)?;
    }
    Ok(())
}

/// An entry without a confirmation leaves by itself; a confirmed one stays.
fn confirms(site: &Site, filter: &Apifence) -> Result<()> {
    let source = UNLISTED[0];
    while_it_lasts(|time| {
        filter.ok(&["ranges", "add", source, "--confirm-within", time])?;
        site.unlisted_gets_in(Family::V4, PORT).map(drop)
    })?;
    is_out(filter, source)?;
    site.unlisted_is_dropped(Family::V4, PORT, filter)?;
    filter.ok(&["ranges", "add", source, "--confirm-within", "1h"])?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["ranges", "remove", source, "--force"])?;
    site.unlisted_is_dropped(Family::V4, PORT, filter)
}

/// An entry stops at its time, without any process.
fn expires(site: &Site, filter: &Apifence) -> Result<()> {
    let source = UNLISTED[1];
    while_it_lasts(|time| {
        filter.ok(&["ranges", "add", source, "--expires", time])?;
        site.unlisted_gets_in(Family::V6, PORT).map(drop)
    })?;
    is_out(filter, source)?;
    site.unlisted_is_dropped(Family::V6, PORT, filter)
}

/// Waits until `check` says that the source is dropped.
fn is_out(filter: &Apifence, source: &str) -> Result<()> {
    until("the entry leaves", || {
        Ok(filter.run(&["check", source])?.code == Some(1))
    })
}
