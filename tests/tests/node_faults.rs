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

#[test]
fn the_master_of_a_proxys_workers_is_the_proxy() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let words = ["8443", "--worker", "--connect", "127.0.0.1:6443"];
    let _nginx = plant.stand_in("nginx", &words)?;
    has(&plant.proposal(NONE)?, "8443, #", "`nginx` (pid ")?;
    says(
        &plant.doctor(NONE)?,
        "fail",
        "port",
        "8443 is not protected: `nginx`",
    )
}

#[test]
fn names_of_others_stay_within_a_line_and_a_comment() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let to_api = ["--connect", "127.0.0.1:6443"];
    // A program that anybody can run, and a name that only root can give.
    let forger = ["--name", "a\nOK  forged", "7000", to_api[0], to_api[1]];
    let _forger = plant.stand_in("it", &forger)?;
    let painter = [
        "--name",
        "\u{1b}[2J\u{202e}\"]",
        "7001",
        to_api[0],
        to_api[1],
    ];
    let _painter = plant.stand_in("it", &painter)?;
    let name = "e\"t\u{1}\u{200b}'#\\";
    for words in [
        format!("link add {name} type veth peer name peer"),
        format!("address add 198.51.100.1/30 dev {name}"),
        format!("link set {name} up"),
    ] {
        plant.node.ip(&words)?;
    }
    let ran = plant.filter.run(&["doctor", "--from-root", NONE])?;
    let forged = ran
        .stdout
        .lines()
        .any(|line| line.starts_with("OK  forged"));
    ensure!(!forged && !ran.stdout.contains('\u{1b}'), "{ran}");
    plant.init(&["--yes"], "")?.succeeded()?;
    let interfaces = plant.filter.status("interfaces")?;
    ensure!(
        interfaces.as_array().map(Vec::len) == Some(2),
        "{interfaces:#}"
    );
    Ok(())
}
