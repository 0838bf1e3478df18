//! The guard against lock-outs knows the cluster: its nodes, the administrators of this node, and
//! the effect of the first enforcement.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    cli::{Apifence, INPUT, Ran, refused, words},
    mounts::own_etc,
    net::{Echo, exchange, open},
    netns::{Namespace, two_interfaces},
    scrape::get,
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    stand_in::StandIn,
    wait::{PATIENCE, until},
};

const PORT: u16 = 6443;
const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");

fn write(path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    let folder = path.parent().context("a folder")?;
    fs::create_dir_all(folder)?;
    Ok(fs::write(path, text)?)
}

/// `ranges remove` of the unlisted client's address is refused, because a node has it, and says so.
fn is_a_node(filter: &Apifence, why: &str) -> Result<()> {
    let remove = ["ranges", "remove", UNLISTED[0]];
    let dry = filter.run(&[&["-o", "json"], &remove[..], &["--dry-run"]].concat())?;
    // It names the connections that it cuts, refused or not.
    if let Ok(change) = serde_json::from_str::<Value>(&dry.stdout) {
        let cut = &change["cut"][0];
        ensure!(
            cut["kind"] == "cluster_node" && cut["why"] == why,
            "{why}: {change:#}"
        );
    }
    let ran = filter.run(&remove)?;
    let words = format!("203.0.113.9, a cluster node ({why}), would lose");
    refused(
        &ran,
        INPUT,
        &["refused: ", &words, "would lose the API server"],
    )?;
    ensure!(ran.stderr.contains("cluster_cidrs"), "{ran}");
    ran.stderr_has(&["would be cut at their next packet"])
}

#[test]
fn cutting_a_node_needs_force_though_others_stay() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    own_etc()?;
    let _server = Echo::new(&site.node, PORT)?;
    let members = Echo::new(&site.node, 2380)?;
    let _other_server = Echo::new(&site.unlisted, PORT)?;
    filter.ok(&ATTACH)?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--comment", "worker"])?;
    let mut unlisted = site.unlisted_gets_in(Family::V4, PORT)?;
    let mut admin = site.admin_gets_in(Family::V4, PORT)?;
    let change = filter.json(&["ranges", "remove", UNLISTED[0], "--dry-run"])?;
    ensure!(change["cut"][0]["kind"] == "client", "{change:#}");
    ensure!(
        change["cut"][0]["why"] == "listed as 203.0.113.9/32 (worker)",
        "{change:#}"
    );

    let etcd = site.unlisted_gets_in(Family::V4, 2380)?;
    is_a_node(&filter, "etcd peer")?;
    drop((etcd, members));
    until("the connection is gone", || {
        let change = filter.json(&["ranges", "remove", UNLISTED[0], "--dry-run"]);
        Ok(change.is_ok_and(|change| change["cut"][0]["kind"] == "client"))
    })?;
    let api = open(&site.node, ip(NODE[0]), at(UNLISTED[0], PORT))?;
    is_a_node(&filter, "API server")?;
    drop(api);

    let manifests = "/etc/kubernetes/manifests";
    let manifest = |flag: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - command:\n    - it\n    - {flag}\n"
        )
    };
    for (file, flag) in [
        (
            "etcd.yaml",
            "--initial-cluster=n1=https://192.0.2.10:2380,n2=https://203.0.113.9:2380",
        ),
        (
            "kube-apiserver.yaml",
            "--etcd-servers=https://203.0.113.9:2379",
        ),
    ] {
        let path = format!("{manifests}/{file}");
        write(&path, &manifest(flag))?;
        is_a_node(&filter, "etcd peer")?;
        fs::remove_file(path)?;
    }
    let listed = filter.state_dir().join("@nodes");
    fs::write(&listed, "# nodes\n198.51.100.200\n203.0.113.0/28\n")?;
    is_a_node(&filter, "in `@nodes`")?;
    fs::remove_file(listed)?;
    // It is removed again, because it leads nowhere.
    let address = format!("203.0.113.1/24 dev {INTERFACE}");
    site.node.ip(&format!("address add {address}"))?;
    is_a_node(&filter, "own subnet 203.0.113.0/24")?;
    site.node.ip(&format!("address del {address}"))?;

    exchange(&mut unlisted, PATIENCE)?;
    filter.ok(&["ranges", "remove", UNLISTED[0], "--force"])?;
    filter.cuts(&mut unlisted)?;
    exchange(&mut admin, PATIENCE)?;
    Ok(())
}

#[test]
fn nodes_in_a_removed_cluster_cidr_are_named() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("cluster_cidrs = [\"203.0.113.0/24\"]")?;
    filter.ok(&ATTACH)?;
    let _unlisted = site.unlisted_gets_in(Family::V4, PORT)?;
    let _admin = site.admin_gets_in(Family::V4, PORT)?;
    filter.write_config("cluster_cidrs = [\"192.0.2.128/25\"]")?;
    let ran = filter.run(&[&ATTACH[..], &["--force"]].concat())?;
    ran.stderr_has(&["cluster node (`cluster_cidrs` 203.0.113.0/24)"])
}

#[test]
fn administrators_on_ssh_are_named() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let _sshd = StandIn::new(&site.node, PROGRAM, "sshd", &["2222"])?;
    filter.ok(&ATTACH)?;
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    let _login = site.unlisted_gets_in(Family::V4, 2222)?;
    let remove = ["ranges", "remove", UNLISTED[0]];
    let ran = filter.run(&[&remove[..], &["--dry-run"]].concat())?;
    let message = "203.0.113.9, with an SSH session on this node, would lose the protected ports (SSH itself is not filtered)";
    ensure!(format!("{ran}").contains(message), "{ran}");
    // Another administrator does not block the change; the present one does.
    let mut by = Command::new("env");
    by.arg(format!(
        "SSH_CONNECTION={} 50000 {} 22",
        UNLISTED[0], NODE[0]
    ));
    let ran = filter.run_by(by, &remove)?;
    refused(
        &ran,
        INPUT,
        &[
            "203.0.113.9",
            "the address of your SSH session, would lose the API server (SSH itself is not filtered)",
        ],
    )?;
    filter.ok(&remove)?;
    // A source that is blocked already is not blocked again.
    let ran = filter.run(&["ranges", "add", "192.0.2.128/25"])?;
    ensure!(!ran.stderr.contains("protected ports"), "{ran}");
    Ok(())
}

/// A kubelet, and files of kubeadm and flannel.
fn kubeadm(namespace: &Namespace) -> Result<StandIn> {
    own_etc()?;
    write(
        "/etc/kubernetes/manifests/kube-controller-manager.yaml",
        "spec:\n  containers:\n  - command:\n    - kube-controller-manager\n    - --cluster-cidr=10.244.0.0/16,fd00:10:244::/56\n",
    )?;
    write(
        "/etc/cni/net.d/10-it.conflist",
        "{\"plugins\": [{\"ipam\": {\"ranges\": [[{\"subnet\": \"10.244.3.0/24\"}]]}}]}",
    )?;
    StandIn::new(namespace, PROGRAM, "kubelet", &["10250"])
}

#[test]
fn the_first_enforcement_on_a_node_needs_the_cluster_cidrs() -> Result<()> {
    let [node, client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    let kubelet = kubeadm(&node)?;
    let server = Echo::new(&node, PORT)?;
    let attach = words("attach --interface n0 --authorized-ip-ranges 198.51.100.0/24");
    let is_refused = |ran: &Ran| {
        let process = format!("`kubelet` (pid {}) runs", kubelet.pid());
        refused(
            ran,
            INPUT,
            &["cluster node", &process, "`cluster_cidrs` is not set"],
        )?;
        for words in [
            "cluster_cidrs = [\"10.244.0.0/16\", \"fd00:10:244::/56\", \"192.0.2.0/24\", \"192.0.3.0/24\"]",
            "--cluster-cidrs 10.244.0.0/16,fd00:10:244::/56,192.0.2.0/24,192.0.3.0/24",
            "  10.244.0.0/16: pods (`--cluster-cidr` in `/etc/kubernetes/manifests/kube-controller-manager.yaml`)",
            "  192.0.2.0/24: own subnet",
            "nothing changed",
        ] {
            ensure!(ran.stderr.contains(words), "`{words}`: {ran}");
        }
        Ok(())
    };
    is_refused(&filter.run(&attach)?)?;
    ensure!(filter.status("state")? == "detached");
    // Monitor mode is not enforcement, so the next step is still the first one.
    filter.ok(&[&attach[..], &["--mode", "monitor"]].concat())?;
    let enforce = [&attach[..], &["--mode", "enforce"]].concat();
    is_refused(&filter.run(&enforce)?)?;
    open(&client, ip("192.0.2.2"), at("192.0.2.1", PORT))?;
    drop(server);
    // Neither is the off switch; a list after it is.
    filter.ok(&["detach"])?;
    filter.ok(&["ranges", "clear"])?;
    filter.ok(&["attach", "--interface", "n0"])?;
    is_refused(&filter.run(&["ranges", "set", "198.51.100.0/24"])?)?;
    filter.ok(&["detach"])?;
    // A list with all nodes is enough.
    let all = "198.51.100.0/24,10.244.0.0/16,fd00:10:244::/56,192.0.2.0/23";
    filter.ok(&["attach", "--interface", "n0", "--authorized-ip-ranges", all])?;
    // From then on enforcement is decided.
    filter.ok(&[&enforce[..], &["--force"]].concat())?;
    filter.ok(&["detach"])?;
    filter.ok(&attach)?;
    Ok(())
}

#[test]
fn force_or_the_cluster_cidrs_are_enough() -> Result<()> {
    let site = Site::new()?;
    let attach = [&ATTACH[..], &["--cluster-cidrs", "10.244.0.0/16"]].concat();
    for words in [attach, [&ATTACH[..], &["--force"]].concat()] {
        let filter = Apifence::new(&site.node)?;
        let etc = Path::new("/etc/kubernetes");
        if !etc.exists() {
            own_etc()?;
            write("/etc/kubernetes/kubelet.conf", "")?;
        }
        let ran = filter.run(&ATTACH)?;
        refused(&ran, INPUT, &["`/etc/kubernetes/kubelet.conf` exists"])?;
        ensure!(ran.stderr.contains("none found on this node"), "{ran}");
        filter.ok(&words)?;
        filter.ok(&ATTACH)?;
        filter.ok(&["detach"])?;
    }
    Ok(())
}

/// The API server, and a program on 443.
fn server_and_program(node: &Namespace, name: &str, words: &[&str]) -> Result<[StandIn; 2]> {
    let server = StandIn::new(node, PROGRAM, "kube-apiserver", &["6443"])?;
    let other = StandIn::new(node, PROGRAM, name, &[words, &["443"]].concat())?;
    Ok([server, other])
}

#[test]
fn a_port_of_another_program_needs_force() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let web = server_and_program(&site.node, "nginx", &[])?;
    let words = format!("`nginx` (pid {}) listens on TCP 443", web[1].pid());
    let ran = filter.run(&ATTACH)?;
    refused(&ran, INPUT, &[&words, "its clients would be dropped"])?;
    ran.stderr_has(&["use `--port 6443` to protect only the API server"])?;
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&[&ATTACH[..], &["--port", "6443"]].concat())?;
    site.unlisted_gets_in(Family::V4, 443)?;
    // An additional port is checked like the first ones.
    let ran = filter.run(&[&ATTACH[..], &["--port", "443,6443"]].concat())?;
    refused(&ran, INPUT, &[&words])?;
    filter.ok(&[&ATTACH[..], &["--port", "443,6443", "--force"]].concat())?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    // From then on it is decided, after a reboot, too.
    filter.ok(&ATTACH)?;
    filter.boot()?;
    filter.ok(&ATTACH)?;
    drop(web);
    Ok(())
}

#[test]
fn a_proxy_of_the_api_server_is_accepted_and_another_program_on_a_default_port_is_not() -> Result<()>
{
    let (site, filter) = Site::unguarded()?;
    for (name, words) in [
        ("haproxy", &["--connect", "192.0.2.10:6443"][..]),
        ("k3s-server", &[]),
    ] {
        let _programs = server_and_program(&site.node, name, words)?;
        filter.ok(&[&ATTACH[..], &["--force"]].concat())?;
        filter.ok(&["detach"])?;
        filter.ok(&ATTACH)?;
        filter.ok(&["detach"])?;
    }
    let _programs = server_and_program(&site.node, "gitea", &[])?;
    refused(&filter.run(&ATTACH)?, INPUT, &["`gitea` (pid "])?;
    filter
        .ok(&[&ATTACH[..], &["--port", "443,6443"]].concat())
        .map(drop)
}

/// Such as haproxy on a node that does not have the virtual address.
#[test]
fn a_proxy_without_connections_is_known_by_its_configuration() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    own_etc()?;
    let api = StandIn::new(&site.node, PROGRAM, "kube-apiserver", &["6443"])?;
    let proxy = StandIn::new(&site.node, PROGRAM, "haproxy", &["8443", "8080"])?;
    write(
        "/etc/haproxy/haproxy.cfg",
        "listen api\n bind *:8443\n server cp1 192.0.2.10:6443\n\
         listen web\n bind *:8080\n server web1 192.0.2.30:80\n",
    )?;
    filter.ok(&[&ATTACH[..], &["--port", "6443,8443"]].concat())?;
    site.unlisted_is_dropped(Family::V4, 8443, &filter)?;
    let ran = filter.run(&[&ATTACH[..], &["--port", "6443,8443,8080"]].concat())?;
    refused(&ran, INPUT, &["listens on TCP 8080"])?;
    drop((api, proxy));
    Ok(())
}

#[test]
fn the_first_start_of_run_leaves_a_port_of_another_program_alone() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _programs = server_and_program(&site.node, "traefik", &[])?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    let message =
        daemon.line(|line| line.starts_with("warning: monitor mode: nothing is dropped yet"))?;
    ensure!(message.contains("`traefik` (pid "), "{message}");
    daemon.line(|line| line.starts_with("guarding"))?;
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.write_config("ports = [6443]\n")?;
    until("it is ready", || {
        Ok(get(&site.node, "/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.unlisted_gets_in(Family::V4, 443).map(drop)
}

/// Rules at prerouting, and whether they redirect port 443.
const RULES: [(&str, bool); 8] = [
    (
        "add rule ip t pre tcp dport 443 dnat to 10.244.0.5:8443",
        true,
    ),
    (
        "add rule ip t pre tcp dport 400-500 dnat to 10.244.0.5",
        true,
    ),
    (
        "add chain ip t to; add rule ip t to dnat to 10.244.0.5; add rule ip t pre tcp dport 443 jump to",
        true,
    ),
    (
        "add rule ip t pre ip daddr 192.0.2.10 tcp dport 443 dnat to 10.244.0.5:8443",
        true,
    ),
    // A ClusterIP belongs to its service and is not an address of this node.
    (
        "add rule ip t pre ip daddr 10.96.0.1 tcp dport 443 dnat to 192.0.2.10:6443",
        false,
    ),
    ("add rule ip t pre tcp dport 443 redirect to :6443", false),
    (
        "add rule ip t pre udp dport 443 dnat to 10.244.0.5:8443",
        false,
    ),
    (
        "add rule ip t pre tcp dport 8443 dnat to 10.244.0.5:443",
        false,
    ),
];

#[test]
fn a_port_that_is_rewritten_to_another_host_needs_force() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    for (rules, is_foreign) in RULES {
        let chain = "add chain ip t pre { type nat hook prerouting priority -100; }";
        let script = format!("add table ip t; {chain}; {rules}");
        let output = site.node.output(Command::new("nft").arg(script))?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let ran = filter.run(&ATTACH)?;
        if is_foreign {
            refused(&ran, INPUT, &["redirects TCP 443", "chain `t pre`"]).context(rules)?;
            ran.stderr_has(&["use `--port 6443` to protect only the API server"])?;
        } else {
            ensure!(ran.code == Some(0), "{rules}: {ran}");
            filter.ok(&["detach"])?;
            // As if it had never enforced.
            fs::remove_dir_all(filter.state_dir())?;
        }
        site.node
            .output(Command::new("nft").arg("delete table ip t"))?;
    }
    Ok(())
}

/// A kubelet in a container, or in another network namespace, belongs to another machine.
#[test]
fn a_kubelet_of_another_network_namespace_asks_for_nothing() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _kubelet = StandIn::new(&site.admin, PROGRAM, "kubelet", &["10250"])?;
    filter.ok(&ATTACH).map(drop)
}

#[test]
fn the_first_start_of_run_on_a_node_watches_until_it_is_clear() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _kubelet = kubeadm(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    let list = ADMIN_RANGES.replace(',', "\n") + "\n";
    filter.write_list(&list)?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    let message =
        daemon.line(|line| line.starts_with("warning: monitor mode: nothing is dropped yet"))?;
    for words in [
        "cluster_cidrs = [\"10.244.0.0/16\"",
        "apifence enforce --force",
    ] {
        ensure!(message.contains(words), "{message}");
    }
    daemon.line(|line| line.starts_with("guarding"))?;
    let waits = || -> Result<()> {
        let answer = get(&site.node, "/readyz")?;
        ensure!(answer.status == 503, "{}", answer.body);
        ensure!(
            answer.body.contains("nothing is dropped yet"),
            "{}",
            answer.body
        );
        let status = filter.json(&["status"])?;
        ensure!(status["state"] == "monitoring", "{status:#}");
        ensure!(status["policy_source"] == "first_enforcement", "{status:#}");
        site.unlisted_gets_in(Family::V4, PORT).map(drop)
    };
    until("it was tried", || {
        let answer = get(&site.node, "/readyz");
        Ok(answer.is_ok_and(|answer| !answer.body.contains("starting")))
    })?;
    waits()?;
    // `run` follows every change meanwhile, and drops nothing.
    filter.ok(&["ranges", "add", "192.0.2.128/25"])?;
    filter.until_authorized("192.0.2.200", true)?;
    filter.write_list(format!("{list}192.0.2.64/26\n"))?;
    filter.until_authorized("192.0.2.70", true)?;
    waits()?;
    // A restart does not decide it either.
    drop(daemon);
    let daemon = filter.start(&["run", "--interface", INTERFACE])?;
    until("it was tried", || {
        let answer = get(&site.node, "/readyz");
        Ok(answer.is_ok_and(|answer| !answer.body.contains("starting")))
    })?;
    waits()?;
    drop(daemon);
    filter.boot()?;
    let _daemon = filter.start(&["run", "--interface", INTERFACE])?;
    until("it was tried", || {
        let answer = get(&site.node, "/readyz");
        Ok(answer.is_ok_and(|answer| !answer.body.contains("starting")))
    })?;
    waits()?;
    filter.write_config("cluster_cidrs = [\"10.244.0.0/16\"]\n")?;
    until("it is ready", || {
        Ok(get(&site.node, "/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    ensure!(filter.status("state")? == "enforcing");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V4, PORT).map(drop)
}
