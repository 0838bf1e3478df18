//! Every change names exactly the connections that stop at their next packet, before they do.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    cli::{Apifence, Ran, words},
    net::{Echo, SILENCE, connect, exchange, open},
    netns::{End, Namespace, two_interfaces, veth},
    site::{ADMIN, ATTACH, Family, NODE, Site, UNLISTED, at, ip},
    wait::PATIENCE,
};

const PORT: u16 = 6443;

/// Whether the connection is named among those that are cut.
fn names(ran: &Ran, connection: &TcpStream) -> Result<bool> {
    let line = format!("  {} -> ", connection.local_addr()?);
    Ok(ran.stderr.contains(&line))
}

/// A change of a setting: its name, the two config files, and the port that the unlisted client is
/// connected to.
const CHANGES: [(&str, &str, &str, u16); 6] = [
    ("a new port", "ports = [6443]", "ports = [443, 6443]", 443),
    ("another port", "ports = [9345]", "ports = [6443]", PORT),
    ("the mode", "mode = \"monitor\"", "mode = \"enforce\"", PORT),
    (
        "a wider destination",
        "destinations = [\"192.0.2.99\"]",
        "destinations = [\"192.0.2.0/24\"]",
        PORT,
    ),
    (
        "no destination any more",
        "destinations = [\"192.0.2.99\"]",
        "",
        PORT,
    ),
    (
        "a CIDR of the cluster that is taken out",
        "cluster_cidrs = [\"203.0.113.0/24\", \"192.0.2.128/25\"]",
        "cluster_cidrs = [\"192.0.2.128/25\"]",
        PORT,
    ),
];

#[test]
fn whatever_setting_cuts_a_connection_names_it() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = [443, PORT].map(|port| Echo::new(&site.node, port));
    for (what, before, after, port) in CHANGES {
        filter.write_config(before)?;
        let attach = [&ATTACH[..], &["--force"]].concat();
        filter.ok(&attach)?;
        let mut unlisted = site.unlisted_gets_in(Family::V4, port).context(what)?;
        let mut admin = site.admin_gets_in(Family::V6, port)?;
        filter.write_config(after)?;
        let ran = filter.run(&attach)?;
        ensure!(ran.code == Some(0), "{what}: {ran}");
        ensure!(names(&ran, &unlisted)?, "{what}: {ran}");
        ensure!(!names(&ran, &admin)?, "{what}: {ran}");
        filter.cuts(&mut unlisted).context(what)?;
        exchange(&mut admin, PATIENCE)?;
        // A connection that is cut already is not cut again.
        let ran = filter.run(&attach)?;
        ensure!(!ran.stderr.contains(" -> "), "{what}: {ran}");
        filter.ok(&["detach"])?;
    }
    Ok(())
}

#[test]
fn connections_that_stay_are_not_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = [443, PORT].map(|port| Echo::new(&site.node, port));
    filter.ok(&[&ATTACH[..], &["--port", "443"]].concat())?;
    let mut unlisted = site.unlisted_gets_in(Family::V4, PORT)?;
    for after in [
        "ports = [443]\nmode = \"monitor\"",
        "ports = [443, 6443]\nmode = \"monitor\"",
        "ports = [443, 6443]\ndestinations = [\"192.0.2.99\"]",
        "ports = [443, 6443]\ncluster_cidrs = [\"203.0.113.9\"]",
    ] {
        filter.write_config(after)?;
        let ran = filter.run(&[&ATTACH[..], &["--force"]].concat())?;
        ensure!(
            ran.code == Some(0) && !ran.stderr.contains(" -> "),
            "{after}: {ran}"
        );
        exchange(&mut unlisted, PATIENCE)?;
    }
    Ok(())
}

/// Connections that one end has closed still carry data of the other end.
#[test]
fn half_of_a_connection_is_named_too() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    let listener = site
        .node
        .run(|| TcpListener::bind(SocketAddr::new(ip(NODE[0]), PORT)))?;
    let connected = || -> Result<(TcpStream, TcpStream)> {
        let client = connect(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT), PATIENCE)?;
        Ok((client, listener.accept()?.0))
    };
    let (by_server, by_client, gone) = (connected()?, connected()?, connected()?);
    by_server.1.shutdown(Shutdown::Write)?;
    by_client.0.shutdown(Shutdown::Write)?;
    // No process reads this client's data any more, so it loses nothing.
    let (mut client, server) = gone;
    drop(server);
    ensure!(client.read(&mut [0])? == 0);
    // The server has not accepted this one yet.
    let waiting = connect(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT), PATIENCE)?;
    let ran = filter.run(&["ranges", "remove", UNLISTED[0], "--force"])?;
    for open in [&by_server.0, &by_client.0, &waiting] {
        ensure!(names(&ran, open)?, "{ran}");
    }
    ensure!(ran.stderr.contains("3 of 3"), "{ran}");
    let (mut client, mut server) = by_server;
    client.write_all(b"?")?;
    server.set_read_timeout(Some(SILENCE))?;
    ensure!(server.read(&mut [0]).is_err(), "it was not cut");
    Ok(())
}

#[test]
fn connections_over_an_interface_without_a_filter_are_not_cut() -> Result<()> {
    let [node, client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, PORT)?;
    let attach = |interfaces: &[&'static str]| {
        let list = words("attach --authorized-ip-ranges 198.51.100.0/24 --force");
        let interfaces = interfaces.iter().flat_map(|name| ["--interface", name]);
        list.into_iter().chain(interfaces).collect::<Vec<_>>()
    };
    let mut over = [0, 1].map(|number| {
        let [own, target] = [2, 1].map(|host| format!("192.0.{}.{host}", 2 + number));
        open(&client, ip(&own), at(&target, PORT)).expect("the port is open")
    });
    let ran = filter.run(&attach(&["n0"]))?;
    ensure!(names(&ran, &over[0])? && !names(&ran, &over[1])?, "{ran}");
    ensure!(ran.stderr.contains("1 of 1"), "{ran}");
    filter.cuts(&mut over[0])?;
    exchange(&mut over[1], PATIENCE)?;
    // The second interface gets a filter, so this connection is cut; the first one already is.
    let ran = filter.run(&attach(&["n0", "n1"]))?;
    ensure!(!names(&ran, &over[0])? && names(&ran, &over[1])?, "{ran}");
    filter.cuts(&mut over[1])?;
    Ok(())
}

#[test]
fn a_bridge_over_a_guarded_interface_leads_over_the_filter() -> Result<()> {
    let [node, client] = two_interfaces()?;
    node.ip("link add br0 type bridge")?;
    node.ip("link set n0 master br0")?;
    node.ip("address del 192.0.2.1/24 dev n0")?;
    node.ip("address add 192.0.2.1/24 dev br0")?;
    node.ip("link set br0 up")?;
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, PORT)?;
    let mut over = open(&client, ip("192.0.2.2"), at("192.0.2.1", PORT))?;
    let ran = filter.run(&words(
        "attach --interface n0 --authorized-ip-ranges 198.51.100.0/24 --force",
    ))?;
    ensure!(names(&ran, &over)?, "{ran}");
    filter.cuts(&mut over)?;
    Ok(())
}

/// A pod on the node, and rules of nftables on the node.
fn pod(site: &Site, rules: &str) -> Result<Namespace> {
    let pod = Namespace::new("pod")?;
    veth(
        1500,
        End::new(&pod, "eth0", &["10.244.0.5/24"]),
        End::new(&site.node, "veth0", &["10.244.0.1/24"]),
    )?;
    pod.ip("route add default via 10.244.0.1")?;
    site.node.sysctl("net/ipv4/ip_forward", "1")?;
    let mut nft = Command::new("nft");
    nft.arg(format!(
        "add table ip t; add chain ip t pre {{ type nat hook prerouting priority -100; }}; {rules}"
    ));
    let output = site.node.output(&mut nft)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(pod)
}

#[test]
fn a_connection_that_is_forwarded_to_a_pod_is_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let pod = pod(
        &site,
        "add rule ip t pre iifname eth0 tcp dport 443 dnat to 10.244.0.5:8443; \
         add rule ip t pre tcp dport 8080 redirect to :6443; \
         add chain ip t post { type nat hook postrouting priority 100; }; \
         add rule ip t post oifname eth0 masquerade",
    )?;
    let _server = Echo::new(&pod, 8443)?;
    let _here = Echo::new(&site.node, PORT)?;
    filter.ok(&[&ATTACH[..], &["--force"]].concat())?;
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    let mut unlisted = site.unlisted_gets_in(Family::V4, 443)?;
    let admin = site.admin_gets_in(Family::V4, 443)?;
    // The filter sees another port than the server.
    let mut beside = site.unlisted_gets_in(Family::V4, 8080)?;
    // The pod's outgoing connections are not affected.
    let _away = Echo::new(&site.admin, 443)?;
    let mut away = open(&pod, ip("10.244.0.5"), at(ADMIN[0], 443))?;
    let change = filter.json(&["ranges", "remove", UNLISTED[0], "--dry-run"])?;
    let cut = change["cut"].as_array().cloned().unwrap_or_default();
    let remotes: Vec<&Value> = cut.iter().map(|cut| &cut["remote"]).collect();
    ensure!(
        remotes == [&*unlisted.local_addr()?.to_string()],
        "{change:#}"
    );
    ensure!(cut[0]["local"] == "192.0.2.10:443", "{change:#}");
    ensure!(change["kept"] == 1, "{change:#}");
    filter.ok(&["ranges", "remove", UNLISTED[0]])?;
    filter.cuts(&mut unlisted)?;
    exchange(&mut beside, PATIENCE)?;
    exchange(&mut away, PATIENCE)?;
    drop(admin);
    Ok(())
}
