//! Every command works with the capabilities that the service unit grants.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::sys::signal::Signal;
use tests::{
    cli::{Apifence, Background, FAILED, Ran, refused},
    foreign::Foreign,
    held::{held_maps, inner_maps},
    net::Echo,
    scrape::{get, ready},
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED},
    wait::until,
};

/// The unit that is installed.
const UNIT: &str = include_str!("../../deploy/apifence.service");
const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const RUN: [&str; 3] = ["run", ATTACH[1], ATTACH[2]];

/// The capabilities of the unit, as setpriv(1) names them.
fn granted() -> Result<Vec<String>> {
    let mut lines = UNIT.lines();
    let line = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit bounds nothing")?.split(' ');
    let lower = names.map(|name| name.trim_start_matches("CAP_").to_lowercase());
    Ok(lower.collect())
}

/// `setpriv`, for a command with exactly these capabilities.
fn bounded(capabilities: &[String]) -> Command {
    let set = capabilities.iter().map(|name| format!(",+{name}"));
    let set = format!("-all{}", set.collect::<String>());
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", &set, "--inh-caps", "-all"]);
    setpriv.args(["--no-new-privs", "--pdeathsig", "KILL"]);
    setpriv
}

/// The program on one machine, with the capabilities of the unit.
struct Bounded<'a> {
    filter: &'a Apifence,
    site: &'a Site,
}

impl Bounded<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Ran> {
        self.filter.run_by(bounded(&granted()?), arguments)
    }

    /// Runs it and wants exit code 0, and `words` in its output.
    fn ok(&self, arguments: &[&str], words: &str) -> Result<()> {
        let ran = self.run(arguments)?;
        ensure!(ran.code == Some(0), "{ran}");
        let output = format!("{}{}", ran.stdout, ran.stderr);
        ensure!(output.contains(words), "no `{words}`: {ran}");
        Ok(())
    }

    fn start(&self, arguments: &[&str]) -> Result<Background> {
        let mut command = self.filter.command_by(bounded(&granted()?), arguments);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Background::from_child(self.site.node.spawn(&mut command)?)
    }

    fn lets_unlisted_in(&self) -> Result<()> {
        self.site.unlisted_gets_in(Family::V4, PORT).map(drop)
    }

    fn drops_unlisted(&self) -> Result<()> {
        let site = self.site;
        site.unlisted_is_dropped(Family::V4, PORT, self.filter)?;
        site.admin_gets_in(Family::V4, PORT).map(drop)
    }
}

#[test]
fn the_unit_grants_three_capabilities_and_attach_needs_each() -> Result<()> {
    let all = granted()?;
    assert_eq!(all, ["bpf", "net_admin", "perfmon"]);
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    for missing in &all {
        let mut rest = all.clone();
        rest.retain(|name| name != missing);
        let ran = filter.run_by(bounded(&rest), &ATTACH)?;
        refused(&ran, FAILED, &["permi"])?;
        let name = format!("CAP_{}", missing.to_uppercase());
        ensure!(ran.stderr.contains(&name), "no hint of {name}: {ran}");
        ensure!(!filter.bpffs().exists(), "{missing}: pins are left");
        site.unlisted_gets_in(Family::V4, PORT)?;
    }
    Ok(())
}

#[test]
fn every_command_works_with_the_capabilities_of_the_unit() -> Result<()> {
    let site = Site::new()?;
    let filter = &Apifence::new(&site.node)?;
    let own = Bounded {
        filter,
        site: &site,
    };
    let _server = Echo::new(&site.node, PORT)?;
    let editor = filter.ranges_file().with_file_name("editor");
    let script = format!("#!/bin/sh\necho '{} # by hand' >> \"$1\"\n", UNLISTED[0]);
    fs::write(&editor, script)?;
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;

    own.ok(&["config"], "bpffs")?;
    own.ok(&["init", "--print"], "ports")?;
    own.ok(&["doctor"], "0 failed")?;
    own.ok(&["status"], "not attached")?;
    own.ok(&[&ATTACH[..], &["--dry-run"]].concat(), "added")?;
    own.ok(&ATTACH, "guarding")?;
    own.drops_unlisted()?;
    own.ok(&["status"], "enforcing")?;
    own.ok(&["status", "--check"], "enforcing")?;
    own.ok(&["check", ADMIN[0]], "allowed")?;
    own.ok(&["stats"], "unauthorized")?;
    own.ok(&["events", "--recent"], UNLISTED[0])?;
    own.ok(&["top"], UNLISTED[0])?;
    // Again, over the filter that is there.
    own.ok(&ATTACH, "guarding")?;

    own.ok(&["ranges", "list"], "198.51.100.0/24")?;
    own.ok(&["ranges", "add", UNLISTED[0]], "1 added")?;
    own.lets_unlisted_in()?;
    own.ok(&["ranges", "history"], UNLISTED[0])?;
    own.ok(&["ranges", "rollback"], "removed")?;
    own.drops_unlisted()?;
    let mut edit = filter.command_by(bounded(&granted()?), &["ranges", "edit"]);
    let output = site.node.output(edit.env("EDITOR", &editor))?;
    let ran = Ran::new(&["ranges", "edit"], &output)?;
    ensure!(ran.code == Some(0), "{ran}");
    own.lets_unlisted_in()?;
    own.ok(&["confirm"], "confirmed")?;
    own.ok(&["ranges", "remove", UNLISTED[0]], "removed")?;
    own.drops_unlisted()?;
    fs::write(filter.ranges_file(), format!("{LIST}{}\n", UNLISTED[0]))?;
    own.ok(&["ranges", "reload"], "1 added")?;
    own.lets_unlisted_in()?;
    own.ok(
        &["ranges", "set", ADMIN_RANGES, "--confirm-within", "1h"],
        "on trial for",
    )?;
    own.drops_unlisted()?;
    own.ok(&["confirm"], "confirmed")?;
    own.ok(
        &["ranges", "add", UNLISTED[0], "--confirm-within", "1s"],
        "on trial for",
    )?;
    until("the deadline has passed", || {
        Ok(filter.json(&["status"])?["provisional"].is_null())
    })?;
    own.drops_unlisted()?;
    own.ok(&["ranges", "prune"], "")?;
    own.ok(&["ranges", "clear", "--force"], "")?;
    own.ok(&["ranges", "set", ADMIN_RANGES], "added")?;

    own.ok(&["monitor"], "monitoring")?;
    own.lets_unlisted_in()?;
    own.ok(&["suggest"], UNLISTED[0])?;
    own.ok(&["enforce", "--force"], "enforcing")?;
    own.drops_unlisted()?;
    own.ok(&["detach", "--interface", INTERFACE], "the ports are open")?;
    own.ok(&ATTACH, "guarding")?;
    own.ok(&["detach"], "the ports are open")?;
    ensure!(!filter.bpffs().exists(), "pins are left");
    own.lets_unlisted_in()?;
    own.ok(&["init", "--yes"], "watching")?;
    own.ok(&["detach"], "the ports are open")
}

#[test]
fn run_works_with_the_capabilities_of_the_unit() -> Result<()> {
    let site = Site::new()?;
    let filter = &Apifence::new(&site.node)?;
    let own = Bounded {
        filter,
        site: &site,
    };
    let _server = Echo::new(&site.node, PORT)?;
    fs::write(filter.ranges_file(), LIST)?;
    let mut run = own.start(&[&RUN[..], &["-v"]].concat())?;
    ready(&site.node, &mut run)?;
    own.drops_unlisted()?;
    // A command changes the list, and then the file does.
    own.ok(&["ranges", "add", UNLISTED[0]], "1 added")?;
    own.lets_unlisted_in()?;
    fs::write(filter.ranges_file(), LIST)?;
    run.line(|line| line.contains("ranges file applied"))?;
    own.drops_unlisted()?;
    // The list in force can be read again, wherever its maps were.
    own.ok(&["ranges", "add", "192.0.2.77"], "1 added")?;
    let maps = filter.bpffs().join(format!("layout-{LAYOUT_VERSION}/maps"));
    let before = filter.json(&["ranges", "list"])?;
    until("`run` holds the maps of the change", || {
        let pinned = inner_maps(&maps)?;
        ensure!(pinned.len() == 14, "{} inner maps are pinned", pinned.len());
        Ok(pinned.is_subset(&held_maps(run.pid())?))
    })?;
    fs::remove_dir_all(filter.bpffs())?;
    run.line(|line| line.contains("pinned again"))?;
    ensure!(maps.join("slot-1").exists());
    let ran = own.run(&["-o", "json", "ranges", "list"])?;
    let after: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(after["ranges"][0]["range"], before["ranges"][0]["range"]);
    assert_eq!(
        after["ranges"].as_array().map(Vec::len),
        before["ranges"].as_array().map(Vec::len)
    );
    own.ok(&["ranges", "remove", "192.0.2.77"], "1 removed")?;
    own.ok(&["ranges", "rollback"], "1 added")?;
    own.drops_unlisted()?;
    ensure!(get(&site.node, "/readyz")?.status == 200);
    run.signal(Signal::SIGTERM)?;
    run.line(|line| line.contains("the filter stays on"))?;
    assert_eq!(run.wait()?, Some(0));
    own.drops_unlisted()?;

    // A restart, and a warning that reads the rules of nftables.
    let rules = "table ip kube { chain services { type nat hook prerouting priority -100; \
                 tcp dport 444 dnat to 192.0.2.10:6443; }; }";
    let output = site.node.output(Command::new("nft").arg(rules))?;
    ensure!(output.status.success(), "{output:?}");
    let node = NODE.join(",");
    let mut run = own.start(&[&RUN[..], &["--destination", &node]].concat())?;
    run.line(|line| line.contains("[W10]"))?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    own.ok(&["detach"], "the ports are open")
}

/// The kernel describes programs by their ids for CAP_SYS_ADMIN alone.
#[test]
fn a_foreign_program_is_told_by_its_number_without_the_right_to_name_it() -> Result<()> {
    let site = Site::new()?;
    let filter = &Apifence::new(&site.node)?;
    let own = Bounded {
        filter,
        site: &site,
    };
    let mut foreign = Foreign::named("cil_xdp_entry")?;
    let id = foreign.id()?;
    let link = site.node.run(|| foreign.attach(INTERFACE))?;
    let ran = own.run(&ATTACH)?;
    let number = format!("program {id} (its name needs CAP_SYS_ADMIN)");
    refused(&ran, FAILED, &[&number, INTERFACE])?;
    refused(&filter.run(&ATTACH)?, FAILED, &["cil_xdp_entry", "Cilium"])?;
    // It may be a filter whose pins are elsewhere, so no command denies that there is one.
    own.ok(&["status"], "unknown")?;
    own.ok(&["status"], &format!("program {id}"))?;
    drop(link);

    fs::write(filter.ranges_file(), LIST)?;
    let mut run = own.start(&RUN)?;
    run.line(|line| line.contains("guarding"))?;
    Ok(())
}

/// As when an operator types it, with all capabilities.
#[test]
fn run_gives_up_what_it_does_not_need() -> Result<()> {
    const SYS_ADMIN: u64 = 1 << 21;
    const SYS_MODULE: u64 = 1 << 16;
    const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    fs::write(filter.ranges_file(), LIST)?;
    let mut run = filter.start(&RUN)?;
    ready(&site.node, &mut run)?;
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", run.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
            let value = u64::from_str_radix(value.context(set)?, 16)?;
            ensure!(value & (SYS_ADMIN | SYS_MODULE) == 0, "{set}: {status}");
            let keeps = !["CapPrm", "CapEff"].contains(&set) || value & NEEDED == NEEDED;
            ensure!(keeps, "{set}: {status}");
        }
        threads += 1;
    }
    ensure!(threads >= 5, "{threads} threads");
    Ok(())
}
