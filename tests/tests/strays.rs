//! A filter that is on, and whose pins are elsewhere, is reported with its place.

use std::fs;

use anyhow::{Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use tests::{
    cli::{Apifence, FAILED, Ran, refused},
    mounts::{self, BPFFS},
    net::silent,
    netns::Namespace,
    site::{ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
};

const PORT: u16 = 6443;

/// `status`, `attach` and `detach` of `filter` must all report a filter that is not theirs, with
/// all of `words`; none may deny it.
fn is_reported(filter: &Apifence, words: &[&str]) -> Result<()> {
    let status = filter.json(&["status"])?;
    ensure!(status["state"] == "unknown", "{status:#}");
    let warnings = status["warnings"].to_string();
    let text = filter.ok(&["status"])?;
    ensure!(!text.contains("detached"), "{text}");
    let has_all = |text: &str, ran: &str| -> Result<()> {
        let line = text
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(line, "{words:?} are not there: {ran}");
        Ok(())
    };
    has_all(&warnings, &warnings)?;
    let takes_off = |ran: &Ran| ran.stderr.contains("the ports are open") || ran.code == Some(0);
    for command in [
        &ATTACH[..],
        &["detach"],
        &["detach", "--interface", INTERFACE],
    ] {
        let ran = filter.run(command)?;
        refused(&ran, FAILED, &[INTERFACE])?;
        has_all(&ran.stderr.replace("\nhint: ", " "), &ran.to_string())?;
        ensure!(!takes_off(&ran), "{ran}");
    }
    Ok(())
}

fn is_silent(site: &Site) -> Result<()> {
    silent(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))
}

#[test]
fn a_filter_pinned_in_another_directory_is_named() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let root = filter.bpffs().display().to_string();
    let pin = format!("{root}/layout-{LAYOUT_VERSION}/interfaces");
    let hint = format!("--bpffs {root}");
    let other = Apifence::new(&site.node)?.with_bpffs(format!("{BPFFS}/other"));
    is_reported(&other, &[INTERFACE, "since 20", &pin, &hint])?;
    is_silent(&site)?;
    // Another namespace shows nothing of it, whatever the interfaces' indices.
    let elsewhere = Namespace::new("elsewhere")?;
    let there = Apifence::new(&elsewhere)?.with_bpffs(format!("{BPFFS}/there"));
    assert_eq!(there.status("state")?, "detached");
    there.ok(&["detach"])?;
    // The hint works.
    filter.ok(&["detach"])?;
    assert_eq!(other.status("state")?, "detached");
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn a_filter_whose_bpffs_was_unmounted_is_named() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    // Only in this mount namespace: process 1 still has it.
    umount2(BPFFS, MntFlags::MNT_DETACH)?;
    mounts::mount_bpffs(BPFFS.as_ref())?;
    let words = [INTERFACE, "not mounted here", "bpftool link detach id"];
    let status = filter.json(&["status"])?;
    ensure!(status["state"] == "unknown", "{status:#}");
    let warnings = status["warnings"].to_string();
    ensure!(
        words.iter().all(|word| warnings.contains(word)),
        "{warnings}"
    );
    let ran = filter.run(&["detach"])?;
    refused(&ran, FAILED, &words[..2])?;
    is_silent(&site)
}

#[test]
fn a_filter_that_a_process_alone_holds_is_named() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let interfaces = filter
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/interfaces"));
    let pin = interfaces.join(format!("{}/link", site.node.ifindex(INTERFACE)?));
    let held = aya::programs::links::PinnedLink::from_pin(&pin)?;
    fs::remove_dir_all(filter.bpffs())?;
    let pid = format!("process {}", std::process::id());
    is_reported(&filter, &[INTERFACE, &pid, "ends with its process"])?;
    is_silent(&site)?;
    drop(held);
    // At once, though the kernel releases it a moment later.
    filter.ok(&ATTACH)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn a_filter_without_a_link_is_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut ours = tests::foreign::Foreign::named(filter_common::LinkHeader::Ethernet.program())?;
    let pin = format!("{BPFFS}/program");
    ours.pin(&pin)?;
    site.node
        .ip(&format!("link set dev {INTERFACE} xdp pinned {pin}"))?;
    is_reported(&filter, &[INTERFACE, "without a link", "xdp off"])?;
    site.node.ip(&format!("link set dev {INTERFACE} xdp off"))?;
    filter.ok(&ATTACH).map(drop)
}

/// These pins guard one interface, and others another.
#[test]
fn detach_says_what_it_leaves_on() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    site.node.ip("link add eth1 type veth peer name peer1")?;
    filter.ok(&ATTACH)?;
    let other = Apifence::new(&site.node)?.with_bpffs(format!("{BPFFS}/other"));
    let list = ["--authorized-ip-ranges", "192.0.2.1"];
    other.ok(&[&["attach", "--interface", "eth1"][..], &list].concat())?;
    let status = filter.json(&["status"])?;
    ensure!(status["state"] == "enforcing", "{status:#}");
    ensure!(
        status["warnings"]
            .to_string()
            .contains("`eth1` has an apifence filter")
    );
    let ran = filter.run(&["detach"])?.succeeded()?;
    ran.stderr_has(&["`eth1` has an apifence filter"])?;
    ensure!(!ran.stderr.contains("the ports are open"), "{ran}");
    let ran = other.run(&["detach"])?;
    ensure!(ran.stderr.contains("the ports are open"), "{ran}");
    Ok(())
}

#[test]
fn a_run_of_other_pins_is_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let other = Apifence::new(&site.node)?.with_bpffs(format!("{BPFFS}/other"));
    let mut run = filter.start(&[&["run"], &ATTACH[1..]].concat())?;
    run.line(|line| line.contains("guarding"))?;
    is_reported(
        &other,
        &[
            INTERFACE,
            "has an apifence filter since",
            "its link is pinned at",
        ],
    )?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?;
    Ok(())
}
