//! Devices by the first header of their frames: filtered from there, or refused by name.

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::{Apifence, INPUT, refused},
    loaded::{INTERFACE, add_interface},
    net::Echo,
    netns::Namespace,
    packets::{CLIENT_PORT, V4, V6},
    tun::Tun,
};

const PORT: u16 = 6443;
/// The node, listed and unlisted clients, by family.
const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const LISTED: [&str; 2] = ["10.9.0.2", "fd09::2"];
const UNLISTED: [&str; 2] = ["10.9.0.3", "fd09::3"];
const GUARD: [&str; 4] = [
    "--interface",
    "wg0",
    "--authorized-ip-ranges",
    "10.9.0.2,fd09::2",
];

/// A node with a listener behind a tun device.
struct Node {
    namespace: Namespace,
    tun: Tun,
    _server: Echo,
    port: u16,
}

impl Node {
    fn new() -> Result<Self> {
        let namespace = Namespace::new("node")?;
        let tun = Tun::new(&namespace, "wg0", &["10.9.0.1/24", "fd09::1/64"])?;
        let server = Echo::new(&namespace, PORT)?;
        Ok(Self {
            namespace,
            tun,
            _server: server,
            port: CLIENT_PORT,
        })
    }

    /// Whether the node answers a SYN to the protected port; if not, it must answer the next one,
    /// to another port, with a reset.
    fn answers(&mut self, source: &str) -> Result<bool> {
        self.port += 2;
        let (tried, marker) = (self.port, self.port + 1);
        for (from, to) in [(tried, PORT), (marker, PORT + 1)] {
            let node = NODE[usize::from(source.contains(':'))];
            let packet = if source.contains(':') {
                V6::new(source.parse()?, node.parse()?)
                    .syn(from, to)
                    .packet()
            } else {
                V4::new(source.parse()?, node.parse()?)
                    .syn(from, to)
                    .packet()
            };
            self.tun.send(&packet)?;
        }
        let mut packet = [0; 2_000];
        let mut answered = false;
        loop {
            let len = self
                .tun
                .receive(&mut packet)
                .context("wait for an answer")?;
            let tcp = match packet[0] >> 4 {
                4 if packet[9] == 6 => &packet[20..len],
                6 if packet[6] == 6 => &packet[40..len],
                _ => continue,
            };
            match u16::from_be_bytes([tcp[2], tcp[3]]) {
                port if port == tried => answered = true,
                port if port == marker => return Ok(answered),
                _ => {}
            }
        }
    }
}

#[test]
fn a_tun_is_filtered_from_the_ip_header_on() -> Result<()> {
    let mut node = Node::new()?;
    let namespace = node.namespace.try_clone()?;
    let filter = Apifence::new(&namespace)?;
    for source in UNLISTED {
        ensure!(
            node.answers(source)?,
            "{source} is not answered without a filter"
        );
    }
    filter.ok(&[&["attach"], &GUARD[..]].concat())?;
    for family in [0, 1] {
        let dropped = filter.packets("drop", "unauthorized")?;
        ensure!(!node.answers(UNLISTED[family])?, "{}", UNLISTED[family]);
        ensure!(filter.packets("drop", "unauthorized")? == dropped + 1);
        ensure!(node.answers(LISTED[family])?, "{}", LISTED[family]);
        ensure!(filter.run(&["check", LISTED[family]])?.code == Some(0));
        ensure!(filter.run(&["check", UNLISTED[family]])?.code == Some(1));
    }
    ensure!(
        filter.packets("pass", "not_ip")? == 0,
        "{}",
        filter.ok(&["stats"])?
    );

    filter.ok(&[&["attach", "--mode", "monitor"], &GUARD[..]].concat())?;
    for source in UNLISTED {
        let would = filter.packets("would_drop", "unauthorized")?;
        ensure!(node.answers(source)?, "{source} in monitor mode");
        ensure!(filter.packets("would_drop", "unauthorized")? == would + 1);
    }
    filter.ok(&["ranges", "clear"])?;
    for source in UNLISTED {
        ensure!(node.answers(source)?, "{source} with the list switched off");
    }
    Ok(())
}

#[test]
fn a_default_route_over_a_tun_is_guarded() -> Result<()> {
    let mut node = Node::new()?;
    let namespace = node.namespace.try_clone()?;
    let filter = Apifence::new(&namespace)?;
    namespace.ip("route add default dev wg0")?;
    filter.ok(&["attach", "--authorized-ip-ranges", "10.9.0.2"])?;
    ensure!(node.answers(LISTED[0])? && !node.answers(UNLISTED[0])?);
    Ok(())
}

/// A program for the same kind of frames replaces that of each interface.
#[test]
fn programs_for_both_kinds_of_frames_are_replaced_in_place() -> Result<()> {
    let mut node = Node::new()?;
    let namespace = node.namespace.try_clone()?;
    add_interface(&namespace)?;
    let filter = Apifence::new(&namespace)?;
    let both = ["--interface", INTERFACE, "--interface", "wg0"];
    let list = ["--authorized-ip-ranges", "10.9.0.2,fd09::2"];
    filter.ok(&[&["attach"], &both[..], &list].concat())?;
    filter.ok(&[&["attach"], &both[..], &list].concat())?;
    // With the log, and without it at the end.
    let mut daemon = filter.start(&[&["run", "-v"], &both[..], &list].concat())?;
    daemon.line(|line| line.contains("guarding") && line.contains("wg0"))?;
    ensure!(!node.answers(UNLISTED[0])? && node.answers(LISTED[1])?);
    daemon.line(|line| line.contains("drop: unauthorized"))?;
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(daemon.wait()? == Some(0));
    for family in [0, 1] {
        ensure!(!node.answers(UNLISTED[family])? && node.answers(LISTED[family])?);
    }
    Ok(())
}

#[test]
fn what_cannot_be_judged_is_refused_by_name_and_nothing_is_attached() -> Result<()> {
    let namespace = Namespace::new("node")?;
    add_interface(&namespace)?;
    namespace.ip("link add redirected type ifb")?;
    let filter = Apifence::new(&namespace)?;
    let list = ["--authorized-ip-ranges", "192.0.2.1"];
    for (name, why) in [
        ("lo", "loopback is never filtered"),
        ("redirected", "it returns packets"),
    ] {
        let both = ["attach", "--interface", INTERFACE, "--interface", name];
        refused(
            &filter.run(&[&both[..], &list].concat())?,
            INPUT,
            &[name, why],
        )?;
        ensure!(!filter.bpffs().exists(), "{name}: something is attached");
    }
    // Its default route does not select it either.
    namespace.ip("link set redirected up")?;
    namespace.ip("route add default dev redirected")?;
    let ran = filter.run(&[&["attach"], &list[..]].concat())?;
    refused(&ran, INPUT, &["choose interface"])?;
    Ok(())
}
