//! `init` and `doctor` on nodes where an unlisted source or a program tries to have a part in what
//! they find.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    cli::{INPUT, refused},
    net::{connect_from, open},
    plant::{NODE, Plant, STRANGER, has, says, tree},
    site::{at, ip},
    stand_in::StandIn,
    wait::PATIENCE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");
/// A directory without files of a node.
const NONE: &str = "/proc/self/fdinfo";

/// No line that already has settings has these words.
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
    // A program that anyone can run, and a name that only root can give.
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

#[test]
fn a_neighbour_with_a_public_address_is_not_let_in_unasked() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    plant.node.ip("address add 185.12.64.10/24 dev eth0")?;
    plant.other.ip("address add 185.12.64.21/32 dev eth0")?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let _used = open(&plant.other, ip("185.12.64.21"), at("185.12.64.10", 6443))?;
    let lines = plant.proposal(NONE)?;
    sets_no(&lines, "185.12.64.")?;
    has(
        &lines,
        "# 185.12.64.21 # ",
        "the network of `eth0`: a node or another machine",
    )?;
    says(&plant.doctor(NONE)?, "warn", "client", "185.12.64.21")?;
    let ran = plant.init(&["--yes"], "")?.succeeded()?;
    ensure!(!ran.stderr.contains(" (was "), "{ran}");
    // It may be a node all the same.
    let ran = plant.filter.run(&["enforce", "--confirm-within", "60s"])?;
    refused(&ran, INPUT, &["185.12.64.21", "own subnet 185.12.64.0/24"])
}

#[test]
fn a_pod_cidr_of_half_the_world_is_a_comment() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let node = TempDir::with_prefix("apf-node-")?;
    let plugins = node.path().join("etc/cni/net.d");
    fs::create_dir_all(&plugins)?;
    let ipam =
        r#"{"plugins": [{"ipam": {"ranges": [[{"subnet": "0.0.0.0/1"}, {"subnet": "::/0"}]]}}]}"#;
    fs::write(plugins.join("10-it.conflist"), ipam)?;
    let lines = plant.proposal(&node.path().display().to_string())?;
    has(&lines, "# \"0.0.0.0/1\", # ", "too wide for pods")?;
    has(&lines, "# \"::/0\", # ", "too wide for pods")
}

#[test]
fn of_many_strangers_some_are_named() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    plant.other.ip("link set lo up")?;
    plant.other.ip("route add local 203.0.112.0/24 dev lo")?;
    let sources = (1..=100).map(|last| IpAddr::from([203, 0, 112, last]));
    let connections = sources.map(|source| open(&plant.other, source, at(NODE, 6443)));
    let _held = connections.collect::<Result<Vec<_>>>()?;
    let lines = plant.proposal(NONE)?;
    let named = lines
        .iter()
        .filter(|line| line.contains("203.0.112."))
        .count();
    ensure!(named == 50, "{named} of them are named");
    has(&lines, "# 50 more: ", "suggest")?;
    let checks = plant.doctor(NONE)?;
    says(&checks, "warn", "client", "80 more connected clients")?;
    ensure!(checks.len() < 40, "{checks:#?}");
    Ok(())
}

#[test]
fn a_port_and_an_interface_are_needed() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let ran = plant
        .init(&[], "-\n,\n6443\r\nnone\n\n\n-\nY\n")?
        .succeeded()?;
    let again = ran.stderr.matches("at least one is necessary").count();
    ensure!(again == 3, "{ran}");
    ensure!(plant.filter.status("state")? == "monitoring");
    Ok(())
}

#[test]
fn files_of_an_init_that_was_killed_drop_nothing() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let tree = tree("kubeadm");
    let mut by = Command::new("strace");
    by.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf"]);
    by.args(["-e", "inject=bpf:signal=KILL:when=60"]);
    let filter = &plant.filter;
    let ran = filter.run_by(by, &["init", "--yes", "--from-root", &tree])?;
    ensure!(
        ran.code.is_none() && filter.status("state")? == "detached",
        "{ran}"
    );
    ensure!(plant.config()?.contains("6443"), "no config file");
    let daemon = filter.start_run(&[])?;
    ensure!(filter.status("state")? == "monitoring");
    drop(daemon);
    filter.boot()?;
    let _daemon = filter.start_run(&[])?;
    filter.until_status("state", "monitoring")
}

#[test]
fn a_proxy_that_nobody_uses_yet_is_a_note() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let _proxy = plant.stand_in("haproxy", &["8443", "443", "127.0.0.1:9000"])?;
    let _ingress = plant.stand_in("traefik", &["8000", "--connect", "127.0.0.1:6443"])?;
    let checks = plant.doctor(NONE)?;
    says(
        &checks,
        "warn",
        "node",
        "listens on 8443: if it forwards clients to the API server",
    )?;
    says(
        &checks,
        "warn",
        "node",
        "listens on 8000 and is connected to the API server",
    )?;
    let about = |port: &str| checks.iter().any(|one| one.to_string().contains(port));
    ensure!(!about("on 443: if it") && !about("9000"), "{checks:#?}");
    sets_no(&plant.proposal(NONE)?, "8000")
}
