//! `init` and `doctor` read files of nodes in the forms that people and installers give them.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    net::open,
    plant::{NODE, Plant, STRANGER, has, says},
    site::{at, ip},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");
const MANIFEST: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";
const K3S: &str = "etc/systemd/system/k3s.service";

/// A directory with these files.
fn files(files: &[(&str, &str)]) -> Result<TempDir> {
    let node = TempDir::with_prefix("apf-node-")?;
    for (path, text) in files {
        let path = node.path().join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
    }
    Ok(node)
}

/// A static pod with these words of its command, as YAML has them.
fn pod(words: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {words}\n")
}

#[test]
fn the_port_of_the_api_server_has_many_forms() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let haproxy = "listen api\n bind \"*:8443-8444\"\n server cp1 192.0.2.11:7443\n";
    let unit = "[Service]\nEnvironmentFile=-/etc/default/kube-apiserver\n\
        # ExecStart=it --secure-port=1\nExecStart=kube-apiserver $OPTIONS\n";
    let k3s = "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--https-listen-port' \\\n\t'5443' \\\n";
    let drop_in = "[Service]\nExecStart=\nExecStart=k3s server --https-listen-port=7443\n";
    let k0s =
        "[Service]\nExecStart=/usr/local/bin/k0s controller --config=/etc/k0s/it.yaml --single\n";
    for (all, words) in [
        (
            vec![(
                MANIFEST,
                pod("command: [kube-apiserver, --secure-port, '7443']"),
            )],
            "--secure-port",
        ),
        (
            vec![(
                MANIFEST,
                pod(
                    "command: [kube-apiserver]\n    args: [--secure-port=5443, \"--secure-port=7443\"]",
                ),
            )],
            "--secure-port",
        ),
        (
            vec![(
                MANIFEST,
                pod("command: [sh, -c, 'exec kube-apiserver --secure-port=7443 2>&1 | tee log']"),
            )],
            "--secure-port",
        ),
        (
            vec![(
                MANIFEST,
                format!(
                    "{}---\n{}",
                    pod("name: it"),
                    pod("command: [kube-apiserver, --secure-port=7443]")
                ),
            )],
            "--secure-port",
        ),
        (
            vec![
                ("etc/systemd/system/kube-apiserver.service", unit.to_owned()),
                (
                    "etc/default/kube-apiserver",
                    "OPTIONS=--secure-port=7443 --it\n".to_owned(),
                ),
            ],
            "kube-apiserver.service",
        ),
        (
            vec![
                (K3S, k3s.to_owned()),
                (
                    "etc/systemd/system/k3s.service.d/port.conf",
                    drop_in.to_owned(),
                ),
            ],
            "k3s.service",
        ),
        (
            vec![
                (
                    K3S,
                    "[Service]\nExecStart=k3s server -c /opt/k3s.yaml\n".to_owned(),
                ),
                (
                    "opt/k3s.yaml",
                    "https-listen-port: \"7443\"\nserver: https://192.0.2.11:6443\n".to_owned(),
                ),
            ],
            "/opt/k3s.yaml",
        ),
        (
            vec![
                ("etc/systemd/system/k0scontroller.service", k0s.to_owned()),
                (
                    "etc/k0s/it.yaml",
                    "spec:\n  api:\n    port: 7443\n".to_owned(),
                ),
            ],
            "/etc/k0s/it.yaml",
        ),
    ] {
        let all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (*path, &**text)).collect();
        let all = [&all[..], &[("etc/haproxy/conf.d/api.cfg", haproxy)]].concat();
        let node = files(&all)?;
        let lines = plant.proposal(&node.path().display().to_string())?;
        has(&lines, "7443, # ", words)?;
        has(&lines, "8443, # ", "haproxy")?;
        has(&lines, "8444, # ", "haproxy")?;
        let other = lines.iter().find(|line| {
            ["6443,", "5443,", "1,"]
                .iter()
                .any(|port| line.starts_with(port))
        });
        ensure!(other.is_none(), "{other:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_is_no_default_that_somebody_chose() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    for (text, words) in [
        ("spec: [\n".to_owned(), "cannot be read"),
        ("\0\u{1}".to_owned(), "cannot be read"),
        ("[".repeat(100_000), "cannot be read"),
        (
            pod("command: [kube-apiserver, --secure-port=$(PORT)]"),
            "is `$(PORT)`, not a number",
        ),
    ] {
        let node = files(&[(MANIFEST, &text)])?;
        let node = node.path().display().to_string();
        has(&plant.proposal(&node)?, "6443, # ", words)?;
        if words == "cannot be read" {
            let words = format!("`/{MANIFEST}` exists, but cannot be read");
            says(&plant.doctor(&node)?, "warn", "node", &words)?;
        }
    }
    Ok(())
}

#[test]
fn the_endpoint_of_the_cluster_is_found_by_name_and_behind_a_proxy() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let _proxy = plant.stand_in("nginx", &["8443"])?;
    let _other = plant.stand_in("it", &["9443"])?;
    let hosts = format!("# hosts\n{NODE} cp1 api.example.org # it\n");
    for (server, port) in [
        ("https://203.0.113.80:8443", Some(8443)),
        ("https://api.example.org:9443", Some(9443)),
        ("https://[2001:db8:7::10]:9443", Some(9443)),
        ("https://203.0.113.80:9443", None),
        ("https://[2001:db8::80]:9443", None),
        ("https://elsewhere.example.org", None),
    ] {
        let config = format!("clusters:\n- cluster:\n    server: {server}\n");
        let node = files(&[
            ("etc/kubernetes/admin.conf", &config),
            ("etc/hosts", &hosts),
        ])?;
        let node = node.path().display().to_string();
        let lines = plant.proposal(&node)?;
        match port {
            Some(port) => has(
                &lines,
                &format!("{port}, # "),
                "the endpoint of the cluster",
            )?,
            None => {
                let authority = server.trim_start_matches("https://");
                says(
                    &plant.doctor(&node)?,
                    "warn",
                    "node",
                    &format!("is `{authority}"),
                )?;
                ensure!(
                    !lines.iter().any(|line| line.starts_with("9443,")),
                    "{server}: {lines:#?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn an_api_server_at_a_port_that_no_file_names_is_no_secret() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _k3s = plant.stand_in("k3s-server", &["7443"])?;
    let node = files(&[(K3S, "[Service]\nExecStart=k3s server\n")])?;
    let checks = plant.doctor(&node.path().display().to_string())?;
    says(&checks, "warn", "node", "`k3s-server` (pid ")
}

#[test]
fn an_agent_has_no_api_server() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let node = files(&[
        (
            "etc/systemd/system/k3s-agent.service",
            "[Service]\nExecStart=k3s agent\n",
        ),
        (
            "etc/systemd/system/k3s-agent.service.env",
            "K3S_URL=https://192.0.2.11:6443\n",
        ),
        (
            "etc/rancher/k3s/config.yaml",
            "server: https://192.0.2.11:6443\n",
        ),
    ])?;
    let node = node.path().display().to_string();
    has(&plant.proposal(&node)?, "6443, # ", "the usual port")
}

#[test]
fn what_is_no_file_of_text_holds_up_nothing() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let node = files(&[("etc/cni/net.d/b.conf", "{}"), ("var/lib/kubelet/it", "")])?;
    let make = "cd \"$0\" && mkdir etc/haproxy && mkfifo etc/hosts etc/haproxy/haproxy.cfg && \
        ln -s a.conf etc/cni/net.d/a.conf && ln -s /dev/zero var/lib/kubelet/config.yaml";
    let made = Command::new("bash")
        .args(["-c", make])
        .arg(node.path())
        .status()?;
    ensure!(made.success());
    let checks = plant.doctor(&node.path().display().to_string())?;
    for path in [
        "/etc/haproxy/haproxy.cfg",
        "/etc/cni/net.d/a.conf",
        "/var/lib/kubelet/config.yaml",
    ] {
        says(
            &checks,
            "warn",
            "node",
            &format!("`{path}` exists, but cannot be read"),
        )?;
    }
    Ok(())
}

#[test]
fn a_port_that_is_rewritten_to_the_api_servers_is_a_way_around_the_filter() -> Result<()> {
    let plant = Plant::new(PROGRAM)?;
    let _api = plant.stand_in("kube-apiserver", &["6443"])?;
    let rules = "table ip it { chain before { type nat hook prerouting priority -100; tcp dport 7443 redirect to 6443; }; }";
    let made = plant.node.output(Command::new("nft").arg(rules))?;
    ensure!(made.status.success(), "{made:?}");
    let _client = open(&plant.other, ip(STRANGER), at(NODE, 7443))?;
    let words = "this node redirects port 7443 to 192.0.2.10:6443";
    says(&plant.doctor("/proc/self/fdinfo")?, "warn", "node", words)
}
