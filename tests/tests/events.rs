//! Dropped packets in `events`, `run` and `suggest`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    cli::{Apifence, Background},
    loaded::{self, Filter},
    net::silent,
    netns::Namespace,
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    table::{Source, v4, v6},
    wait::{until, until_ended},
};

const PORT: u16 = 6443;

/// The objects in the output, one per line.
fn objects(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("read `{line}`")))
        .collect()
}

/// The next object of a background process that `wanted` accepts.
fn object(program: &mut Background, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let line = program.line(|line| serde_json::from_str(line).is_ok_and(|value| wanted(&value)))?;
    Ok(serde_json::from_str(&line)?)
}

/// Starts `events`, and waits until it has its place in the rings.
fn events(filter: &Apifence, arguments: &[&str]) -> Result<Background> {
    let mut events = filter.start(&[&["-o", "json", "events"], arguments].concat())?;
    events.line(|line| line.starts_with("packets that are refused"))?;
    Ok(events)
}

/// Whether `event` is the unlisted client's SYN of that family, with all fields.
fn is_his_syn(event: &Value, family: Family, verdict: &str, site: &Site) -> Result<()> {
    let version = family as usize;
    // A SYN with Linux's usual options, in Ethernet: 74 and 94 bytes.
    let bytes = [74, 94][version];
    ensure!(
        event["verdict"] == verdict
            && event["reason"] == "unauthorized"
            && event["source"] == UNLISTED[version]
            && event["source_port"]
                .as_u64()
                .is_some_and(|port| port >= 1024)
            && event["destination"] == NODE[version]
            && event["destination_port"] == PORT
            && event["interface"] == INTERFACE
            && event["ifindex"] == site.node.ifindex(INTERFACE)?
            && event["bytes"] == bytes
            && event["time"].is_string(),
        "{event:#}"
    );
    Ok(())
}

fn send_syn(site: &Site, family: Family) -> Result<()> {
    let version = family as usize;
    silent(
        &site.unlisted,
        ip(UNLISTED[version]),
        at(NODE[version], PORT),
    )
}

#[test]
fn a_lone_syn_is_shown_to_every_reader() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let (site, filter) = Site::unguarded()?;
        let attach = [&ATTACH[1..], &["--xdp-mode", xdp_mode]].concat();
        let mut run = filter.start(&[&["-o", "json", "run"], &attach[..]].concat())?;
        until("the filter is attached", || {
            Ok(filter.run(&["status"])?.stdout.starts_with("● enforcing"))
        })?;
        let mut both = [
            events(&filter, &[])?,
            events(&filter, &["--interface", INTERFACE])?,
        ];
        let mut elsewhere = events(&filter, &["--interface", "lo", "--reason", "unauthorized"])?;
        for family in Family::BOTH {
            send_syn(&site, family)?;
            let his = |event: &Value| event["source"] == UNLISTED[family as usize];
            for events in &mut both {
                is_his_syn(&object(events, his)?, family, "drop", &site)?;
            }
            let logged = object(&mut run, |line| line["log"] == "first" && his(line))?;
            is_his_syn(&logged, family, "drop", &site)?;
        }
        // A late reader cannot know whether another one ran when the packet came.
        let late = objects(&filter.ok(&["-o", "json", "events", "--recent"])?)?;
        let sources: Vec<_> = late.iter().map(|event| event["source"].clone()).collect();
        ensure!(
            UNLISTED
                .iter()
                .all(|one| sources.contains(&Value::from(*one))),
            "{late:?}"
        );
        let none = ["events", "--recent", "--reason", "truncated"];
        ensure!(
            filter.ok(&none)?.is_empty(),
            "another reason's packets are shown"
        );
        let text = filter.ok(&["events", "--recent"])?;
        let line = text.lines().next().unwrap_or_default();
        let route = [
            " drop unauthorized 203.0.113.9:",
            " -> 192.0.2.10:6443 eth0 74 bytes",
        ];
        ensure!(route.iter().all(|part| line.contains(part)), "{text}");

        both[0].signal(Signal::SIGTERM)?;
        both[1].signal(Signal::SIGINT)?;
        for mut events in both {
            ensure!(events.wait()? == Some(0), "a signal is no failure");
        }
        ensure!(elsewhere.runs()?);
        run.signal(Signal::SIGTERM)?;
        ensure!(run.wait()? == Some(0));
        filter.ok(&["detach"])?;
        // Without a filter there are no events to wait for.
        elsewhere.line(|line| line.contains("no filter is attached"))?;
        ensure!(elsewhere.wait()? == Some(tests::cli::FAILED));
    }
    Ok(())
}

#[test]
fn a_closed_pipe_ends_events_though_nothing_happens() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut command = filter.command(&["events"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = site.node.spawn(&mut command)?;
    let mut talk = BufReader::new(child.stderr.take().context("no stderr")?);
    talk.read_line(&mut String::new())?;
    drop(child.stdout.take());
    ensure!(until_ended(&mut child)?.code() == Some(0));
    Ok(())
}

/// More than the budget at once: some are reported, the others counted, and none is missing.
#[test]
fn a_flood_is_sampled_and_the_rest_is_counted_exactly() -> Result<()> {
    let namespace = Namespace::new("flood")?;
    loaded::add_interface(&namespace)?;
    let filter = Apifence::new(&namespace)?;
    let quiet = format!("--interface={}", loaded::INTERFACE);
    filter.ok(&["attach", &quiet, "--authorized-ip-ranges", ADMIN_RANGES])?;
    let program = Filter::open(&filter, namespace.ifindex(loaded::INTERFACE)?)?;
    let mut events = events(&filter, &[])?;
    let four = v4(Source::Unlisted).syn(40_000, PORT).frame();
    let six = v6(Source::Unlisted).syn(40_000, PORT).frame();
    let (mut reported, mut not_reported) = (0, 0);
    for round in 0..3 {
        let family = round % 2;
        let before = program.dropped()?;
        let frame = [&four, &six, &four][round];
        const PACKETS: u32 = 100_000;
        program.program().test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: PACKETS,
            ..TestRunOptions::new()
        })?;
        let dropped = program.dropped()?;
        ensure!(
            dropped - before == u64::from(PACKETS),
            "{dropped} after {before}"
        );
        // All packets are accounted for, in time.
        while reported + not_reported < dropped {
            let event = object(&mut events, |_| true)?;
            match event["not_reported"].as_u64() {
                Some(count) => not_reported += count,
                None => {
                    ensure!(event["source"] == UNLISTED[family], "{event}");
                    reported += 1;
                }
            }
        }
        ensure!(
            reported + not_reported == dropped,
            "{reported} and {not_reported} of {dropped}"
        );
    }
    ensure!(reported >= 32, "a flood is sampled, not hidden: {reported}");
    ensure!(reported < 3_000, "{reported} reports of three bursts");
    events.signal(Signal::SIGTERM)?;
    ensure!(events.wait()? == Some(0));
    Ok(())
}

#[test]
fn monitor_mode_suggests_ranges_that_authorize_the_unlisted_source() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    site.add_unlisted("203.0.113.10")?;
    site.add_unlisted("203.0.113.200")?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    ensure!(filter.ok(&["suggest"])?.is_empty(), "nobody came yet");
    for family in Family::BOTH {
        site.unlisted_gets_in(family, PORT)?;
        site.admin_gets_in(family, PORT)?;
    }
    for source in ["203.0.113.10", "203.0.113.200"] {
        tests::net::open(&site.unlisted, ip(source), at(NODE[0], PORT))?;
    }
    let would = filter.packets("would_drop", "")?;
    let json = filter.json(&["suggest"])?;
    let ranges = json["ranges"].as_array().context("no `ranges`")?;
    let shown: Vec<_> = ranges
        .iter()
        .filter_map(|one| one["range"].as_str())
        .collect();
    let want = ["203.0.113.8/30", "203.0.113.200/32", "2001:db8:bb::9/128"];
    ensure!(shown == want, "{json:#}");
    let packets: u64 = ranges
        .iter()
        .filter_map(|one| one["packets"].as_u64())
        .sum();
    ensure!(packets == would, "{packets} of {would} packets");
    ensure!(
        ranges[0]["addresses"] == 2 && ranges[0]["last_seen"].is_string(),
        "{json:#}"
    );
    let wide = filter.json(&["suggest", "--group-v4", "24", "--group-v6", "/48"])?;
    ensure!(wide["ranges"][0]["range"] == "203.0.113.0/24", "{wide:#}");
    ensure!(
        wide["ranges"][1]["range"] == "2001:db8:bb::9/128",
        "{wide:#}"
    );

    // As text the output is a list that can be appended to the present ranges.
    let lines = filter.ok(&["suggest"])?;
    let list = format!("{}\n{lines}", ADMIN_RANGES.replace(',', "\n"));
    let file = filter.ranges_file().with_file_name("suggested");
    std::fs::write(&file, list)?;
    let mut set = filter.command(&["ranges", "set", "--from-file", "-"]);
    set.stdin(std::fs::File::open(&file)?);
    let ended = until_ended(&mut site.node.spawn(&mut set)?)?;
    ensure!(ended.code() == Some(0), "the list is not taken:\n{lines}");
    filter.ok(&ATTACH[..3])?;
    for family in Family::BOTH {
        site.unlisted_gets_in(family, PORT)?;
    }
    ensure!(
        filter.ok(&["suggest"])?.is_empty(),
        "who is let in needs no suggestion"
    );
    let listed = filter.ok(&["ranges", "list"])?;
    ensure!(listed.contains("packets, last seen"), "{listed}");
    Ok(())
}
