//! What `status` warns of, on a node where it is so.

use anyhow::{Result, ensure};
use tests::{
    cli::Apifence,
    net::Echo,
    netns::{End, Namespace, veth},
    site::{ADMIN, ATTACH, Family, NODE, Site, at, ip},
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
