//! `top`, in a terminal and without one, and `stats --watch`.

mod add;
mod failures;
mod screen;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    cli::{Apifence, Background, FAILED, INPUT, refused},
    net::{Echo, SynSender, silent},
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    terminal::Terminal,
    wait::until_ended,
};

const PORT: u16 = 6443;

fn top(site: &Site, filter: &Apifence) -> Result<Terminal> {
    let top = Terminal::start(filter, &site.node, &["top"], &[])?;
    top.shows(&["enforcing: TCP 443, 6443", "1 refused sources"])?;
    Ok(top)
}

fn send_syn(site: &Site, source: &str) -> Result<()> {
    let node = NODE[usize::from(source.contains(':'))];
    silent(&site.unlisted, ip(source), at(node, PORT))
}

#[test]
fn it_shows_refused_and_authorized_sources() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let mut top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[0])?;
    top.shows(&[
        UNLISTED[0],
        "unauthorized",
        "6443",
        "1 refused sources: 1 seen",
        "-1 min",
    ])?;
    top.press("2")?;
    top.shows(&["2 used entries"])?;
    let _connections = Family::BOTH
        .into_iter()
        .map(|family| site.admin_gets_in(family, PORT))
        .collect::<Result<Vec<_>>>()?;
    let [v4, v6] = ADMIN_RANGES
        .split_once(',')
        .map(<[&str; 2]>::from)
        .context("two")?;
    top.shows(&[v4, v6, "default"])?;
    top.press("\t")?;
    top.shows(&["3 interfaces", INTERFACE, "native", "authorized", "drop"])?;
    top.press("?")?;
    top.shows(&["nothing is missed meanwhile"])?;
    top.press("?1q")?;
    top.ended_well()
}

#[test]
fn a_pause_keeps_the_screen_and_misses_nothing() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut top = top(&site, &filter)?;
    send_syn(&site, UNLISTED[0])?;
    top.shows(&[UNLISTED[0]])?;
    top.press("p")?;
    top.shows(&["PAUSED"])?;
    let before = top.contents();
    send_syn(&site, UNLISTED[1])?;
    // Two readings are a second apart: meanwhile `top` has read, too.
    let printed = filter.ok(&["top"])?;
    ensure!(printed.contains(UNLISTED[1]), "{printed}");
    ensure!(
        top.contents() == before,
        "{before}\nbecame\n{}",
        top.contents()
    );
    top.press("s")?;
    top.shows(&["PAUSED", "SEEN ▼"])?;
    ensure!(!top.contents().contains(UNLISTED[1]), "{}", top.contents());
    top.press(" ")?;
    top.until("what came meanwhile", |screen| {
        let text = screen.contents();
        text.contains(UNLISTED[1]) && !text.contains("PAUSED")
    })?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn a_sort_changes_the_order() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let other = "203.0.113.5";
    site.add_unlisted(other)?;
    filter.ok(&ATTACH)?;
    let mut top = top(&site, &filter)?;
    for source in [UNLISTED[0], UNLISTED[0], UNLISTED[0], other] {
        send_syn(&site, source)?;
    }
    // The first of two addresses in the table.
    let first = |first: &'static str, second: &'static str, column: &'static str| {
        move |screen: &vt100::Screen| {
            let text = screen.contents();
            let places = [first, second].map(|address| text.find(address));
            text.contains(column) && places[0].is_some() && places[0] < places[1]
        }
    };
    top.until("both", |screen| {
        let text = screen.contents();
        text.contains(UNLISTED[0]) && text.contains(other) && text.contains("/S ▼")
    })?;
    top.press("s")?;
    top.until("order by total", first(UNLISTED[0], other, "SEEN ▼"))?;
    top.press("s")?;
    top.until("order by time", first(other, UNLISTED[0], "LAST SEEN ▼"))?;
    top.press("s")?;
    top.until("order by name", first(other, UNLISTED[0], "SOURCE ▼"))?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn a_window_may_have_any_size() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut top = top(&site, &filter)?;
    for (lines, letters) in [
        (10, 40),
        (24, 80),
        (1, 1),
        (2, 200),
        (60, 200),
        (40, 120),
        (5, 20),
    ] {
        top.resize(lines, letters)?;
        let wanted: String = "enforcing".chars().take(letters.into()).collect();
        top.until(&format!("{letters}x{lines}"), |screen| {
            let rows: Vec<String> = screen.rows(0, letters).collect();
            let has_charts = rows.iter().any(|row| row.starts_with("┌dropped"));
            rows[0].starts_with(&wanted)
                && has_charts == (lines >= 18)
                && (lines == 1 || has_charts || rows[1].starts_with("dropped"))
        })?;
    }
    send_syn(&site, UNLISTED[0])?;
    top.shows(&[UNLISTED[0]])?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn however_it_ends_the_terminal_is_as_before() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    for key in ["q", "\x1b", "\x03"] {
        let mut top = top(&site, &filter)?;
        top.press(key)?;
        top.ended_well().with_context(|| format!("{key:?}"))?;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut top = top(&site, &filter)?;
        // Also during a pause. A key that the terminal receives afterwards would be visible.
        top.press("p")?;
        top.shows(&["PAUSED"])?;
        top.signal(signal)?;
        top.ended_well().with_context(|| format!("{signal}"))?;
    }
    Ok(())
}

#[test]
fn colours_follow_terminal_and_environment() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    for (value, wanted) in [("", true), ("1", false)] {
        let environment = [("NO_COLOR", value)];
        let top = Terminal::start(&filter, &site.node, &["top"], &environment)?;
        top.shows(&["enforcing", "q quit"])?;
        top.until("colours as wanted", |screen| {
            let cells = (0..24).flat_map(|line| (0..80).map(move |letter| (line, letter)));
            let mut cells = cells.filter_map(|(line, letter)| screen.cell(line, letter));
            wanted == cells.any(|cell| cell.fgcolor() != vt100::Color::Default)
        })?;
    }
    Ok(())
}

#[test]
fn a_filter_that_leaves_and_comes_back_is_shown() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let _server = Echo::new(&site.node, PORT)?;
    let mut top = top(&site, &filter)?;
    filter.ok(&["ranges", "add", "203.0.113.77", "--confirm-within", "60s"])?;
    top.shows(&[
        "3 ranges",
        "trial: reverts in ",
        "keep: apifence confirm",
        "undo: apifence ranges rollback",
    ])?;
    filter.ok(&["confirm"])?;
    top.until("end of the trial", |screen| {
        !screen.contents().contains("trial")
    })?;
    filter.ok(&["detach"])?;
    top.shows(&["detached: no filter is attached"])?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    top.shows(&["monitoring: TCP 443, 6443", "would drop"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    top.shows(&[UNLISTED[0]])?;
    // The ids of entries start again as well.
    site.admin_gets_in(Family::V4, PORT)?;
    top.press("2")?;
    top.shows(&["2 used entries", "198.51.100.0/24"])?;
    filter.ok(&["ranges", "remove", "198.51.100.0/24", "--force"])?;
    top.until("the removal of the entry", |screen| {
        !screen.contents().contains("198.51.100.0/24")
    })?;
    filter.ok(&["ranges", "clear"])?;
    top.shows(&["off: enforcement is switched off, all sources pass"])?;
    top.press("q")?;
    top.ended_well()
}

#[test]
fn without_a_terminal_it_is_printed_once() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    refused(&filter.run(&["top"])?, FAILED, &["no filter is attached"])?;
    let _server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    filter.ok(&["ranges", "add", "198.51.100.0/24", "--comment", "office"])?;
    let _connection = site.admin_gets_in(Family::V4, PORT)?;
    let sender = SynSender::new(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))?;
    let json = filter.json(&["top"])?;
    let text = filter.ok(&["top", "--once", "--interval", "300ms"])?;
    sender.stop()?;
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let source = &json["sources"][0];
    let entry = &json["entries"][0];
    let interface = &json["interfaces"][0];
    let counters = interface["counters"].as_array().context("no counters")?;
    let dropped = counters
        .iter()
        .find(|row| row["reason"] == "unauthorized")
        .context("no such counter")?;
    ensure!(
        json["state"] == "enforcing"
            && json["provisional"].is_null()
            && number(&json["dropped_per_second"]) > 0.0
            && number(&json["would_drop_per_second"]) == 0.0
            && json["passed_per_second"].is_number()
            && json["authorized_per_second"].is_number()
            && number(&json["not_reported"]) > 0.0
            && source["source"] == UNLISTED[0]
            && source["verdict"] == "drop"
            && source["reason"] == "unauthorized"
            && source["destination_port"] == PORT
            && source["interface"] == INTERFACE
            && source["reported"] == json["reported"]
            && number(&source["reported_per_second"]) > 0.0
            && source["last_seen"].is_string()
            && entry["range"] == "198.51.100.0/24"
            && entry["origins"][0] == "list"
            && entry["lists"] == json!(["default"])
            && entry["comment"] == "office"
            && entry["expires"].is_null()
            && json["ranges"] == 2
            && json["host"].is_string()
            && source["first_seen"].is_string()
            && source["destination_ports"] == json!([PORT])
            && number(&entry["packets"]) >= 3.0
            && entry["packets_per_second"].is_number()
            && interface["interface"] == INTERFACE
            && interface["xdp_mode"] == "native"
            && interface["guarded"] == true
            && number(&dropped["packets"]) > 0.0
            && number(&dropped["packets_per_second"]) > 0.0,
        "{json:#}"
    );
    let words = [
        "enforcing: TCP 443, 6443",
        "REFUSED SOURCE",
        UNLISTED[0],
        "more not shown",
        "198.51.100.0/24",
        "office",
        "eth0 (native)",
    ];
    for word in words {
        ensure!(text.contains(word), "no `{word}` in\n{text}");
    }
    ensure!(!text.contains('\x1b'), "{text:?}");
    Ok(())
}

/// The next line of `stats --watch` whose counter of the unlisted client's packets `wanted`
/// accepts.
fn watched(watch: &mut Background, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
    let row = |value: &Value| {
        let counters = value["interfaces"][0]["counters"].as_array()?;
        let his = |row: &&Value| row["verdict"] == "drop" && row["reason"] == "unauthorized";
        counters.iter().find(his).cloned()
    };
    let line = watch.line(|line| {
        parsed(line)
            .as_ref()
            .and_then(row)
            .is_some_and(|row| wanted(&row))
    })?;
    serde_json::from_str(&line).context("read a line")
}

const WATCH: [&str; 4] = ["stats", "--watch", "--interval", "200ms"];

#[test]
fn watched_counters_have_rates() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    refused(&filter.run(&WATCH)?, FAILED, &["no filter is attached"])?;
    for bad in [&WATCH[..3], &["stats", "--interval", "1s"]] {
        ensure!(filter.run(bad)?.code == Some(INPUT), "{bad:?}");
    }
    for bad in ["0s", "1ms", "2d", "soon"] {
        let words = [&WATCH[..3], &[bad]].concat();
        ensure!(filter.run(&words)?.code == Some(INPUT), "{words:?}");
    }
    filter.ok(&ATTACH)?;
    let mut watch = filter.start(&[&["-o", "json"], &WATCH[..]].concat())?;
    let mut text = filter.start(&WATCH)?;
    let sender = SynSender::new(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))?;
    let rate = |row: &Value| row["packets_per_second"].as_f64().unwrap_or_default();
    let line = watched(&mut watch, |row| {
        rate(row) > 0.0
            && row["bytes_per_second"].as_f64() > row["packets_per_second"].as_f64()
            && row["packets"].as_u64() > Some(0)
    })?;
    ensure!(
        line["time"].is_string()
            && line["seconds"]
                .as_f64()
                // A look that was late is followed by one in time.
                .is_some_and(|seconds| seconds > 0.05)
            && line["interfaces"][0]["interface"] == INTERFACE
            && line["interfaces"][0]["ifindex"] == site.node.ifindex(INTERFACE)?,
        "{line:#}"
    );
    text.line(|line| line.starts_with("INTERFACE") && line.contains("PACKETS/S"))?;
    text.line(|line| line.contains("unauthorized") && !line.contains(" 0.0 "))?;
    sender.stop()?;
    watched(&mut watch, |row| rate(row) == 0.0)?;
    filter.ok(&["detach"])?;
    watch.line(|line| line.ends_with("\"interfaces\":[]}"))?;
    text.line(|line| line.ends_with("no filter is attached"))?;
    filter.ok(&ATTACH)?;
    send_syn(&site, UNLISTED[0])?;
    text.line(|line| line.contains("unauthorized"))?;
    for (mut watch, signal) in [(watch, Signal::SIGTERM), (text, Signal::SIGINT)] {
        watch.signal(signal)?;
        ensure!(watch.wait()? == Some(0), "{signal} is no failure");
    }
    Ok(())
}

#[test]
fn a_closed_pipe_ends_the_watch() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let mut command = filter.command(&WATCH);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = site.node.spawn(&mut command)?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    stdout.read_line(&mut String::new())?;
    drop(stdout);
    ensure!(until_ended(&mut child)?.code() == Some(0));
    Ok(())
}
