//! `init` and `doctor` on nodes where a stranger or a program tries to have a part in what they find.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tests::{
    net::{connect_from, open},
    plant::{NODE, Plant, STRANGER, has, says},
    site::{at, ip},
    stand_in::StandIn,
    wait::PATIENCE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");
/// A directory without files of a node.
const NONE: &str = "/proc/self/fdinfo";

/// No line that sets something has these words.
fn sets_no(lines: &[String], words: &str) -> Result<()> {
    let mut found = lines.iter();
    let found = found.find(|line| line.contains(words) && !line.starts_with('#'));
    ensure!(found.is_none(), "{found:?} in {lines:#?}");
    Ok(())
}

#[test]
fn a_strangers_connection_makes_it_no_part_of_the_cluster() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let _etcd = plant.stand_in("etcd", &["2379", "2380"])?;
    let _sshd = StandIn::titled(
        &plant.node,
        PROGRAM,
        ("sshd", "sshd: root [priv]"),
        &["2222"],
    )?;
    // From the port of etcd and of an API server, to etcd, and to `sshd` before any password.
    for (source, target) in [(2380, 6443), (6443, 6443), (0, 2379), (0, 2222), (0, 6443)] {
        let source = SocketAddr::new(ip(STRANGER), source);
        let _held = connect_from(&plant.other, source, at(NODE, target), PATIENCE)?;
        let _used = open(&plant.other, ip(STRANGER), at(NODE, 6443))?;
        let lines = plant.proposal(NONE)?;
        sets_no(&lines, STRANGER)?;
        has(&lines, "# 203.0.113.9 # ", "private address")?;
        says(&plant.doctor(NONE)?, "warn", "client", STRANGER)?;
    }
    Ok(())
}

#[test]
fn who_is_logged_in_is_an_administrator() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let session = ("sshd-session", "sshd-session: root@pts/0");
    let _sshd = StandIn::titled(&plant.node, PROGRAM, session, &["2222"])?;
    let _login = open(&plant.other, ip(STRANGER), at(NODE, 2222))?;
    let _used = open(&plant.other, ip(STRANGER), at(NODE, 6443))?;
    has(&plant.proposal(NONE)?, "203.0.113.9 # ", "SSH session")
}
