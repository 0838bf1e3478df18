//! Ports with lists of their own: `[[guard]]` in the config file.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    guards::{
        API, CONTROL_PLANE, ETCD, GUARD, each_reaches_its_own, guarded, is_in, office_is_dropped,
    },
    held::{held_maps, inner_maps},
    net::{Echo, open},
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait::until,
};

/// An address of the unlisted client in no list.
const OTHER: &str = "203.0.113.50";

#[test]
fn a_port_with_a_guard_is_open_to_its_lists_alone() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    each_reaches_its_own(&site, &filter)?;
    // Neither another list nor an implicit source opens it.
    site.add_unlisted(OTHER)?;
    for (words, back) in [
        (
            &["ranges", "add", OTHER][..],
            &["ranges", "remove", OTHER][..],
        ),
        (
            &["ranges", "add", "--list", "guests", OTHER],
            &["ranges", "delete", "--list", "guests"],
        ),
        (
            &["attach", "--cluster-cidrs", "203.0.113.0/24"],
            &["attach", "--cluster-cidrs", "", "--force"],
        ),
        (
            &["attach", "--outbound-ips", OTHER],
            &["attach", "--outbound-ips", "", "--force"],
        ),
    ] {
        filter.ok(words)?;
        let opened = open(&site.unlisted, ip(OTHER), at(NODE[0], API));
        drop(opened.with_context(|| words.join(" "))?);
        site.is_dropped(OTHER, at(NODE[0], ETCD), &filter)?;
        filter.ok(back)?;
        site.is_dropped(OTHER, at(NODE[0], API), &filter)?;
    }
    // Its own list does, for it and for the API server.
    let ran = filter.run(&["ranges", "--list", "control-plane", "add", ADMIN[0]])?;
    ensure!(
        ran.stderr
            .contains("TCP 2379, 2380 (list `control-plane`): +198.51.100.7/32"),
        "{ran}"
    );
    site.admin_gets_in(Family::V4, ETCD)?;
    office_is_dropped(&site, &filter, Family::V6, ETCD)?;
    filter.ok(&["ranges", "--list", "control-plane", "remove", ADMIN[0]])?;
    each_reaches_its_own(&site, &filter)
}

#[test]
fn a_range_that_moves_to_another_list_moves_the_port() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    let own = ["--list", "control-plane"];
    // The union is the same before and after; the ports are not.
    let ran = filter.run(&[&["ranges", "add", "198.51.100.0/24"], &own[..]].concat())?;
    ensure!(
        ran.code == Some(0) && ran.stderr.contains("+198.51.100.0/24"),
        "{ran}"
    );
    site.admin_gets_in(Family::V4, ETCD)?;
    let used = filter.json(&["ranges", "list"])?;
    let rows = used["ranges"].as_array().context("no `ranges`")?;
    let row = rows.iter().find(|row| row["range"] == "198.51.100.0/24");
    let packets = row.and_then(|row| row["packets"].as_u64());
    ensure!(packets > Some(0), "{used:#}");
    filter.ok(&["ranges", "remove", "198.51.100.0/24"])?;
    site.admin_gets_in(Family::V4, API)?;
    site.admin_gets_in(Family::V4, ETCD)?;
    // An entry that has expired, and a list without any: the ports are closed.
    let soon = [&["ranges", "add", ADMIN[1], "--expires", "1s"], &own[..]].concat();
    filter.ok(&soon)?;
    until("the entry has expired", || {
        Ok(!is_in(&filter, ADMIN[1], ETCD)?)
    })?;
    office_is_dropped(&site, &filter, Family::V6, ETCD)?;
    site.admin_gets_in(Family::V6, API)?;
    let empty = [&["ranges", "set", "0.0.0.0/32", "--force"], &own[..]].concat();
    filter.ok(&empty)?;
    office_is_dropped(&site, &filter, Family::V4, ETCD)?;
    site.unlisted_is_dropped(Family::V6, ETCD, &filter)?;
    let status = filter.ok(&["status"])?;
    ensure!(
        status.contains("ranges: 0; closed to all but this node"),
        "{status}"
    );
    // The off switch is for all ports.
    filter.ok(&["ranges", "clear", "--force"])?;
    site.admin_gets_in(Family::V4, ETCD)?;
    site.unlisted_gets_in(Family::V6, ETCD).map(drop)
}

#[test]
fn commands_say_which_port_is_open_to_a_source() -> Result<()> {
    let (_site, filter, _servers) = guarded()?;
    let checked = filter.run(&["check", ADMIN[0], UNLISTED[0]])?;
    ensure!(checked.code == Some(0), "{checked}");
    let lines: Vec<&str> = checked.stdout.lines().collect();
    let want = [
        "198.51.100.7 allowed: `198.51.100.0/24` (list)",
        "198.51.100.7 dropped at TCP 2379, 2380: in no range of the list `control-plane`",
        "203.0.113.9 allowed: `203.0.113.9/32` (list: control-plane)",
    ];
    ensure!(lines == want, "{checked}");
    for (port, source, code) in [
        ("2379", ADMIN[0], 1),
        ("2379", UNLISTED[0], 0),
        ("6443", ADMIN[0], 0),
        ("6443", OTHER, 1),
        ("80", OTHER, 0),
    ] {
        let ran = filter.run(&["check", "--port", port, source])?;
        let place = format!("at TCP {port}: ");
        ensure!(
            ran.code == Some(code) && ran.stdout.contains(&place),
            "{ran}"
        );
    }
    let range = filter.run(&["check", "--port", "2380", "203.0.113.0/24"])?;
    ensure!(range.stdout.contains("partly allowed"), "{range}");
    let json = filter.json(&["check", ADMIN[0]])?;
    let result = &json["results"][0];
    ensure!(
        result["allowed"] == true
            && result["guards"][0]["verdict"] == "drop"
            && result["guards"][0]["guard"]["ports"] == json!([2379, 2380]),
        "{json:#}"
    );

    let status = filter.ok(&["status"])?;
    ensure!(
        status.contains("guard         TCP 2379, 2380: list `control-plane`, ranges: 2\n")
            && status.contains("TCP 443, 2379, 2380, 6443 from sources"),
        "{status}"
    );
    let guards = filter.status("guards")?;
    let want = json!([{ "ports": [2379, 2380], "lists": ["control-plane"], "ranges": 2 }]);
    ensure!(guards == want, "{guards:#}");
    ensure!(filter.status("ports")? == json!([443, 6443]));
    let state = filter.list_state("control-plane")?;
    ensure!(state["guards"] == json!([2379, 2380]), "{state:#}");
    let config = filter.ok(&["config"])?;
    ensure!(config.contains("control-plane"), "{config}");
    Ok(())
}

#[test]
fn monitor_mode_suggests_a_source_for_the_list_of_its_port() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    site.add_unlisted(OTHER)?;
    filter.ok(&["monitor"])?;
    for (client, source, port) in [
        (&site.admin, ADMIN[0], ETCD),
        (&site.unlisted, OTHER, API),
        (&site.unlisted, OTHER, ETCD),
    ] {
        open(client, ip(source), at(NODE[0], port))?;
    }
    let lines = filter.ok(&["suggest"])?;
    let lines: Vec<&str> = lines.lines().collect();
    let starts = [
        "203.0.113.50/32 # ",
        "# --list control-plane 198.51.100.7/32 # ",
        "# --list control-plane 203.0.113.50/32 # ",
    ];
    ensure!(
        lines.len() == starts.len()
            && lines
                .iter()
                .zip(starts)
                .all(|(line, start)| line.starts_with(start)),
        "{lines:#?}"
    );
    let json = filter.json(&["suggest"])?;
    ensure!(
        json["ranges"][0]["guard"].is_null()
            && json["ranges"][1]["guard"]["lists"] == json!(["control-plane"]),
        "{json:#}"
    );
    filter.ok(&["ranges", "--list", "control-plane", "add", OTHER])?;
    let lines = filter.ok(&["suggest"])?;
    ensure!(
        !lines.contains(OTHER) && lines.contains(ADMIN[0]),
        "{lines}"
    );
    // The mode alone changes, and comes back.
    filter.ok(&["enforce"])?;
    filter.ok(&["ranges", "--list", "control-plane", "remove", OTHER])?;
    each_reaches_its_own(&site, &filter)
}

#[test]
fn run_follows_guards_and_their_lists() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(API)?;
    let _etcd = Echo::new(&site.node, ETCD)?;
    site.admin_gets_in(Family::V4, ETCD)?;
    // A guard of a list that is not there changes nothing.
    filter.write_config(GUARD)?;
    daemon.line(|line| line.contains("there is no list `control-plane`"))?;
    site.admin_gets_in(Family::V4, ETCD)?;
    site.is_guarded(API)?;
    filter.write_list_of("control-plane", CONTROL_PLANE)?;
    daemon.line(|line| line.contains("guards TCP 2379, 2380"))?;
    each_reaches_its_own(&site, &filter)?;
    // So is a list that moves, and a broken one.
    filter.write_list_of("control-plane", format!("{CONTROL_PLANE}198.51.100.0/24\n"))?;
    until("the office reaches etcd", || is_in(&filter, ADMIN[0], ETCD))?;
    site.admin_gets_in(Family::V4, ETCD)?;
    filter.write_list_of("control-plane", "198.51.100.0/33\n")?;
    daemon.line(|line| line.contains("control-plane:1"))?;
    site.admin_gets_in(Family::V4, ETCD)?;
    fs::remove_file(filter.list_file("control-plane"))?;
    daemon.line(|line| line.contains("no such file"))?;
    site.unlisted_gets_in(Family::V6, ETCD)?;
    filter.write_list_of("control-plane", CONTROL_PLANE)?;
    until("the office is out", || Ok(!is_in(&filter, ADMIN[0], ETCD)?))?;
    each_reaches_its_own(&site, &filter)?;
    // Without its guard the port is open to all.
    filter.write_config("")?;
    daemon.line(|line| line.contains("opens TCP 2379, 2380 to everyone"))?;
    site.admin_gets_in(Family::V4, ETCD)?;
    filter.write_config(format!("ports = [6443, 2379]\n{GUARD}"))?;
    daemon.line(|line| line.contains("guards TCP 2379, 2380"))?;
    each_reaches_its_own(&site, &filter)?;
    filter.write_config("ports = [6443, 2379]\n")?;
    daemon.line(|line| line.contains("opens TCP 2379 to all lists"))?;
    site.admin_gets_in(Family::V4, ETCD)?;
    site.add_unlisted(OTHER)?;
    site.is_dropped(OTHER, at(NODE[0], ETCD), &filter)
}

#[test]
fn guards_come_back_after_a_boot_whatever_is_broken() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    let other = "[[guard]]\nports = [2379]\nlists = ['other']\n";
    let config = |text: &str| filter.write_config(text);
    let list = |text: &str| filter.write_list_of("control-plane", text);
    let cases: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("nothing", &|| Ok(())),
        ("the config file", &|| config("[[guard]\nports = 3\n")),
        ("a list that is not there", &|| config(other)),
        ("the list", &|| list("203.0.113.9/24\n")),
        ("no list", &|| {
            Ok(fs::remove_file(filter.list_file("control-plane"))?)
        }),
        ("the ranges file", &|| filter.write_list("x\n")),
    ];
    for (what, spoil) in cases {
        spoil()?;
        filter.boot()?;
        let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
        daemon
            .line(|line| line.contains("guarding"))
            .context(what)?;
        each_reaches_its_own(&site, &filter).context(what)?;
        drop(daemon);
        config(GUARD)?;
        list(CONTROL_PLANE)?;
        filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    }
    // A command goes by the files; settings of the file stay while there is none.
    filter.boot()?;
    filter.ok(&ATTACH[..3])?;
    each_reaches_its_own(&site, &filter)
}

/// The pins of the tries of guards come back with the others, as long as `run` holds them.
#[test]
fn lost_pins_of_guards_come_back() -> Result<()> {
    let (site, filter, _servers) = guarded()?;
    filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    let pin = || -> Result<_> {
        let all = fs::read_dir(filter.bpffs())?.filter_map(Result::ok);
        let mut layouts = all.map(|entry| entry.path().join("maps"));
        layouts.find(|maps| maps.exists()).context("no maps")
    };
    let names = || -> Result<Vec<String>> {
        let mut names = Vec::new();
        for slot in ["slot-0", "slot-1"] {
            for entry in fs::read_dir(pin()?.join(slot))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                names.extend(name.contains('-').then(|| format!("{slot}/{name}")));
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    // Two groups of each family, in one slot alone: the previous generation has no maps.
    until("one generation has tries of a guard", || {
        Ok(names()?.len() == 4)
    })?;
    let status = || filter.run(&["status", "--check"]);
    until("all is as the files say", || Ok(status()?.code == Some(0)))?;
    let pid = daemon.pid();
    let are_held = || Ok(inner_maps(&pin()?)?.is_subset(&held_maps(pid)?));
    until("`run` holds the maps of the change", are_held)?;
    fs::remove_dir_all(filter.bpffs())?;
    until("pinned again", || {
        Ok(names().is_ok_and(|now| now.len() == 4))
    })?;
    ensure!(is_in(&filter, UNLISTED[0], ETCD)? && !is_in(&filter, ADMIN[0], ETCD)?);
    each_reaches_its_own(&site, &filter)?;
    // Without the guard its tries are gone, and a later loss asks for none of them.
    filter.write_config("")?;
    daemon.line(|line| line.contains("to everyone"))?;
    until("no generation has tries of a guard", || {
        Ok(names()?.is_empty())
    })?;
    until("`run` holds the maps without the guard", are_held)?;
    fs::remove_dir_all(filter.bpffs())?;
    until("pinned again", || {
        Ok(pin().is_ok() && filter.run(&["check", ADMIN[0]])?.code == Some(0))
    })
}
