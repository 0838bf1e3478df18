//! The warnings of `status`, on nodes that deserve them.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use tests::{
    cli::{Apifence, FAILED, INPUT, refused},
    peer::Peer,
    scrape::scrape,
    site::{ADMIN, ATTACH, Family, NODE, Site, UNLISTED, at, ip},
    wait::until,
};

const PORT: u16 = 6443;

/// The one warning that has all of `words`.
fn warning(filter: &Apifence, words: &[&str]) -> Result<Option<String>> {
    let status = filter.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let texts = warnings.iter().map(|warning| {
        let part = |name: &str| warning[name].as_str().unwrap_or_default();
        format!("{} {} [{}]", part("message"), part("hint"), part("code"))
    });
    let mut found = texts.filter(|text| words.iter().all(|word| text.contains(word)));
    let one = found.next();
    ensure!(found.next().is_none(), "said twice: {status:#}");
    Ok(one)
}

/// There is no such warning, then there is.
fn appears(filter: &Apifence, words: &[&str], cause: impl FnOnce() -> Result<()>) -> Result<()> {
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
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let _connection = site.admin_gets_in(Family::V4, PORT)?;
    let status = filter.json(&["status"])?;
    ensure!(status["warnings"] == serde_json::json!([]), "{status:#}");
    Ok(())
}

#[test]
fn ways_past_the_filter_are_warned_of() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;

    let peer = Peer::unplugged()?;
    let other = ["TCP 6443", "`eth1`", "no filter", "[W07]"];
    appears(&filter, &other, || peer.plug_in(&site))?;
    // The claim of the warning is true.
    peer.gets_in(PORT)?;
    filter.ok(&["attach", "--interface", "eth1"])?;
    ensure!(warning(&filter, &other)?.is_none());
    peer.is_silenced(PORT)?;

    appears(&filter, &["`vx0` (vxlan)", "tunnel", "[W08]"], || {
        site.node
            .ip("link add vx0 type vxlan id 1 remote 10.9.0.2 dstport 4789")?;
        site.node.ip("link set vx0 up").map(drop)
    })
}

#[test]
fn filters_that_hit_other_connections_are_warned_of() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let ephemeral = ["ip_local_reserved_ports", "TCP 6443", "[W13]"];
    appears(&filter, &ephemeral, || {
        site.node
            .sysctl("net/ipv4/ip_local_port_range", "6000 60999")
    })?;
    site.node
        .sysctl("net/ipv4/ip_local_reserved_ports", "6443")?;
    ensure!(warning(&filter, &ephemeral)?.is_none());

    let mut connections = Vec::new();
    appears(
        &filter,
        &[
            "10 connections come from",
            ADMIN[0],
            "load balancer",
            "[W12]",
        ],
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

    appears(&filter, &["`0.0.0.0/0` is authorized", "[W03]"], || {
        filter.ok(&["ranges", "add", "0.0.0.0/0"]).map(drop)
    })
}

#[test]
fn generic_xdp_is_warned_of() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.ok(&[&ATTACH[..], &["--xdp-mode", "generic"]].concat())?;
    ensure!(warning(&filter, &["`eth0` uses generic XDP", "[W11]"])?.is_some());
    Ok(())
}

/// Every warning here is a way in: an unlisted source connects through it.
#[test]
fn addresses_outside_the_destinations_are_warned_of() -> Result<()> {
    const CLUSTER_IP: &str = "10.96.0.1";
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let destinations = |addresses: &[&str]| {
        filter.ok(&[
            &ATTACH[..],
            &["--force", "--destination", &addresses.join(",")],
        ]
        .concat())
    };
    destinations(&NODE)?;
    ensure!(filter.status("warnings")? == serde_json::json!([]));

    let outside = ["TCP 6443", NODE[1], "outside `destinations`", "[W09]"];
    appears(&filter, &outside, || {
        let words = ["--force", "--destination", NODE[0]];
        let said = filter.run(&[&ATTACH[..], &words].concat())?.stderr;
        ensure!(said.contains("[W09]"), "{said}");
        Ok(())
    })?;
    site.unlisted_gets_in(Family::V6, PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    destinations(&NODE)?;

    let rewritten = ["rewrites", "nftables chain `kube services`", "[W10]"];
    appears(&filter, &rewritten, || {
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
    let unlisted = ip(UNLISTED[0]);
    tests::net::open(&site.unlisted, unlisted, at(CLUSTER_IP, 443))?;
    let status = filter.run(&["status"])?.stdout;
    ensure!(status.contains("W10  "), "{status}");
    // If it is named, it is guarded.
    destinations(&[NODE[0], NODE[1], CLUSTER_IP])?;
    site.is_dropped(UNLISTED[0], at(CLUSTER_IP, 443), &filter)?;
    // Without destinations every address is guarded.
    filter.ok(&[&ATTACH[..], &["--destination", ""]].concat())?;
    ensure!(warning(&filter, &rewritten)?.is_none());
    site.is_dropped(UNLISTED[0], at(CLUSTER_IP, 443), &filter)?;

    // `run` says the same.
    let mut run = filter.start(&["run", "--interface", "eth0", "--destination", NODE[0]])?;
    run.line(|line| line.starts_with("warning: ") && line.contains(NODE[1]))?;
    run.line(|line| line.ends_with("[W10]"))?;
    Ok(())
}

#[test]
fn a_bridge_of_pods_causes_no_warning() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
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
    // A card in the bridge is different.
    let words = ["TCP 6443", "`cni0`"];
    appears(&filter, &words, || {
        site.node.ip("link add card type veth peer name wire")?;
        site.node.ip("link set card master cni0")?;
        site.node.ip("link set card up").map(drop)
    })
}

/// Makes a tunnel device in the node: it is up, and has no filter.
fn tunnel(site: &Site, name: &str, id: u32) -> Result<()> {
    let port = 4800 + id;
    site.node.ip(&format!(
        "link add {name} type vxlan id {id} remote 192.0.2.99 dstport {port}"
    ))?;
    site.node.ip(&format!("link set {name} up")).map(drop)
}

/// The warnings in the JSON of `status`: code, interface, and whether each is acknowledged.
fn shown(filter: &Apifence) -> Result<Vec<(String, String, bool)>> {
    let status = filter.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let shown = warnings.iter().map(|warning| {
        let known = warning["acknowledged"] == true;
        (text(&warning["code"]), text(&warning["interface"]), known)
    });
    Ok(shown.collect())
}

#[test]
fn only_warnings_without_acknowledgement_are_shown() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.ok(&[&ATTACH[..], &["--xdp-mode", "generic"]].concat())?;
    tunnel(&site, "wg0", 1)?;
    let is = |want: &[(&str, &str, bool)]| -> Result<()> {
        let shown = shown(&filter)?;
        let shown: Vec<_> = shown
            .iter()
            .map(|(code, interface, known)| (code.as_str(), interface.as_str(), *known))
            .collect();
        ensure!(shown == want, "{shown:?}, wanted {want:?}");
        Ok(())
    };
    is(&[("W08", "wg0", false), ("W11", "eth0", false)])?;
    // Reading writes nothing.
    let file = filter.state_dir().join("acknowledged");
    ensure!(!file.exists());
    let said = filter.ok(&["status", "--ack", "tunnel,w11"])?;
    ensure!(!said.contains("[W08]") && !said.contains("[W11]"), "{said}");
    ensure!(
        said.contains("2 acknowledged warnings: W08, W11 (`-v` shows them)"),
        "{said}"
    );
    let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    is(&[("W08", "wg0", true), ("W11", "eth0", true)])?;
    let said = filter.ok(&["-v", "status"])?;
    ensure!(said.contains("W08 (acknowledged)  tunnel `wg0`"), "{said}");
    let said = filter.run(&ATTACH)?.stderr;
    ensure!(!said.contains("[W"), "{said}");

    // Of the same kind, about another subject.
    tunnel(&site, "wg1", 2)?;
    is(&[
        ("W08", "wg0", true),
        ("W08", "wg1", false),
        ("W11", "eth0", true),
    ])?;
    let said = filter.ok(&["status"])?;
    ensure!(said.contains("tunnel `wg1`") && !said.contains("tunnel `wg0`"));
    filter.ok(&["status", "--ack", "W08:wg1", "--unack", "W11"])?;
    is(&[
        ("W08", "wg0", true),
        ("W08", "wg1", true),
        ("W11", "eth0", false),
    ])?;
    // The warning disappears with the device. The acknowledgement stays for the next device of that
    // name.
    site.node.ip("link del wg0")?;
    tunnel(&site, "wg0", 1)?;
    filter.ok(&["status", "--unack", "W08"])?;
    is(&[
        ("W08", "wg0", false),
        ("W08", "wg1", false),
        ("W11", "eth0", false),
    ])?;
    assert_eq!(std::fs::read_to_string(&file)?, "");

    // By the config file: one code, or all future ones.
    filter.write_config("acknowledged_warnings = ['W08:wg1', 'generic-xdp']\n")?;
    is(&[
        ("W08", "wg0", false),
        ("W08", "wg1", true),
        ("W11", "eth0", true),
    ])?;
    filter.write_config("acknowledged_warnings = ['W08']\n")?;
    tunnel(&site, "wg2", 3)?;
    let known = shown(&filter)?
        .iter()
        .filter(|(_, _, known)| *known)
        .count();
    assert_eq!(known, 3);
    Ok(())
}

#[test]
fn serious_warnings_cannot_be_acknowledged() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    filter.ok(&["ranges", "add", "0.0.0.0/0"])?;
    tunnel(&site, "wg0", 1)?;
    let file = filter.state_dir().join("acknowledged");
    for (words, want) in [
        (
            &["--ack", "W03"][..],
            "W03 (`everyone`) cannot be acknowledged",
        ),
        (&["--ack", "everyone:0.0.0.0/0"], "cannot be acknowledged"),
        // One of two is wrong, so neither is acknowledged.
        (&["--ack", "W08,W01"], "W01 (`unguarded-interface`) cannot"),
        (&["--ack", "W08,W12"], "there is no W12 now"),
        (&["--ack", "W08:wg7"], "there is no W08:wg7 now"),
        (&["--ack", "W99"], "unknown warning `W99`"),
        (&["--ack", ""], "unknown warning ``"),
        (&["--unack", "W08"], "W08 was not acknowledged with `--ack`"),
    ] {
        let ran = filter.run(&[&["status"], words].concat())?;
        refused(&ran, INPUT, &[want])?;
        ensure!(ran.stderr.contains("nothing changed"), "{ran}");
        ensure!(!file.exists(), "{words:?}: something was written");
    }
    // Neither a setting nor a hand-written file can acknowledge it.
    for (text, word) in [
        ("['W03']", "`everyone`"),
        ("['W8']", "`W8`"),
        ("[8]", "not only codes"),
    ] {
        filter.write_config(format!("acknowledged_warnings = {text}\n"))?;
        let line = format!("{}:1", filter.config_file().display());
        refused(&filter.run(&["config"])?, INPUT, &[&line, word])?;
    }
    filter.write_config("")?;
    std::fs::write(&file, "W03\nW03:0.0.0.0/0\nW08:wg0\n")?;
    let want = [("W03", "", false), ("W08", "wg0", true)];
    let want = want.map(|(code, name, known)| (code.to_owned(), name.to_owned(), known));
    assert_eq!(shown(&filter)?, want);
    // A file that another user made has no effect, and causes a warning.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))?;
    let ran = filter.run(&["status"])?;
    ensure!(ran.code == Some(0) && ran.stdout.contains("W08  "), "{ran}");
    ensure!(ran.stderr.contains("read acknowledgements"), "{ran}");
    refused(
        &filter.run(&["status", "--ack", "W08"])?,
        FAILED,
        &["read acknowledgements"],
    )
}

/// `run` logs the warnings that are not acknowledged, and the metrics count both kinds.
#[test]
fn monitoring_counts_warnings() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    tunnel(&site, "wg0", 1)?;
    tunnel(&site, "flannel.1", 2)?;
    let mut run = filter.start(&[&["run"], &ATTACH[1..]].concat())?;
    run.line(|line| line.starts_with("warning: tunnel `wg0`") && line.ends_with("[W08]"))?;
    run.line(|line| line.starts_with("info: `flannel.1`") && line.ends_with("[W15]"))?;
    let counts = |code: &str| -> Result<[Option<f64>; 2]> {
        let page = scrape(&site.node)?;
        page.check()?;
        let count = |known| {
            let labels = [("code", code), ("acknowledged", known)];
            page.sum("apifence_warnings", &labels)
        };
        Ok(["false", "true"].map(count))
    };
    until("warnings are counted", || {
        Ok(counts("W08")? == [Some(1.0), Some(0.0)])
    })?;
    assert_eq!(counts("W15")?, [Some(1.0), Some(0.0)]);
    // There is a series for each code from the start.
    assert_eq!(counts("W14")?, [Some(0.0), Some(0.0)]);
    filter.ok(&["status", "--ack", "W08"])?;
    until("it is acknowledged", || {
        Ok(counts("W08")? == [Some(0.0), Some(1.0)])
    })?;
    filter.ok(&["status", "--unack", "W08"])?;
    run.line(|line| line.starts_with("warning: tunnel `wg0`"))?;
    filter.write_config("acknowledged_warnings = ['W08', 'W15']\n")?;
    until("the setting is heeded", || {
        Ok(counts("W08")? == [Some(0.0), Some(1.0)] && counts("W15")? == [Some(0.0), Some(1.0)])
    })?;
    // A setting with an invalid list leaves the previous one in place.
    filter.write_config("acknowledged_warnings = ['W03']\n")?;
    run.line(|line| line.contains("cannot be acknowledged"))?;
    assert_eq!(counts("W08")?, [Some(0.0), Some(1.0)]);
    Ok(())
}

#[test]
fn many_of_a_kind_are_counted() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    for id in 1..=7 {
        tunnel(&site, &format!("vx{id}"), id)?;
    }
    let said = filter.ok(&["status"])?;
    let warnings = said.lines().filter(|line| line.starts_with("  W08  "));
    assert_eq!(warnings.count(), 4, "{said}");
    ensure!(
        said.contains("3 more like this (`-v` shows them)\n"),
        "{said}"
    );
    assert_eq!(filter.ok(&["-v", "status"])?.matches("W08  ").count(), 7);
    assert_eq!(shown(&filter)?.len(), 7);
    Ok(())
}

/// A device may have any name: none of its bytes reaches a terminal as a control character, and
/// none starts a second line in the file of acknowledgements.
#[test]
fn names_of_devices_stay_names() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    tunnel(&site, "v\u{1b}[2J\u{7}x", 1)?;
    let said = filter.ok(&["status"])?;
    ensure!(said.contains("tunnel `v?[2J?x`"), "{said:?}");
    ensure!(
        !said.contains('\u{1b}') && !said.contains('\u{7}'),
        "{said:?}"
    );
    filter.ok(&["status", "--ack", "W08"])?;
    let file = std::fs::read_to_string(filter.state_dir().join("acknowledged"))?;
    assert_eq!(file, "W08:v?[2J?x\n");
    ensure!(!filter.ok(&["status"])?.contains("W08  "));
    Ok(())
}

/// The config file may name the place of the acknowledgements: while it cannot be read, none is
/// written elsewhere.
#[test]
fn nothing_is_acknowledged_in_the_wrong_place() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    tunnel(&site, "wg0", 1)?;
    let full = filter.state_dir().join("acknowledged");
    std::fs::create_dir(&full)?;
    let ran = filter.run(&["status", "--ack", "W08"])?;
    refused(&ran, FAILED, &["acknowledgements", "a directory"])?;
    ensure!(filter.run(&["status"])?.stdout.contains("W08  "));
    std::fs::remove_dir(&full)?;
    filter.ok(&["status", "--ack", "W08"])?;
    filter.ok(&["detach"])?;
    filter.ok(&ATTACH)?;
    ensure!(!filter.ok(&["status"])?.contains("W08  "), "forgotten");
    Ok(())
}
