//! What people see: the screens of the commands in terminals of several widths, and their colours.
//!
//! After an intended change, run `INSTA_UPDATE=always UPDATE_DOCS=1 cargo test -p tests --test
//! screens` and read the difference.

mod node;

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use node::{Node, clean, open, run, shown};
use tests::site::{ADMIN, INTERFACE, UNLISTED};

/// The widths of the pictures in the documents.
const PICTURES: [u16; 2] = [80, 120];
/// All screens whose width is checked.
const SCREENS: [&[&str]; 14] = [
    &["status"],
    &["status", "-v"],
    &["ranges", "list"],
    &["ranges", "list", "--all"],
    &["ranges", "list", "-o", "wide"],
    &["ranges", "list", "--utc"],
    &["ranges", "history"],
    &["ranges", "lists"],
    &["stats"],
    &["stats", "--all"],
    &["check", ADMIN[0]],
    &["check", ADMIN[0], "203.0.113.64/26", UNLISTED[1]],
    &["suggest"],
    &["events", "--recent"],
];

/// The screens of the snapshots.
fn pictured(node: &Node, columns: u16) -> Result<String> {
    let commands: [&[&str]; 8] = [
        &["status"],
        &["ranges", "list"],
        &["ranges", "list", "--all"],
        &["ranges", "list", "--match", "203.0.113.70"],
        &["ranges", "history"],
        &["ranges", "lists"],
        &["stats"],
        &["check", ADMIN[0], UNLISTED[0], "203.0.113.64/26"],
    ];
    let mut text = String::new();
    for words in commands {
        let screen = node.shown(words, columns)?;
        text += &format!("$ apifence {}\n{}\n\n", words.join(" "), steady(&screen)?);
    }
    Ok(text)
}

/// `screen` without what differs from run to run. Its width stays.
fn steady(screen: &str) -> Result<String> {
    let mut lines = Vec::new();
    for line in screen.lines() {
        // Neighbours talk as much as they like.
        if line.contains("  pass ") {
            continue;
        }
        let line = digits(line, "pid ", "", 4);
        let line = digits(&line, "", " s ago", 2);
        lines.push(line);
    }
    Ok(lines.join("\n"))
}

/// `line` with `count` nines for the digits between `before` and `after`.
fn digits(line: &str, before: &str, after: &str, count: usize) -> String {
    let mut done = String::new();
    let mut rest = line;
    while let Some(place) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (head, tail) = rest.split_at(place);
        let other = |letter: char| !letter.is_ascii_digit();
        let (number, tail) = tail.split_at(tail.find(other).unwrap_or(tail.len()));
        done += head;
        match head.ends_with(before) && tail.starts_with(after) {
            true => done += &"9".repeat(count),
            false => done += number,
        }
        rest = tail;
    }
    done + rest
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn screens_match_their_snapshot() -> Result<()> {
    let node = Node::start()?;
    node.settle();
    for columns in PICTURES {
        let text = pictured(&node, columns)?;
        snapshot(&format!("screens-{columns}"), &text);
        document(columns, &text)?;
    }
    Ok(())
}

/// The commands on the page of the screens.
const DOCUMENTED: [&str; 2] = ["status", "ranges list"];
const PAGE: &str = "../docs/screens.md";

/// Compares the blocks of the page with `text`.
fn document(columns: u16, text: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    for command in DOCUMENTED {
        let page = fs::read_to_string(&path).context(PAGE)?;
        let start = format!("<!-- {command}, {columns} columns -->\n```text\n");
        let (head, rest) = page
            .split_once(&start)
            .with_context(|| format!("no `{start}`"))?;
        let (block, tail) = rest.split_once("```\n").context("a block without an end")?;
        let first = format!("$ apifence {command}\n");
        let screen = text
            .split("\n\n$ ")
            .map(|one| format!("$ {}\n", one.trim_start_matches("$ ").trim_end()));
        let screen = screen.into_iter().find(|one| one.starts_with(&first));
        let screen = screen.with_context(|| format!("no `{command}`"))?;
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{head}{start}{screen}```\n{tail}"))?;
            continue;
        }
        ensure!(
            block == screen,
            "{PAGE} differs; with UPDATE_DOCS=1 this test writes it:\n{screen}"
        );
    }
    Ok(())
}

#[test]
fn no_line_is_wider_than_the_terminal() -> Result<()> {
    let node = Node::start()?;
    // Warnings: a tunnel without a filter, and a range for everyone.
    node.site.node.ip("tuntap add dev tun0 mode tun")?;
    node.site.node.ip("link set tun0 up")?;
    node.site.node.ip("address add 10.99.0.1/24 dev tun0")?;
    node.ok(&["ranges", "add", "0.0.0.0/0", "--confirm-within", "10m"])?;
    for columns in [40, 80, 120, 200] {
        for words in SCREENS {
            node.shown(words, columns)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_piped_is_not_cut() -> Result<()> {
    let node = Node::start()?;
    let text = node.ok(&["ranges", "list"])?;
    ensure!(
        text.contains("that is longer than a terminal is wide\n"),
        "{text}"
    );
    Ok(())
}

#[test]
fn without_a_filter_it_says_what_is_open() -> Result<()> {
    let site = Node::bare()?;
    site.node
        .ip(&format!("route add default dev {INTERFACE}"))
        .ok();
    let text = shown(&site.node, &["status"], 80)?;
    snapshot("screens-detached", &steady(&text)?);
    for columns in [40, 120, 200] {
        shown(&site.node, &["status"], columns)?;
    }
    let status = run(&site.node, &["status", "--json"], &[])?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout)?;
    ensure!(
        status["state"] == "detached"
            && status["service"]["running"] == false
            && status["if_attached"]["ports"][0] == 443
            && status["if_attached"]["next"] == "apifence init",
        "{status:#}"
    );
    Ok(())
}

/// Whether `text` has a code of a terminal.
fn has_colour(text: &str) -> bool {
    text.contains('\x1b')
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() -> Result<()> {
    let node = Node::start()?;
    let force = ("CLICOLOR_FORCE", "1");
    for (words, environment, wanted) in [
        (&["status"][..], &[][..], false),
        (&["status"], &[force], true),
        (&["status"], &[force, ("NO_COLOR", "1")], false),
        (&["status", "--color", "always"], &[], true),
        (&["status", "--color=always"], &[("NO_COLOR", "1")], true),
        (&["status", "--color", "never"], &[force], false),
        (&["ranges", "list", "--json"], &[force], false),
        (&["ranges", "list", "-o", "csv"], &[force], false),
    ] {
        let ran = node.run(words, environment)?;
        ensure!(
            ran.code == Some(0) && has_colour(&ran.stdout) == wanted,
            "{words:?} {environment:?}: {ran:?}"
        );
    }
    // Messages are on another stream, also those of the command line itself.
    for words in [
        &["ranges", "remove", "192.0.2.1"][..],
        &["ranges", "fly"],
        &["status", "--help"],
    ] {
        for (color, wanted) in [("always", true), ("never", false)] {
            let words = [&["--color", color], words].concat();
            let ran = node.run(&words, &[])?;
            let text = ran.stdout + &ran.stderr;
            ensure!(has_colour(&text) == wanted, "{words:?}: {text:?}");
        }
    }
    let is_green = |environment: &[(&str, &str)], words: &[&str]| -> Result<bool> {
        let terminal = open(&node.site.node, words, 80, environment)?;
        Ok(terminal.look(|screen| {
            let cell = screen.cell(0, 0).expect("there is one");
            assert_eq!(cell.contents(), "●");
            cell.fgcolor() == vt100::Color::Idx(2)
        }))
    };
    ensure!(is_green(&[], &["status"])?);
    ensure!(!is_green(&[("NO_COLOR", "1")], &["status"])?);
    ensure!(!is_green(&[], &["status", "--color", "never"])?);
    ensure!(!is_green(&[("TERM", "dumb")], &["status"])?);
    // Foreign codes are not ours.
    fs::write("/etc/apifence/ranges.d/evil", "192.0.2.1\n")?;
    let text = node.run(&["check", "192.0.2.1\x1b[31m"], &[force])?;
    ensure!(text.stderr.contains("\\u{1b}[31m"), "{text:?}");
    Ok(())
}

#[test]
fn programs_and_spreadsheets_get_all_ranges() -> Result<()> {
    let node = Node::start()?;
    let json = node.ok(&["ranges", "list", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let yaml = node.ok(&["ranges", "list", "-o", "yaml"])?;
    ensure!(
        yaml.contains("source: kernel\nenforced: true\n")
            && yaml.contains("\n- range: 198.51.100.0/24\n  origins:\n  - list\n"),
        "{yaml}"
    );
    let csv = node.ok(&["ranges", "list", "-o", "csv"])?;
    let rows = json["ranges"].as_array().context("no ranges")?.len();
    ensure!(
        csv.starts_with("range,origins,lists,expires,") && csv.lines().count() == rows + 1,
        "{csv}"
    );
    ensure!(csv.contains("\"a host with a long address, and"), "{csv}");
    for words in [&["status", "-o", "csv"][..], &["stats", "-o", "wide"]] {
        let ran = node.run(words, &[])?;
        ensure!(
            ran.code == Some(2) && ran.stderr.contains("hint: "),
            "{words:?}: {ran:?}"
        );
    }
    let first = |words: &[&str]| -> Result<String> {
        let text = node.ok(&[&["ranges", "list"], words].concat())?;
        Ok(text.lines().nth(1).unwrap_or_default().to_owned())
    };
    for (words, begin) in [
        (&["--sort", "expires"][..], "203.0.113.7 "),
        (&["--sort", "comment"], "2001:db8:1111:"),
        (&["--match", "203.0.113.70"], "203.0.113.64/28"),
        (&["--match", "BUILD"], "203.0.113.80"),
        (&["--match", "ci"], "192.0.2.64/27"),
        (&["--expired"], "203.0.113.7 "),
        (&[], "192.0.2.64/27"),
        (&["--all"], "192.0.2.10 "),
    ] {
        let line = first(words)?;
        ensure!(line.starts_with(begin), "{words:?}: {line}");
    }
    Ok(())
}

#[test]
fn what_is_watched_is_drawn_in_place() -> Result<()> {
    let node = Node::start()?;
    for words in [
        ["status", "--watch", "--interval", "100ms"],
        ["stats", "--watch", "--interval", "100ms"],
    ] {
        let mut terminal =
            tests::terminal::Terminal::open(&node.site.node, (40, 100), |mut by| {
                clean(&mut by).arg(tests::cli::binary()).args(words);
                by
            })?;
        let word = if words[0] == "status" {
            "dropped/s"
        } else {
            "PACKETS/S"
        };
        terminal.shows(&[word])?;
        let times = |text: &str| text.matches(word).count();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let text = terminal.contents();
        ensure!(times(&text) == 1, "{text}");
        terminal.signal(nix::sys::signal::Signal::SIGINT)?;
        ensure!(terminal.ended()? == Some(0), "{words:?}");
    }
    Ok(())
}

#[test]
fn events_are_chosen_by_source_port_age_and_number() -> Result<()> {
    let node = Node::start()?;
    for (words, count) in [
        (&[][..], 1),
        (&["--source", "203.0.113.0/24"], 1),
        (&["--source", "198.51.100.7"], 0),
        (&["--port", "6443,9345"], 1),
        (&["--port", "443"], 0),
        (&["--since", "10m"], 1),
        (&["-n", "50"], 1),
        (&["-n", "0"], 0),
    ] {
        let text = node.ok(&[&["events", "--recent"], words].concat())?;
        ensure!(text.lines().count() == count, "{words:?}: {text}");
        let time = text.split('Z').next().unwrap_or_default();
        let digits = time.rsplit_once('.').map_or(3, |(_, digits)| digits.len());
        ensure!(digits == 3, "{text}");
    }
    for bad in [["--source", "nobody"], ["--interface", "eth9"]] {
        let ran = node.run(&[&["events"], &bad[..]].concat(), &[])?;
        ensure!(ran.code == Some(2), "{bad:?}: {ran:?}");
    }
    Ok(())
}
