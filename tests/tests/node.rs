//! `init` and `doctor` look at the node: files of each distribution, programs, interfaces, clients.

mod snapshot;

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;
use snapshot::same;
use tests::{
    cli::{FAILED, INPUT, refused},
    foreign::Foreign,
    net::{Echo, exchange, open},
    plant::{NEIGHBOUR, NODE, PROBE, Plant, STRANGER, has, says, tree},
    site::{at, ip},
    wait::PATIENCE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");

#[test]
fn every_distribution_is_read_from_its_files() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    for name in [
        "kubeadm",
        "kubeadm-ha",
        "k3s",
        "rke2",
        "k0s",
        "bare",
        "worker",
    ] {
        let print = ["init", "--print", "--from-root", &tree(name)];
        let ran = plant.filter.run(&print)?.succeeded()?;
        same(&format!("init-{name}"), &plant.filter, &[ran]);
        plant.is_untouched()?;
    }
    Ok(())
}

#[test]
fn init_writes_files_that_it_can_read_and_drops_nothing() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _server = Echo::new(&plant.node, 6443)?;
    let mut said = vec![plant.init(&["--yes"], "")?.succeeded()?];
    let filter = &plant.filter;
    ensure!(filter.status("state")? == "monitoring");
    ensure!(filter.status("ports")?.as_array().map(Vec::len) == Some(1));
    ensure!(
        filter
            .status("drift")?
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    let mut stranger = open(&plant.other, ip(STRANGER), at(NODE, 6443))?;
    let mut neighbour = open(&plant.other, ip(NEIGHBOUR), at(NODE, 6443))?;
    ensure!(filter.packets("would_drop", "")? > 0);
    // The mode is none of the config file's, so that it can be changed.
    said.extend(filter.run_all(&[
        &["ranges", "add", "198.51.100.7"],
        &["ranges", "list"],
        &["enforce", "--confirm-within", "60s"],
        &["confirm"],
    ])?);
    filter.cuts(&mut stranger)?;
    exchange(&mut neighbour, PATIENCE)?;
    said.push(plant.init(&["--yes"], "")?);
    same("init", filter, &said);
    Ok(())
}

#[test]
fn init_asks_five_questions_and_takes_what_is_answered() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let answers = "443,x\n443, 6443\neth9\n\n198.51.100.0/33\n192.0.2.0/24 @gcp-health-checks\n-\nperhaps\ny\n";
    let ran = plant.init(&[], answers)?.succeeded()?;
    let questions = ran
        .stderr
        .lines()
        .filter(|line| line.contains(" [") && line.contains("]"));
    let distinct: std::collections::BTreeSet<&str> = questions.collect();
    ensure!(distinct.len() == 5, "{distinct:#?}");
    ran.stderr_has(&[
        "`x` is not a port",
        "`eth9` is not an interface",
        "/33",
        "answer `y` or `n`",
    ])?;
    let config = plant.config()?;
    let lines: Vec<String> = config.lines().map(|line| line.trim().to_owned()).collect();
    has(&lines, "443, #", "typed in `apifence init`")?;
    has(&lines, "6443, #", "kube-apiserver.yaml")?;
    has(&lines, "\"192.0.2.0/24\", #", "other nodes")?;
    has(&lines, "\"@gcp-health-checks\", #", "typed in")?;
    has(&lines, "# \"10.244.0.0/16\", #", "pods")?;
    ensure!(plant.filter.status("state")? == "monitoring");
    Ok(())
}

#[test]
fn an_answer_of_no_and_a_stdin_that_ends_change_nothing() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let ran = plant.init(&[], "\n\n\n\nn\n")?;
    ensure!(ran.code == Some(1), "{ran}");
    ran.stderr_has(&["nothing written"])?;
    plant.is_untouched()?;
    for answers in ["", "\n", "\n\n\n\n"] {
        let ran = plant.init(&[], answers)?;
        refused(&ran, INPUT, &["end of standard input"])?;
        plant.is_untouched()?;
    }
    Ok(())
}

#[test]
fn what_an_operator_set_up_is_not_replaced() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let filter = &plant.filter;
    filter.write_config("ports = [6443]\n")?;
    refused(
        &plant.init(&["--yes"], "")?,
        INPUT,
        &["already has settings"],
    )?;
    filter.write_config("ports = [\n")?;
    refused(
        &plant.init(&["--yes"], "")?,
        INPUT,
        &["already has settings"],
    )?;
    filter.write_config("[lists.guests]\nmax_ranges = 5\n")?;
    refused(
        &plant.init(&["--yes"], "")?,
        INPUT,
        &["already has settings"],
    )?;
    // Where the mode cannot be kept, the next boot would enforce.
    filter.write_config("")?;
    fs::write(filter.state_dir(), "in the way\n")?;
    let ran = plant.init(&["--yes"], "")?;
    ensure!(ran.code == Some(FAILED), "{ran}");
    ran.stderr_has(&["state directory", "hint: "])?;
    fs::remove_file(filter.state_dir())?;
    plant.is_untouched()?;
    // A file of comments, as a package brings it, sets nothing; a link to it stays a link.
    let place = filter.config_file().with_extension("real");
    fs::rename(filter.config_file(), &place)?;
    std::os::unix::fs::symlink(&place, filter.config_file())?;
    filter.write_config("# ports = [443, 6443]\n")?;
    filter.write_list("not a range\n")?;
    ensure!(plant.init(&["--yes"], "")?.code == Some(INPUT));
    ensure!(filter.list()? == "not a range\n");
    ensure!(plant.config()? == "# ports = [443, 6443]\n");
    filter.write_list("198.51.100.0/24 # office\n")?;
    plant.init(&["--yes"], "")?.succeeded()?;
    ensure!(filter.list()? == "198.51.100.0/24 # office\n");
    ensure!(plant.config()?.contains("6443, #"));
    ensure!(filter.config_file().is_symlink(), "the link is gone");
    refused(
        &plant.init(&["--yes"], "")?,
        INPUT,
        &["a filter is already attached"],
    )?;
    filter.ok(&["detach"])?;
    Ok(())
}

#[test]
fn files_go_with_an_attach_that_fails() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let mut foreign = Foreign::load()?;
    let _link = plant.node.run(|| foreign.attach("eth0"))?;
    let checks = plant.doctor(&tree("kubeadm"))?;
    says(
        &checks,
        "fail",
        "interface",
        "no hook: it has the XDP program",
    )?;
    let ran = plant.init(&["--yes"], "")?;
    ensure!(
        ran.code.is_some_and(|code| [INPUT, FAILED].contains(&code)),
        "{ran}"
    );
    ran.stderr_has(&["passer_by", "hint: "])?;
    plant.is_untouched()?;
    // What was there before is there again.
    plant.filter.write_config("# mine\n")?;
    plant.init(&["--yes"], "")?;
    ensure!(plant.config()? == "# mine\n");
    Ok(())
}

#[test]
fn programs_and_clients_are_found_and_named() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let empty = tempfile::tempdir()?;
    let none = empty.path().display().to_string();
    let lines = plant.proposal(&none)?;
    has(&lines, "6443, #", "the usual port of an API server")?;

    let _api = plant.stand_in("kube-apiserver", &["7443"])?;
    let _proxy = plant.stand_in("haproxy", &["8443", "--connect", "127.0.0.1:7443"])?;
    let _join = plant.stand_in("rke2", &["9345"])?;
    let _web = plant.stand_in("nginx", &["443"])?;
    let _kubelet = plant.stand_in("kubelet", &["10250", "--connect", "127.0.0.1:7443"])?;
    let _unclear = plant.stand_in("tunneller", &["7000", "--connect", "127.0.0.1:7443"])?;
    let _inner = plant.stand_in("envoy", &["127.0.0.1:9000", "--connect", "127.0.0.1:7443"])?;
    let clients = [(NEIGHBOUR, 7443), (PROBE, 7443), (STRANGER, 8443)];
    let clients = clients.map(|(client, port)| open(&plant.other, ip(client), at(NODE, port)));
    let clients = clients.into_iter().collect::<Result<Vec<_>>>()?;

    let lines = plant.proposal(&none)?;
    has(&lines, "7443, #", "`kube-apiserver` (pid ")?;
    has(&lines, "8443, #", "`haproxy` (pid ")?;
    has(&lines, "9345, #", "where nodes join")?;
    for port in ["443, ", "10250, ", "7000, ", "9000, ", "6443, "] {
        ensure!(
            !lines.iter().any(|line| line.starts_with(port)),
            "{lines:#?}"
        );
    }
    has(
        &lines,
        "\"192.0.2.0/24\", #",
        "other nodes: the network of `eth0`",
    )?;
    has(&lines, "\"@gcp-health-checks\", #", "connected now")?;
    has(
        &lines,
        "# 203.0.113.9 # 1 connection now",
        "private address",
    )?;
    has(&lines, "0.0.0.0/32 #", "")?;

    let checks = plant.doctor(&none)?;
    says(&checks, "fail", "port", "7443 is not protected")?;
    says(&checks, "fail", "port", "8443 is not protected: `haproxy`")?;
    says(&checks, "fail", "port", "9345 is not protected")?;
    says(&checks, "fail", "port", "`nginx` (pid ")?;
    says(&checks, "warn", "node", "`tunneller` (pid ")?;
    says(
        &checks,
        "fail",
        "client",
        "192.0.2.21 is connected, but not allowed",
    )?;
    says(&checks, "fail", "client", "35.191.0.5 is connected")?;
    says(&checks, "warn", "client", "203.0.113.9 is connected")?;
    drop(clients);
    Ok(())
}

#[test]
fn the_ports_of_a_process_and_of_a_file_are_both_protected() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["7443"])?;
    let lines = plant.proposal(&tree("kubeadm"))?;
    has(&lines, "7443, #", "`kube-apiserver`")?;
    has(&lines, "6443, #", "kube-apiserver.yaml")?;
    let checks = plant.doctor(&tree("kubeadm"))?;
    says(&checks, "warn", "node", "port 6443")
}

#[test]
fn the_doctor_is_content_with_a_node_that_is_in_order() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let filter = &plant.filter;
    let tree = tree("kubeadm");
    plant.init(&["--yes"], "")?.succeeded()?;
    filter.ok(&["ranges", "set", "198.51.100.0/24"])?;
    filter.ok(&["enforce"])?;
    let _daemon = filter.start_run(&[])?;
    let doctor = ["doctor", "--from-root", &tree];
    let ran = filter.run(&doctor)?.succeeded()?;
    ensure!(!ran.stdout.contains("FAIL"), "{ran}");
    same("doctor", filter, &[ran]);
    // Faults of the files, each named.
    filter.write_list("198.51.100.0/24\nnonsense\n")?;
    filter.write_list_of("guests", "also nonsense\n")?;
    let config = plant.config()?;
    filter.write_config(config + "portz = 5\n")?;
    let checks = plant.doctor(&tree)?;
    says(&checks, "fail", "lists", "list `default`")?;
    says(&checks, "fail", "lists", "list `guests`")?;
    says(&checks, "fail", "config", "portz")
}

#[test]
fn a_report_has_addresses_only_if_they_are_asked_for() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let filter = &plant.filter;
    let tree = tree("kubeadm");
    plant.init(&["--yes"], "")?.succeeded()?;
    filter.ok(&[
        "ranges",
        "set",
        "198.51.100.0/24,2001:db8:aa::/48",
        "--force",
    ])?;
    let scratch = tempfile::tempdir()?;
    let path: PathBuf = scratch.path().join("report.json");
    let bundle = ["doctor", "--from-root", &tree, "--bundle"];
    let file = path.display().to_string();
    let report = |more: &[&str]| -> Result<String> {
        let arguments = [&bundle[..], &[&file], more].concat();
        filter.run(&arguments)?;
        Ok(fs::read_to_string(&path)?)
    };
    let text = report(&[])?;
    for address in ["198.51.100", "2001:db8", "192.0.2", "10.244"] {
        ensure!(!text.contains(address), "{address} in {text}");
    }
    let parsed: Value = serde_json::from_str(&text)?;
    for key in [
        "apifence",
        "kernel",
        "doctor",
        "status",
        "settings",
        "counters",
        "interfaces",
    ] {
        ensure!(!parsed[key].is_null(), "no {key} in {text}");
    }
    ensure!(parsed["distribution"] == "kubeadm" && text.contains("v4-address-1"));
    ensure!(report(&["--with-addresses"])?.contains("192.0.2.0/24"));
    Ok(())
}
