//! A binary of another map layout takes over from the previous or the next one, and the port is
//! never open.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tests::{
    cli::{Apifence, Background, FAILED, Ran, binary, refused},
    net::{Echo, SynSender, Transfer, tcp_counter},
    peer::Peer,
    site::{ADMIN, ATTACH, Family, NODE, Site, UNLISTED, at, ip},
    strace::strace,
};

const PORT: u16 = 6443;
/// An adjacent layout whose number has as many digits.
const OTHER: u32 = LAYOUT_VERSION ^ 1;

/// A copy of the binary with another layout number.
struct Other {
    path: PathBuf,
    _directory: TempDir,
}

impl Other {
    fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let path = directory.path().join("apifence");
        // By another process: a thread that forks meanwhile would keep the file open for writing,
        // so that it could not be executed.
        let copy = format!("s/layout-{LAYOUT_VERSION}/layout-{OTHER}/g");
        let copied = Command::new("sh")
            .env("LC_ALL", "C")
            .args(["-c", r#"sed "$0" "$1" > "$2" && chmod 755 "$2""#, &copy])
            .args([binary(), &path])
            .status()?;
        ensure!(copied.success(), "copy the binary: {copied}");
        Ok(Self {
            path,
            _directory: directory,
        })
    }

    fn command(&self, filter: &Apifence, arguments: &[&str]) -> Command {
        let own = filter.command(arguments);
        let mut command = Command::new(&self.path);
        command.args(own.get_args());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn run(&self, site: &Site, filter: &Apifence, arguments: &[&str]) -> Result<Ran> {
        let output = site.node.output(&mut self.command(filter, arguments))?;
        Ok(Ran::new(arguments, &output))
    }

    fn ok(&self, site: &Site, filter: &Apifence, arguments: &[&str]) -> Result<()> {
        self.run(site, filter, arguments)?.succeeded().map(drop)
    }
}

/// An unlisted source that sends SYNs without a pause, and a listed one with a running transfer.
struct Traffic<'a> {
    site: &'a Site,
    server: &'a Echo,
    answered: u64,
    accepted: usize,
    senders: Vec<SynSender>,
    transfers: Vec<Transfer>,
}

impl<'a> Traffic<'a> {
    fn start(site: &'a Site, server: &'a Echo) -> Result<Self> {
        let mut transfers = Vec::new();
        for family in 0..2 {
            let target = at(NODE[family], PORT);
            transfers.push(Transfer::new(&site.admin, ip(ADMIN[family]), target)?);
        }
        let (answered, accepted) = (answers(site)?, server.accepted());
        let mut senders = Vec::new();
        for family in 0..2 {
            let target = at(NODE[family], PORT);
            senders.push(SynSender::new(
                &site.unlisted,
                ip(UNLISTED[family]),
                target,
            )?);
        }
        Ok(Self {
            site,
            server,
            answered,
            accepted,
            senders,
            transfers,
        })
    }

    /// No unlisted connection was made since the start, and the transfer continues.
    fn holds(&self) -> Result<()> {
        for transfer in &self.transfers {
            transfer.flows()?;
        }
        let now = (answers(self.site)?, self.server.accepted());
        ensure!(now == (self.answered, self.accepted), "somebody got in");
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.holds()?;
        self.senders.into_iter().try_for_each(SynSender::stop)
    }
}

/// Answers of the node to the unlisted source.
fn answers(site: &Site) -> Result<u64> {
    tcp_counter(&site.unlisted, "InSegs")
}

fn layouts(filter: &Apifence) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(filter.bpffs())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| name.starts_with("layout-"));
    names.sort();
    Ok(names)
}

#[test]
fn attach_takes_over_from_another_layout_without_a_gap() -> Result<()> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    let other = Other::new()?;
    other.ok(&site, &filter, &ATTACH)?;
    assert_eq!(layouts(&filter)?, [format!("layout-{OTHER}")]);
    // Only the binary that takes over can read the policy in force.
    for command in [&["status"][..], &["ranges", "clear"], &["check", "::2"]] {
        let ran = filter.run(command)?;
        refused(&ran, FAILED, &[&format!("layout {OTHER}")])?;
        ensure!(ran.stderr.contains("`apifence attach` or"), "{ran}");
    }
    let traffic = Traffic::start(&site, &server)?;
    // In both directions: an upgrade, and a downgrade.
    for _ in 0..3 {
        filter.ok(&ATTACH[..3])?;
        traffic.holds()?;
        assert_eq!(layouts(&filter)?, [format!("layout-{LAYOUT_VERSION}")]);
        let status = filter.json(&["status"])?;
        ensure!(status["state"] == "enforcing", "{status:#}");
        assert_eq!(status["drift"], json!([]));
        other.ok(&site, &filter, &ATTACH[..3])?;
        traffic.holds()?;
        assert_eq!(layouts(&filter)?, [format!("layout-{OTHER}")]);
    }
    traffic.stop()?;
    // The control: with the port open, the source is answered.
    filter.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V4, PORT).map(drop)
}

#[test]
fn the_settings_of_the_other_layout_stay() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let other = Other::new()?;
    let more = ["--port", "9345,6443", "--cluster-cidrs", "10.0.0.0/8"];
    other.ok(&site, &filter, &[&ATTACH[..], &more].concat())?;
    // Only the maps hold it, as for a version without a state directory.
    fs::remove_dir_all(filter.state_dir())?;
    filter.ok(&ATTACH[..3])?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["ports"], json!([6443, 9345]));
    assert_eq!(status["origins"]["cluster"], 1);
    Ok(())
}

#[test]
fn every_interface_of_the_other_layout_is_taken_over() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let other = Other::new()?;
    let peer = Peer::new(&site)?;
    let both = [&ATTACH[..], &["--interface", "eth1"]].concat();
    other.ok(&site, &filter, &both)?;
    // The command names only one of them.
    filter.ok(&ATTACH[..3])?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(2));
    assert_eq!(layouts(&filter)?, [format!("layout-{LAYOUT_VERSION}")]);
    peer.is_silenced(PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn run_takes_over_once_the_other_run_has_ended() -> Result<()> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    let other = Other::new()?;
    let run = [&["run"], &ATTACH[1..]].concat();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut command = Command::new("setpriv");
        let own = other.command(&filter, &run);
        command.args(["--pdeathsig", "KILL"]).arg(&other.path);
        command.args(own.get_args()).env_remove("APIFENCE_BIN");
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut old = Background::from_child(site.node.spawn(&mut command)?)?;
        old.line(|line| line.contains("guarding"))?;
        let traffic = Traffic::start(&site, &server)?;
        for verb in [&run[..], &ATTACH, &["detach"]] {
            let ran = filter.run(verb)?;
            let pid = format!("(pid {})", old.pid());
            refused(&ran, FAILED, &[&pid, "manages this filter"])?;
            ran.stderr_has(&["systemctl stop apifence"])?;
        }
        ensure!(old.runs()?, "it has ended");
        old.signal(signal)?;
        old.wait()?;
        traffic.holds()?;
        let mut new = filter.start(&run)?;
        new.line(|line| line.contains("took over the filter on `eth0`"))?;
        new.line(|line| line.contains("guarding"))?;
        traffic.holds()?;
        assert_eq!(layouts(&filter)?, [format!("layout-{LAYOUT_VERSION}")]);
        assert_eq!(filter.status("state")?, "enforcing");
        new.signal(Signal::SIGTERM)?;
        new.wait()?;
        traffic.stop()?;
        filter.ok(&["detach"])?;
    }
    Ok(())
}

/// Wherever it dies, the port stays filtered, and the next command completes the takeover.
#[test]
fn a_takeover_that_is_killed_leaves_the_port_filtered() -> Result<()> {
    let calls = "bpf,unlink,unlinkat,rmdir,mkdir,rename,renameat,renameat2";
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    let other = Other::new()?;
    other.ok(&site, &filter, &ATTACH)?;
    let log = filter.ranges_file().with_file_name("strace");
    let traffic = Traffic::start(&site, &server)?;
    let killed = |what: &str, number: usize| {
        let kill = format!("inject={what}:signal=SIGKILL:when={number}");
        strace(&log, &[&format!("trace={what}"), &kill])
    };
    // The index, in its thread, of the call that replaces the program: the calls around it matter
    // most.
    let trace = strace(&log, &["trace=bpf"]);
    filter.run_by(trace, &ATTACH[..3])?.succeeded()?;
    let text = fs::read_to_string(&log)?;
    let call = |line: &&str| line.contains("bpf(");
    let all: Vec<&str> = text.lines().filter(call).collect();
    let update = all.iter().find(|line| line.contains("BPF_LINK_UPDATE"));
    let thread = update.and_then(|line| line.split(' ').next());
    let thread = thread.context("no program was replaced")?;
    let mut own = all.iter().filter(|line| line.starts_with(thread));
    let place = own.position(|line| line.contains("BPF_LINK_UPDATE"));
    let place = place.context("no program was replaced")? + 1;
    other.ok(&site, &filter, &ATTACH[..3])?;
    let mut numbers = vec![("bpf", 1), ("bpf", place / 3), ("bpf", 2 * place / 3)];
    numbers.extend((place - 3..place + 6).map(|call| ("bpf", call)));
    numbers.extend((1..24).map(|call| (&calls[4..], call)));
    let mut taken = 0;
    let (mut early, mut late) = (0, 0);
    for (what, number) in numbers {
        let ran = filter.run_by(killed(what, number), &ATTACH[..3])?;
        let step = || format!("killed at call {number} of {what}: {ran}");
        traffic.holds().with_context(step)?;
        let state = layouts(&filter)?;
        match state.len() {
            1 if state[0].ends_with(&OTHER.to_string()) => early += 1,
            1 => late += 1,
            _ => taken += 1,
        }
        // Either of the two binaries completes it.
        if number % 4 == 0 {
            filter.ok(&ATTACH[..3]).with_context(step)?;
            traffic.holds().with_context(step)?;
            assert_eq!(layouts(&filter)?, [format!("layout-{LAYOUT_VERSION}")]);
            let status = filter.json(&["status"])?;
            ensure!(status["state"] == "enforcing", "{}: {status:#}", step());
        }
        other.ok(&site, &filter, &ATTACH[..3]).with_context(step)?;
        traffic.holds().with_context(step)?;
        assert_eq!(layouts(&filter)?, [format!("layout-{OTHER}")]);
    }
    ensure!(taken > 10, "{early} early, {taken} between, {late} late");
    traffic.stop()
}
