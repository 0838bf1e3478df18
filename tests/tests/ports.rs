//! Protected ports that another service on this node has, by rules that rewrite destinations, as
//! container runtimes and clusters write them.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::{Apifence, INPUT, refused},
    netns::Namespace,
    site::{ATTACH, Family, INTERFACE, Site},
    stand_in::StandIn,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");

fn sh(node: &Namespace, script: &str) -> Result<()> {
    let output = node.output(Command::new("sh").args(["-ec", script]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {said}");
    Ok(())
}

/// The remark of `attach` about port 443 under `rules`, which are removed again.
fn remarks_on_443(site: &Site, filter: &Apifence, rules: &str, is_foreign: bool) -> Result<()> {
    sh(&site.node, rules)?;
    let ran = filter.run(&[&ATTACH[..], &["--dry-run"]].concat())?;
    if is_foreign {
        refused(&ran, INPUT, &["redirects TCP 443"]).context(rules.to_owned())?;
        let hint = "use `--port 6443` to protect only the API server";
        ensure!(ran.stderr.contains(hint), "{ran}");
    } else {
        ensure!(ran.code == Some(0), "{rules}: {ran}");
    }
    sh(&site.node, "nft flush ruleset")
}

/// Rules of a chain at prerouting in a table `t`, with other chains and sets, and whether they
/// redirect port 443.
const NFT: [(&str, &str, bool); 33] = [
    ("", "tcp dport 443 dnat ip to 10.244.0.5:8443", true),
    ("", "tcp dport 443 dnat ip to 10.244.0.5:443", true),
    ("", "tcp dport 443 dnat ip6 to [fd00::5]:443", true),
    ("", "tcp dport 400-500 dnat ip to 10.244.0.5", true),
    ("", "tcp dport { 80, 443 } dnat ip to 10.244.0.5", true),
    ("", "tcp dport { 80, 400-500 } dnat ip to 10.244.0.5", true),
    (
        "",
        "tcp dport != 1-442 tcp dport < 444 redirect to :8443",
        true,
    ),
    ("", "tcp dport { 80, 444-500 } dnat ip to 10.244.0.5", false),
    ("", "tcp dport != { 80, 443 } dnat ip to 10.244.0.5", false),
    (
        "set s { type inet_service; flags interval; elements = { 440-450 }; }",
        "tcp dport @s redirect to :1",
        true,
    ),
    (
        "",
        "meta l4proto tcp dnat ip to tcp dport map { 80 : 10.244.0.4, 443 : 10.244.0.5 }",
        true,
    ),
    (
        "",
        "meta l4proto tcp dnat ip addr . port to tcp dport map { 443 : 10.244.0.5 . 8443 }",
        true,
    ),
    (
        "",
        "meta l4proto tcp dnat ip addr . port to tcp dport map { 443 : 192.0.2.10 . 6443 }",
        false,
    ),
    (
        "chain to { meta l4proto tcp dnat ip to 10.244.0.5:8443; }",
        "meta l4proto tcp th dport vmap { 80 : drop, 443 : jump to }",
        true,
    ),
    (
        "chain to { meta l4proto tcp dnat ip to 10.244.0.5:8443; }",
        "meta l4proto tcp th dport vmap { 8443 : goto to }",
        false,
    ),
    // kube-proxy: the addresses of services are not this node's; packets to its own are redirected.
    (
        SERVICES,
        "ip daddr . meta l4proto . th dport vmap @services",
        false,
    ),
    (
        SERVICES,
        "add element inet t services { 192.0.2.10 . tcp . 443 : goto web }; ip daddr . meta l4proto . th dport vmap @services",
        true,
    ),
    (
        SERVICES,
        "fib daddr type local meta l4proto . th dport vmap @nodeports",
        true,
    ),
    (SERVICES, "ip saddr != 10.244.0.0/16 jump cluster", false),
    (
        "",
        "ip daddr . tcp dport { 192.0.2.0/24 . 400-500 } dnat ip to 10.244.0.5",
        true,
    ),
    (
        "",
        "ip daddr . tcp dport { 198.51.100.0/24 . 400-500 } dnat ip to 10.244.0.5",
        false,
    ),
    (
        "",
        "ip daddr 192.0.0.0/9 tcp dport 443 dnat ip to 10.244.0.5",
        true,
    ),
    (
        "",
        "ip daddr 10.0.0.0/9 tcp dport 443 dnat ip to 10.244.0.5",
        false,
    ),
    // Rules for some clients, or for other interfaces.
    (
        "",
        "ip saddr 10.244.0.0/16 tcp dport 443 dnat ip to 10.244.0.5",
        false,
    ),
    (
        "",
        "ip saddr { 10.244.0.0/16, 10.9.9.9 } tcp dport 443 redirect to :1",
        false,
    ),
    (
        "",
        "ip saddr != 10.244.0.0/16 tcp dport 443 dnat ip to 10.244.0.5",
        true,
    ),
    ("", "iifname lo tcp dport 443 redirect to :8443", false),
    (
        "",
        "iifname { docker0, lo } tcp dport 443 redirect to :8443",
        false,
    ),
    (
        "",
        "iifname != docker0 tcp dport 443 redirect to :8443",
        true,
    ),
    ("", "iifname \"eth*\" tcp dport 443 redirect to :8443", true),
    // Packets that an earlier rule has redirected.
    (
        "",
        "tcp dport 443 accept; tcp dport 443 redirect to :8443",
        false,
    ),
    (
        "",
        "tcp dport 443 redirect to :6443; tcp dport 443 redirect to :8443",
        false,
    ),
    ("", "meta mark 5 tcp dport 443 redirect to :8443", false),
];

/// As kube-proxy writes them with nftables.
const SERVICES: &str = "
    chain server { meta l4proto tcp dnat ip to 192.0.2.10:6443; }
    chain web { meta l4proto tcp dnat ip to 10.244.0.5:8443; }
    chain balanced { numgen random mod 2 vmap { 0 : goto web, 1 : goto web }; }
    map services { type ipv4_addr . inet_proto . inet_service : verdict;
        elements = { 10.96.0.1 . tcp . 443 : goto server, 10.96.0.9 . tcp . 443 : goto web }; }
    map nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 443 : goto balanced }; }
    chain cluster { ip daddr . meta l4proto . th dport vmap @services; }";

#[test]
fn rules_of_nftables_are_understood() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    for (more, rules, is_foreign) in NFT {
        let (elements, rules): (Vec<&str>, Vec<&str>) =
            rules.split("; ").partition(|rule| rule.starts_with("add "));
        let file = tempfile::NamedTempFile::new()?;
        let text = format!(
            "table inet t {{ {more}\n chain pre {{ type nat hook prerouting priority -100;\n {}\n }}\n}}\n{}\n",
            rules.join("\n"),
            elements.join("\n")
        );
        fs::write(file.path(), text)?;
        let load = format!("nft -f {} # {rules:?}", file.path().display());
        remarks_on_443(&site, &filter, &load, is_foreign)?;
    }
    Ok(())
}

/// CNI portmap's rules for a hostPort; k3s's ServiceLB gets its ports by these.
const PORTMAP: &str = "
    ipt -N CNI-HOSTPORT-SETMARK; ipt -N CNI-DN-x; ipt -N CNI-HOSTPORT-DNAT
    ipt -A CNI-HOSTPORT-SETMARK -m comment --comment 'CNI portfwd masquerade mark' -j MARK --set-xmark 0x2000/0x2000
    ipt -A CNI-DN-x -s 10.42.0.0/24 -p tcp -m tcp --dport 443 -j CNI-HOSTPORT-SETMARK
    ipt -A CNI-DN-x -s 127.0.0.1/32 -p tcp -m tcp --dport 443 -j CNI-HOSTPORT-SETMARK
    ipt -A CNI-DN-x -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.42.0.5:443
    ipt -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment 'dnat name: \"cbr0\"' -m multiport --dports PORTS -j CNI-DN-x
    ipt -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";

/// kube-proxy's rules for an address of a service that is `SERVICE`.
const KUBE_PROXY: &str = "
    ipt -N KUBE-SERVICES; ipt -N KUBE-EXT-x; ipt -N KUBE-SVC-x; ipt -N KUBE-SEP-x; ipt -N KUBE-MARK-MASQ
    ipt -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
    ipt -A KUBE-SEP-x -s 10.42.0.5/32 -m comment --comment web -j KUBE-MARK-MASQ
    ipt -A KUBE-SEP-x -p tcp -m comment --comment web -m tcp -j DNAT --to-destination 10.42.0.5:8443
    ipt -A KUBE-SVC-x -m statistic --mode random --probability 0.5 -j KUBE-SEP-x
    ipt -A KUBE-EXT-x -j KUBE-SVC-x
    ipt -A KUBE-SERVICES -d SERVICE -p tcp -m comment --comment web -m tcp --dport 443 -j KUBE-EXT-x
    ipt -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES";

const DOCKER: &str = "
    ipt -N DOCKER
    ipt -A DOCKER -i docker0 -j RETURN
    ipt -A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443
    ipt -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER";

#[test]
fn rules_of_iptables_nft_are_understood() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let both = [
        (PORTMAP.replace("PORTS", "80,443"), true),
        (PORTMAP.replace("PORTS", "80,400:500"), true),
        (PORTMAP.replace("PORTS", "80,8443"), false),
        (DOCKER.to_owned(), true),
        (DOCKER.replace("--dport 443", "--dport 4443"), false),
        (DOCKER.replace("! -i docker0", "-i docker0"), false),
        (DOCKER.replace("172.17.0.2:443", "172.17.0.2:6443"), false),
        (KUBE_PROXY.replace("SERVICE", "192.0.2.10"), true),
        (KUBE_PROXY.replace("SERVICE", "10.43.0.9"), false),
        (
            "ipt -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8443".to_owned(),
            true,
        ),
        (
            "ipt -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 6443".to_owned(),
            false,
        ),
        (
            "ipt -A PREROUTING -p udp --dport 443 -j REDIRECT --to-ports 8443".to_owned(),
            false,
        ),
        (
            "ipt -A PREROUTING -s 10.42.0.0/16 -p tcp --dport 443 -j REDIRECT --to-ports 8443"
                .to_owned(),
            false,
        ),
    ];
    for (rules, is_foreign) in &both {
        let rules = format!("ipt() {{ iptables-nft -t nat \"$@\"; }}\n{rules}");
        remarks_on_443(&site, &filter, &rules, *is_foreign)?;
    }
    let rules = "ip6tables-nft -t nat -A PREROUTING -p tcp -m multiport --dports 80,443 -j DNAT --to-destination [fd00::5]:443";
    remarks_on_443(&site, &filter, rules, true)
}

#[test]
fn unreadable_tables_are_reported_and_block_no_change() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    sh(
        &site.node,
        "iptables-legacy -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8443",
    )?;
    let note = "note: apifence cannot read the table `nat` of iptables-legacy: if it redirects TCP 443 or 6443";
    // If the operator chose the ports, the service on them is known; and once enforced, there is no
    // question.
    for (words, is_noted) in [
        (&["--port", "6443", "--dry-run"][..], false),
        (&["--mode", "monitor", "--dry-run"], false),
        (&["--dry-run"], true),
        (&[], true),
        (&[], false),
    ] {
        let ran = filter.run(&[&ATTACH[..], words].concat())?.succeeded()?;
        ensure!(
            format!("{ran}").contains(note) == is_noted,
            "{words:?}: {ran}"
        );
    }
    filter.ok(&["detach"])?;
    fs::remove_dir_all(filter.state_dir())?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.starts_with(note)).map(drop)
}

/// A listener on an unfiltered interface does not block a change.
#[test]
fn a_web_server_on_an_unfiltered_interface_needs_no_force() -> Result<()> {
    let site = Site::new()?;
    site.add_node("192.0.2.11")?;
    let filter = Apifence::new(&site.node)?;
    let _server = StandIn::new(&site.node, PROGRAM, "kube-apiserver", &["6443"])?;
    let attach = |words: &[&'static str]| {
        let words = [&ATTACH[..], words, &["--dry-run"]].concat();
        filter.run(&words)
    };
    let web = StandIn::new(&site.node, PROGRAM, "nginx", &["127.0.0.1:443"])?;
    let ran = attach(&[])?;
    ensure!(ran.code == Some(0), "{ran}");
    drop(web);
    let _web = StandIn::new(&site.node, PROGRAM, "nginx", &["192.0.2.11:443"])?;
    refused(&attach(&[])?, INPUT, &["`nginx` (pid "])?;
    let ran = attach(&["--destination", "192.0.2.10"])?;
    ensure!(ran.code == Some(0), "{ran}");
    sh(
        &site.node,
        "nft add table ip t; nft 'add chain ip t pre { type nat hook prerouting priority -100; }'
         nft add rule ip t pre ip daddr 192.0.2.11 tcp dport 443 dnat to 10.244.0.5:8443",
    )?;
    let ran = attach(&["--destination", "192.0.2.10"])?;
    ensure!(ran.code == Some(0), "{ran}");
    filter.ok(&[&ATTACH[..], &["--destination", "192.0.2.10"]].concat())?;
    site.admin_gets_in(Family::V4, 6443).map(drop)
}
