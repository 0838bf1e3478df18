//! Traffic generators of others against a guarded node, as docs/benchmarks-method.md names them.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::Apifence,
    net::Echo,
    netns::{End, Namespace, veth},
    site::{ATTACH, INTERFACE},
};

use crate::case::{Outcome, case};

/// The guarded port.
const PORT: u16 = 6443;

/// The node's IPv6 address.
const NODE_V6: &str = "2001:db8:aa::1";

/// Packets of a generator that counts.
const COUNT: u64 = 20_000;

/// A node behind the filter, and a client on the other end of its cable.
struct Cable {
    _node: Namespace,
    client: Namespace,
    filter: Apifence,
    /// The MAC address of the node.
    mac: String,
    _server: Echo,
}

/// Tries each generator.
pub(crate) fn run() -> Result<()> {
    let cable = Cable::lay()?;
    case("hping3", || cable.hping3());
    case("trafgen", || cable.trafgen());
    case("pktgen", || cable.pktgen());
    case("xdp-trafficgen udp", || cable.xdp_trafficgen_udp());
    case("xdp-trafficgen tcp", || cable.xdp_trafficgen_tcp());
    Ok(())
}

impl Cable {
    fn lay() -> Result<Self> {
        let [node, client] = ["node", "client"].map(Namespace::new);
        let (node, client) = (node?, client?);
        veth(
            1500,
            End::new(&node, INTERFACE, &["192.0.2.1/24", "2001:db8:aa::1/64"]),
            End::new(&client, INTERFACE, &["192.0.2.2/24", "2001:db8:aa::2/64"]),
        )?;
        let filter = Apifence::new(&node)?;
        filter.ok(&ATTACH)?;
        let path = format!("/sys/class/net/{INTERFACE}/address");
        // The directory shows the interfaces of the namespace that mounted it.
        let link = node.ip(&format!("-brief link show {INTERFACE}"))?;
        let mac = link
            .split_whitespace()
            .find(|word| word.matches(':').count() == 5);
        Ok(Self {
            mac: mac
                .with_context(|| format!("find MAC address: {path}"))?
                .to_owned(),
            _server: Echo::new(&node, PORT)?,
            _node: node,
            client,
            filter,
        })
    }

    /// Runs a program of the client; returns all that it prints.
    fn run(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("run nothing")?;
        let ran = self
            .client
            .output(Command::new(program).args(arguments))
            .with_context(|| format!("run `{program}`"))?;
        let printed =
            [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok(printed.concat())
    }

    /// How many packets more `what` counts after `work`, and what that printed.
    fn counted(
        &self,
        [verdict, reason]: [&str; 2],
        work: impl FnOnce() -> Result<String>,
    ) -> Result<(u64, String)> {
        let before = self.filter.packets(verdict, reason)?;
        let printed = work()?;
        let after = self.filter.packets(verdict, reason)?;
        ensure!(after > before, "no `{reason}` was counted: {printed}");
        Ok((after - before, printed))
    }

    /// SYNs from anywhere, for two seconds: all are dropped, and none is answered.
    fn hping3(&self) -> Result<Outcome> {
        let port = PORT.to_string();
        let words = [
            "busybox",
            "timeout",
            "-s",
            "INT",
            "2",
            "hping3",
            "--flood",
            "--rand-source",
            "-S",
            "-p",
            &port,
            "192.0.2.1",
        ];
        let let_in = self.filter.packets("pass", "authorized")?;
        let (dropped, printed) = self.counted(DROPPED, || self.run(&words))?;
        let let_in = self.filter.packets("pass", "authorized")? - let_in;
        ensure!(printed.contains(" 0 packets received"), "{printed}");
        ensure!(let_in == 0, "{let_in} packets passed");
        let sent = printed
            .lines()
            .find_map(|line| line.split_once(" packets transmitted"));
        let (sent, _) = sent.with_context(|| format!("hping3 says no number: {printed}"))?;
        Ok(Outcome::Passed(format!(
            "{sent} SYNs sent, {dropped} dropped"
        )))
    }

    /// SYNs from random addresses: each is dropped.
    fn trafgen(&self) -> Result<Outcome> {
        let packet = format!(
            "{{ eth(daddr={}), ipv4(saddr=drnd(), daddr=192.0.2.1), tcp(dport={PORT}, syn) }}",
            self.mac
        );
        let count = COUNT.to_string();
        let words = [
            "trafgen", "--dev", INTERFACE, "--num", &count, "--cpus", "1", &packet,
        ];
        let (dropped, printed) = self.counted(DROPPED, || self.run(&words))?;
        ensure!(
            dropped == COUNT,
            "{dropped} of {COUNT} were dropped: {printed}"
        );
        Ok(Outcome::Passed(format!(
            "{COUNT} SYNs sent, {dropped} dropped"
        )))
    }

    /// UDP: each passes.
    fn pktgen(&self) -> Result<Outcome> {
        let write = |file: &str, commands: &[&str]| -> Result<()> {
            let path = format!("/proc/thread-self/net/pktgen/{file}");
            commands.iter().try_for_each(|command| {
                // Without a line feed `pgctrl` takes the last letter for one.
                fs::write(&path, format!("{command}\n"))
                    .with_context(|| format!("`{command}` to `{path}`"))
            })
        };
        let work = || {
            self.client.run(|| {
                write(
                    "kpktgend_0",
                    &["rem_device_all", &format!("add_device {INTERFACE}")],
                )?;
                let (count, mac) = (format!("count {COUNT}"), format!("dst_mac {}", self.mac));
                let port = [6443; 2].map(|port| port.to_string());
                write(
                    INTERFACE,
                    &[
                        &count,
                        &mac,
                        "clone_skb 0",
                        "dst 192.0.2.1",
                        &format!("udp_dst_min {}", port[0]),
                        &format!("udp_dst_max {}", port[1]),
                    ],
                )?;
                write("pgctrl", &["start"])?;
                let path = format!("/proc/thread-self/net/pktgen/{INTERFACE}");
                fs::read_to_string(&path).with_context(|| format!("read `{path}`"))
            })
        };
        let (passed, printed) = self.counted(PASSED, work)?;
        ensure!(passed >= COUNT, "{passed} of {COUNT} passed: {printed}");
        Ok(Outcome::Passed(format!(
            "{COUNT} UDP packets sent, {passed} passed"
        )))
    }

    /// What `xdp-trafficgen` says where it cannot run.
    fn xdp_trafficgen_refusal(&self) -> Result<Option<Outcome>> {
        let printed = self.run(&["xdp-trafficgen", "probe"])?;
        let refusal = printed
            .lines()
            .find(|line| line.contains("doesn't support"));
        Ok(refusal.map(|line| Outcome::NotRun(line.to_owned())))
    }

    /// UDP over IPv6: each passes.
    fn xdp_trafficgen_udp(&self) -> Result<Outcome> {
        let words = ["udp", "-m", &self.mac, "-a", NODE_V6, INTERFACE];
        if let Some(refusal) = self.xdp_trafficgen_refusal()? {
            return Ok(refusal);
        }
        let (passed, printed) = self.counted(PASSED, || self.xdp_trafficgen(&words))?;
        ensure!(passed >= COUNT, "{passed} of {COUNT} passed: {printed}");
        Ok(Outcome::Passed(format!(
            "{COUNT} UDP packets sent, {passed} passed"
        )))
    }

    /// A connection over IPv6 that is already open: its source is listed, and passes.
    fn xdp_trafficgen_tcp(&self) -> Result<Outcome> {
        let words = ["tcp", "-i", INTERFACE, NODE_V6];
        if let Some(refusal) = self.xdp_trafficgen_refusal()? {
            return Ok(refusal);
        }
        let dropped = self.filter.dropped()?;
        let counter = ["pass", "authorized"];
        let (passed, printed) = self.counted(counter, || self.xdp_trafficgen(&words))?;
        let dropped = self.filter.dropped()? - dropped;
        ensure!(dropped == 0, "{dropped} packets were dropped: {printed}");
        Ok(Outcome::Passed(format!(
            "{passed} TCP packets of a listed source passed"
        )))
    }

    /// Runs `xdp-trafficgen` for [`COUNT`] packets to the port, 30 s at most.
    fn xdp_trafficgen(&self, words: &[&str]) -> Result<String> {
        let (port, count) = (PORT.to_string(), COUNT.to_string());
        let program = ["busybox", "timeout", "-s", "INT", "30", "xdp-trafficgen"];
        let (mode, rest) = words
            .split_first()
            .context("run `xdp-trafficgen`: no mode")?;
        let number = [*mode, "-p", &port, "-n", &count];
        self.run(&[&program[..], &number, rest].concat())
    }
}

const DROPPED: [&str; 2] = ["drop", "unauthorized"];
const PASSED: [&str; 2] = ["pass", "not_tcp"];
