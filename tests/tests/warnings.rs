//! What `status` warns of, on a node where it is so.

use anyhow::{Result, ensure};
use tests::{
    cli::Apifence,
    net::Echo,
    netns::{End, Namespace, veth},
    site::{ADMIN, ATTACH, Family, NODE, STRANGER, Site, at, ip},
};

const PORT: u16 = 6443;

/// The one warning that has all of `words`.
fn warning(filter: &Apifence<'_>, words: &[&str]) -> Result<Option<String>> {
    let status = filter.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let texts = warnings.iter().filter_map(|warning| warning.as_str());
    let mut found = texts.filter(|text| words.iter().all(|word| text.contains(word)));
    let one = found.next().map(str::to_owned);
    ensure!(found.next().is_none(), "said twice: {status:#}");
    let codes = status["warning_codes"].as_array().map(Vec::len);
    ensure!(codes == Some(warnings.len()), "a code each: {status:#}");
    Ok(one)
}

/// There is no such warning, then there is.
fn comes(filter: &Apifence<'_>, words: &[&str], cause: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = warning(filter, words)?;
    ensure!(before.is_none(), "too early: {before:?}");
    cause()?;
    ensure!(
        warning(filter, words)?.is_some(),
        "no warning with {words:?}"
    );
    Ok(())
}

#[test]
fn a_quiet_node_has_no_warnings() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    let _connection = site.admin_gets_in(Family::V4, PORT)?;
    let status = filter.json(&["status"])?;
    ensure!(status["warnings"] == serde_json::json!([]), "{status:#}");
    Ok(())
}

#[test]
fn ways_past_the_filter_are_warned_of() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;

    let peer = Namespace::new("peer")?;
    let end = |namespace, addresses| End {
        namespace,
        interface: "eth1",
        addresses,
    };
    let other = ["port 6443", "`eth1`", "without a filter"];
    comes(&filter, &other, || {
        veth(
            1500,
            end(&site.node, &["10.9.0.1/24"]),
            end(&peer, &["10.9.0.2/24"]),
        )
    })?;
    // It is as the warning says.
    tests::net::open(&peer, ip("10.9.0.2"), at("10.9.0.1", PORT))?;
    filter.ok(&["attach", "--interface", "eth1"])?;
    ensure!(warning(&filter, &other)?.is_none());
    tests::net::silent(&peer, ip("10.9.0.2"), at("10.9.0.1", PORT))?;

    comes(&filter, &["`vx0` (vxlan)", "tunnel"], || {
        site.node
            .ip("link add vx0 type vxlan id 1 remote 10.9.0.2 dstport 4789")?;
        site.node.ip("link set vx0 up").map(drop)
    })
}

#[test]
fn what_may_hit_the_wrong_ones_is_warned_of() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    let ephemeral = ["ip_local_port_range", "port 6443"];
    comes(&filter, &ephemeral, || {
        site.node
            .sysctl("net/ipv4/ip_local_port_range", "6000 60999")
    })?;
    site.node
        .sysctl("net/ipv4/ip_local_reserved_ports", "6443")?;
    ensure!(warning(&filter, &ephemeral)?.is_none());

    let mut connections = Vec::new();
    comes(
        &filter,
        &["10 connections come from", ADMIN[0], "load balancer"],
        || {
            for _ in 0..10 {
                connections.push(tests::net::open(
                    &site.admin,
                    ip(ADMIN[0]),
                    at(NODE[0], PORT),
                )?);
            }
            Ok(())
        },
    )?;

    comes(&filter, &["`0.0.0.0/0` is authorized"], || {
        filter.ok(&["ranges", "add", "0.0.0.0/0"]).map(drop)
    })
}

#[test]
fn generic_xdp_is_warned_of() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    filter.ok(&[&ATTACH[..], &["--xdp-mode", "generic"]].concat())?;
    ensure!(warning(&filter, &["`eth0` runs generic XDP"])?.is_some());
    Ok(())
}

/// What is warned of here is a way in: somebody who is in no list comes in by it.
#[test]
fn what_destinations_leave_open_is_warned_of() -> Result<()> {
    const CLUSTER_IP: &str = "10.96.0.1";
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    let destinations = |addresses: &[&str]| {
        filter.ok(&[
            &ATTACH[..],
            &["--force", "--destination", &addresses.join(",")],
        ]
        .concat())
    };
    destinations(&NODE)?;
    ensure!(filter.json(&["status"])?["warning_codes"] == serde_json::json!([]));

    let outside = ["port 6443", NODE[1], "outside the destinations"];
    comes(&filter, &outside, || {
        let words = ["--force", "--destination", NODE[0]];
        let said = filter.run(&[&ATTACH[..], &words].concat())?.stderr;
        ensure!(said.contains("[outside-destinations]"), "{said}");
        Ok(())
    })?;
    site.stranger_gets_in(Family::V6, PORT)?;
    site.stranger_is_dropped(Family::V4, PORT, &filter)?;
    destinations(&NODE)?;

    let rewritten = ["rewritten", "nftables chain `kube services`"];
    comes(&filter, &rewritten, || {
        let rules = format!(
            "table ip kube {{ chain services {{ type nat hook prerouting priority -100; \
             ip daddr {CLUSTER_IP} tcp dport 443 dnat to {}:{PORT}; }}; }}",
            NODE[0]
        );
        let output = site
            .node
            .output(std::process::Command::new("nft").arg(rules))?;
        ensure!(output.status.success(), "{output:?}");
        site.route_to_node(CLUSTER_IP)
    })?;
    let stranger = ip(STRANGER[0]);
    tests::net::open(&site.stranger, stranger, at(CLUSTER_IP, 443))?;
    let status = filter.run(&["status"])?.stdout;
    ensure!(status.contains(" [rewritten-destination]"), "{status}");
    // And named, it is guarded.
    destinations(&[NODE[0], NODE[1], CLUSTER_IP])?;
    site.is_dropped(STRANGER[0], at(CLUSTER_IP, 443), &filter)?;
    // Without destinations every address is guarded.
    filter.ok(&[&ATTACH[..], &["--destination", ""]].concat())?;
    ensure!(warning(&filter, &rewritten)?.is_none());
    site.is_dropped(STRANGER[0], at(CLUSTER_IP, 443), &filter)?;

    // `run` says the same.
    let mut run = filter.start(&["run", "--interface", "eth0", "--destination", NODE[0]])?;
    run.line(|line| line.starts_with("warning: ") && line.contains(NODE[1]))?;
    run.line(|line| line.ends_with("[rewritten-destination]"))?;
    Ok(())
}

#[test]
fn a_bridge_of_pods_is_no_way_in() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    for words in [
        "link add cni0 type bridge",
        "address add 10.244.0.1/24 dev cni0",
        "link set cni0 up",
        "link add docker0 type bridge",
        "address add 172.17.0.1/16 dev docker0",
        "link set docker0 up",
        "link add veth7f3a type veth peer name pod",
        "link set veth7f3a master cni0",
        "link set veth7f3a up",
        "link set pod up",
    ] {
        site.node.ip(words)?;
    }
    let status = filter.json(&["status"])?;
    ensure!(status["warnings"] == serde_json::json!([]), "{status:#}");
    // A card in the bridge is another matter.
    let words = ["port 6443", "`cni0`"];
    comes(&filter, &words, || {
        site.node.ip("link add card type veth peer name wire")?;
        site.node.ip("link set card master cni0")?;
        site.node.ip("link set card up").map(drop)
    })
}
