//! Real connections through the filter: open, blocked, open again, and neighbours that must not
//! change.

use anyhow::Result;
use tests::{
    cli::{Apifence, words},
    net::{Echo, Transfer, exchange, open, silent},
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
};

const PORTS: [u16; 2] = [443, 6443];
#[test]
fn native_filter_guards_both_ports_and_families() -> Result<()> {
    guards_both_ports_and_families("native")
}

#[test]
fn generic_filter_guards_both_ports_and_families() -> Result<()> {
    guards_both_ports_and_families("generic")
}

fn guards_both_ports_and_families(xdp_mode: &str) -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = PORTS.map(|port| [Echo::new(&site.node, port), Echo::new(&site.node, port + 1)]);
    let everyone_gets_in = || {
        for family in Family::BOTH {
            for port in PORTS {
                site.admin_gets_in(family, port)?;
                site.unlisted_gets_in(family, port)?;
            }
        }
        anyhow::Ok(())
    };
    let neighbours_are_open = || {
        for family in Family::BOTH {
            for port in PORTS {
                site.unlisted_gets_in(family, port + 1)?;
                site.other_protocols_pass(family, port)?;
            }
        }
        anyhow::Ok(())
    };

    everyone_gets_in()?;
    neighbours_are_open()?;

    filter.ok(&[&ATTACH[..], &["--xdp-mode", xdp_mode]].concat())?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["state"], "enforcing");
    assert_eq!(status["interfaces"][0]["interface"], INTERFACE);
    assert_eq!(status["interfaces"][0]["xdp_mode"], xdp_mode);
    for family in Family::BOTH {
        for port in PORTS {
            site.admin_gets_in(family, port)?;
            site.unlisted_is_dropped(family, port, &filter)?;
        }
    }
    neighbours_are_open()?;

    filter.ok(&["detach"])?;
    assert_eq!(filter.status("state")?, "detached");
    everyone_gets_in()?;
    neighbours_are_open()
}

#[test]
fn a_range_added_lets_in_and_its_removal_cuts_the_open_connection() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.unlisted_gets_in(Family::V4, 6443)?;
    filter.ok(&ATTACH)?;
    let admin = Transfer::new(&site.admin, ip(ADMIN[0]), at(NODE[0], 6443))?;

    for (family, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let address = UNLISTED[family as usize];
        site.unlisted_is_dropped(family, 6443, &filter)?;
        filter.ok(&["ranges", "add", address, "--comment", "for today"])?;
        let mut connection = site.unlisted_gets_in(family, 6443)?;
        site.unlisted_is_dropped(other, 6443, &filter)?;

        filter.ok(&["ranges", "remove", address])?;
        filter.cuts(&mut connection)?;
        site.unlisted_is_dropped(family, 6443, &filter)?;
        admin.flows()?;
    }
    Ok(())
}

#[test]
fn an_entry_authorizes_no_neighbour() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    let inside = [
        "198.51.100.0",
        "198.51.100.255",
        "2001:db8:aa::",
        "2001:db8:aa:ffff:ffff:ffff:ffff:ffff",
    ];
    let outside = [
        "198.51.99.255",
        "198.51.101.0",
        "2001:db8:a9:ffff:ffff:ffff:ffff:ffff",
        "2001:db8:ab::",
    ];
    let node = |address: &str| at(NODE[usize::from(address.contains(':'))], 443);
    for address in inside.into_iter().chain(outside) {
        site.add_unlisted(address)?;
        open(&site.unlisted, ip(address), node(address))?;
    }

    filter.ok(&ATTACH)?;
    for address in inside {
        open(&site.unlisted, ip(address), node(address))?;
        assert_eq!(filter.run(&["check", address])?.code, Some(0));
    }
    for address in outside {
        site.is_dropped(address, node(address), &filter)?;
        assert_eq!(filter.run(&["check", address])?.code, Some(1));
    }

    filter.ok(&["detach"])?;
    for address in outside {
        open(&site.unlisted, ip(address), node(address))?;
    }
    Ok(())
}

#[test]
fn the_nodes_own_connections_get_their_replies() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut servers = Vec::new();
    for port in PORTS {
        servers.push(Echo::new(&site.unlisted, port)?);
        servers.push(Echo::new(&site.node, port)?);
    }
    let goes_out = |family: Family, port| {
        let family = family as usize;
        open(&site.node, ip(NODE[family]), at(UNLISTED[family], port)).map(drop)
    };
    for xdp_mode in ["native", "generic"] {
        for family in Family::BOTH {
            goes_out(family, 443)?;
            site.unlisted_gets_in(family, 443)?;
        }
        filter.ok(&[&ATTACH[..], &["--xdp-mode", xdp_mode]].concat())?;
        for family in Family::BOTH {
            for port in PORTS {
                site.unlisted_is_dropped(family, port, &filter)?;
                goes_out(family, port)?;
            }
        }
        filter.ok(&["detach"])?;
    }
    Ok(())
}

#[test]
fn destinations_narrow_the_filter() -> Result<()> {
    const OTHER: &str = "192.0.2.99";
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.add_node(OTHER)?;
    let unlisted = ip(UNLISTED[0]);
    open(&site.unlisted, unlisted, at(NODE[0], 6443))?;
    open(&site.unlisted, unlisted, at(OTHER, 6443))?;

    filter.ok(&[&ATTACH[..], &["--destination", NODE[0]]].concat())?;
    site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
    open(&site.unlisted, unlisted, at(OTHER, 6443))?;
    site.unlisted_gets_in(Family::V6, 6443)?;
    site.admin_gets_in(Family::V4, 6443)?;

    filter.ok(&[
        &ATTACH[..],
        &["--destination", NODE[0], "--destination", "192.0.2.96/29"],
    ]
    .concat())?;
    site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
    site.is_dropped(UNLISTED[0], at(OTHER, 6443), &filter)?;

    filter.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V4, 6443).map(drop)
}

#[test]
fn other_ports_can_be_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _servers = [6443, 8443, 65535].map(|port| Echo::new(&site.node, port));
    for port in [6443, 8443, 65535] {
        site.unlisted_gets_in(Family::V6, port)?;
    }
    filter.ok(&[&ATTACH[..], &["--port", "8443", "--port", "65535"]].concat())?;
    site.unlisted_is_dropped(Family::V6, 8443, &filter)?;
    site.unlisted_is_dropped(Family::V6, 65535, &filter)?;
    site.unlisted_gets_in(Family::V6, 6443)?;
    filter.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V6, 8443).map(drop)
}

#[test]
fn monitor_mode_counts_and_drops_nothing() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.unlisted_gets_in(Family::V4, 6443)?;

    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    assert_eq!(filter.status("state")?, "monitoring");
    for family in Family::BOTH {
        let before = filter.packets("would_drop", "unauthorized")?;
        site.admin_gets_in(family, 6443)?;
        assert_eq!(
            filter.packets("would_drop", "unauthorized")?,
            before,
            "an administrator's packet counts"
        );
        site.unlisted_gets_in(family, 6443)?;
        assert!(
            filter.packets("would_drop", "unauthorized")? > before,
            "packets of an unlisted client do not count"
        );
    }
    assert_eq!(filter.dropped()?, 0);

    filter.ok(&[&ATTACH[..], &["--mode", "enforce"]].concat())?;
    for family in Family::BOTH {
        site.unlisted_is_dropped(family, 6443, &filter)?;
        site.admin_gets_in(family, 6443)?;
    }
    Ok(())
}

#[test]
fn the_empty_list_opens_and_says_so() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.unlisted_gets_in(Family::V4, 6443)?;
    for off in [&["ranges", "clear"][..], &["ranges", "set", "", "--force"]] {
        filter.ok(&ATTACH)?;
        site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
        filter.ok(off)?;
        for family in Family::BOTH {
            site.unlisted_gets_in(family, 6443)?;
        }
        let status = filter.ok(&["status"])?;
        let first = status.lines().next().unwrap_or_default();
        assert!(
            first.to_lowercase().contains("off"),
            "status starts with `{first}`"
        );
        assert_eq!(filter.status("state")?, "off");
    }
    filter.ok(&["ranges", "add", "198.51.100.0/24"])?;
    assert_eq!(filter.status("state")?, "enforcing");
    site.unlisted_is_dropped(Family::V4, 6443, &filter)
}

#[test]
fn a_range_without_addresses_blocks_every_source() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.admin_gets_in(Family::V4, 6443)?;
    filter.ok(&ATTACH)?;
    let mut connections = [
        site.admin_gets_in(Family::V4, 6443)?,
        site.admin_gets_in(Family::V6, 6443)?,
    ];

    filter.ok(&["ranges", "set", "0.0.0.0/32", "--force"])?;
    assert_eq!(filter.status("state")?, "enforcing");
    for family in Family::BOTH {
        silent(
            &site.admin,
            ip(ADMIN[family as usize]),
            at(NODE[family as usize], 6443),
        )?;
        filter.cuts(&mut connections[family as usize])?;
        site.other_protocols_pass(family, 6443)?;
    }

    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    for family in Family::BOTH {
        // TCP repeats the data sent meanwhile: the connection has lost nothing.
        exchange(&mut connections[family as usize], tests::wait::PATIENCE)?;
        site.admin_gets_in(family, 6443)?;
        site.unlisted_is_dropped(family, 6443, &filter)?;
    }
    Ok(())
}

#[test]
fn implicit_sources_get_in() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    site.unlisted_gets_in(Family::V4, 6443)?;
    for option in words("--outbound-ips --outbound-ip-prefixes --cluster-cidrs") {
        filter.ok(&ATTACH)?;
        site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
        filter.ok(&[&ATTACH[..], &[option, UNLISTED[0]]].concat())?;
        site.unlisted_gets_in(Family::V4, 6443)?;
        site.unlisted_is_dropped(Family::V6, 6443, &filter)?;
        site.admin_gets_in(Family::V6, 6443)?;
        filter.ok(&[&ATTACH[..], &[option, "", "--force"]].concat())?;
    }
    Ok(())
}

#[test]
fn jumbo_frames_pass_for_an_administrator() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let site = Site::with_mtu(9000)?;
        let filter = Apifence::new(&site.node)?;
        let _server = Echo::new(&site.node, 6443)?;
        filter.ok(&[&ATTACH[..], &["--xdp-mode", xdp_mode]].concat())?;
        for family in [0, 1] {
            Transfer::new(&site.admin, ip(ADMIN[family]), at(NODE[family], 6443))?.flows()?;
        }
        site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
        // The next round has a node of its own and the same pins; the kernel frees this one later.
        filter.ok(&["detach"])?;
    }
    Ok(())
}
