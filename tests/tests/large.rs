//! Lists of thousands of entries: set from a file and from standard input, with progress.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use filter_common::{PassReason, Verdict};
use nix::pty::openpty;
use tests::{
    cli::{Apifence, INPUT, Ran, refused},
    loaded::{self, Filter, add_interface},
    net::silent,
    netns::Namespace,
    packets::V4,
    site::{ADMIN, ATTACH, Family, NODE, Site, at, ip},
    table::{self},
    wait::until_ended,
};

/// Half of it IPv4. It holds the administrator's networks, and not the unlisted client's.
fn list(entries: u32) -> String {
    let mut text = String::from("# a large list\n");
    for number in 0..entries / 2 - 1 {
        let [_, a, b, c] = number.to_be_bytes();
        text += &format!("10.{a}.{b}.{c} # host {number}\n2001:db8:{a:x}:{b:x}{c:02x}::/64\n");
    }
    text + "198.51.100.0/24\n2001:db8:aa::/48 # last\n"
}

/// Runs it with `input` on its standard input.
fn with_input(site: &Site, mut command: Command, input: &str) -> Result<Ran> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = site.node.spawn(&mut command)?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_owned();
    // It may fail before it has read all input.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(Ran::new(&["ranges", "set", "--from-file", "-"], &output))
}

#[test]
fn a_large_list_is_enforced_whether_from_a_file_or_standard_input() -> Result<()> {
    const ENTRIES: u32 = 20_000;
    const MAX: [&str; 2] = ["--max-ranges", "20000"];
    let (site, filter, _server) = Site::unguarded_server(443)?;
    filter.ok(&[&ATTACH[..], &MAX].concat())?;
    let text = list(ENTRIES);
    let file = filter.ranges_file().with_file_name("large");
    let from_file = ["ranges", "set", "--from-file", &file.display().to_string()].map(String::from);
    let from_file = from_file.each_ref().map(String::as_str);
    fs::write(&file, &text)?;

    for standard_input in [false, true] {
        filter.ok(&["ranges", "set", "0.0.0.0/32"])?;
        for family in Family::BOTH {
            let (source, node) = (ip(ADMIN[family as usize]), at(NODE[family as usize], 443));
            silent(&site.admin, source, node)?;
        }
        if standard_input {
            let command = filter.command(&["ranges", "set", "--from-file", "-"]);
            let ran = with_input(&site, command, &text)?;
            ensure!(ran.code == Some(0), "{ran}");
        } else {
            filter.ok(&from_file)?;
        }
        assert_eq!(filter.list()?, text);
        for family in Family::BOTH {
            site.admin_gets_in(family, 443)?;
            site.unlisted_is_dropped(family, 443, &filter)?;
        }
        filter.ok(&["check", "10.0.0.0", "10.0.39.13", "2001:db8:0:270d::1"])?;
        for outside in ["10.0.39.16", "2001:db8:0:2710::1", "9.255.255.255"] {
            assert_eq!(filter.run(&["check", outside])?.code, Some(1), "{outside}");
        }
        let shown = filter.json(&["ranges", "list"])?;
        let rows = shown["ranges"].as_array().context("no ranges")?;
        let listed = rows.iter().filter(|row| {
            let origins = row["origins"].as_array();
            origins.is_some_and(|origins| origins.contains(&"list".into()))
        });
        assert_eq!(listed.count(), ENTRIES as usize);
        let commented = |row: &&serde_json::Value| row["comment"] == "host 9998";
        assert_eq!(rows.iter().filter(commented).count(), 1);
    }

    // One too many: the error names both numbers, and nothing changes.
    fs::write(&file, format!("{text}192.0.2.77\n"))?;
    refused(&filter.run(&from_file)?, INPUT, &["20001", "20000"])?;
    assert_eq!(filter.list()?, text);
    site.admin_gets_in(Family::V4, 443).map(drop)
}

#[test]
fn a_bad_input_is_refused_by_its_name_and_changes_nothing() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let before = filter.list()?;
    for (text, words) in [
        ("", ["standard input:", "no range"]),
        ("10.0.0.0/8\nwhat\n", ["standard input:2:", "`what`"]),
        (
            "10.0.0.0/8\n128.0.0.0/1",
            ["standard input:2:", "cut short"],
        ),
    ] {
        let command = filter.command(&["ranges", "set", "--from-file", "-"]);
        refused(&with_input(&site, command, text)?, INPUT, &words)?;
    }
    let absent = ["ranges", "set", "--from-file", "/nowhere/list"];
    refused(
        &filter.run(&absent)?,
        INPUT,
        &["/nowhere/list", "no such file"],
    )?;
    // One source of the list, not two, and not none.
    for command in [
        &["ranges", "set", "10.0.0.0/8", "--from-file", "-"][..],
        &["ranges", "set"],
    ] {
        assert_eq!(filter.run(command)?.code, Some(INPUT), "{command:?}");
    }
    assert_eq!(filter.list()?, before);
    Ok(())
}

/// Another writer makes the change take more than a second.
#[test]
fn a_long_change_shows_a_bar_on_a_terminal_and_nowhere_else() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let file = filter.ranges_file().with_file_name("large");
    fs::write(&file, list(3_000))?;

    // Stderr of a change that takes this long.
    let said = |held: Duration, on_terminal: bool| {
        let mut command = filter.command(&["ranges", "set", "--from-file"]);
        command
            .arg(&file)
            .env("TERM", "xterm")
            .stdout(Stdio::null());
        let (mut reader, stderr) = if on_terminal {
            let pty = openpty(None, None)?;
            (File::from(pty.master), Stdio::from(pty.slave))
        } else {
            let (reader, writer) = nix::unistd::pipe()?;
            (File::from(reader), Stdio::from(writer))
        };
        command.stderr(stderr);
        let lock = File::open(filter.ranges_file().with_file_name(".ranges.lock"))?;
        lock.lock()?;
        let mut child = site.node.spawn(&mut command)?;
        // Closes our copy of the writing end; otherwise the reader never sees the end.
        drop(command);
        thread::sleep(held);
        lock.unlock()?;
        let mut bytes = Vec::new();
        // The end of a terminal is an error.
        let _ = reader.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ensure!(until_ended(&mut child)?.success(), "{text}");
        ensure!(text.contains("in force: "), "{text}");
        Ok(text)
    };
    let long = Duration::from_millis(1500);
    // 3,000 and the node's own addresses.
    let bar = " of 3,00";
    let terminal = said(long, true)?;
    ensure!(terminal.contains(bar), "no bar: {terminal:?}");
    let short = said(Duration::ZERO, true)?;
    ensure!(!short.contains(bar), "a bar: {short:?}");
    let piped = said(long, false)?;
    ensure!(
        !piped.contains(bar) && !piped.contains('\u{1b}'),
        "a bar: {piped:?}"
    );
    Ok(())
}

/// The usage map has room for this many ranges. Later ranges get room as soon as others have left.
#[test]
fn usage_is_counted_as_far_as_there_is_room() -> Result<()> {
    let room = filter_common::layout::MAX_USAGE;
    let namespace = Namespace::new("node")?;
    add_interface(&namespace)?;
    let filter = Apifence::new(&namespace)?;
    let attach = [
        "attach",
        "--interface",
        loaded::INTERFACE,
        "--max-ranges",
        "50000",
        "--authorized-ip-ranges",
        "0.0.0.0/32",
    ];
    filter.ok(&attach)?;
    let mut program = Filter::open(&filter, namespace.ifindex(loaded::INTERFACE)?)?;
    let file = filter.ranges_file().with_file_name("large");
    let set = ["ranges", "set", "--from-file", &file.display().to_string()].map(String::from);
    let set = || filter.ok(&set.each_ref().map(String::as_str));
    // Every host of a list sends a packet that passes.
    let mut use_all = |first: u8, hosts: u32| -> Result<()> {
        for host in 0..hosts {
            let [_, b, c, d] = host.to_be_bytes();
            let syn = V4::new([first, b, c, d].into(), table::NODE4).syn(40_000, 443);
            let verdict = program.judge(&syn.frame(), None)?;
            ensure!(
                verdict == Verdict::Pass(PassReason::Authorized),
                "{first}.{b}.{c}.{d}: {verdict:?}"
            );
        }
        Ok(())
    };
    let write = |first: u8, hosts: u32| {
        let host = |host: u32| {
            let [_, b, c, d] = host.to_be_bytes();
            format!("{first}.{b}.{c}.{d}\n")
        };
        fs::write(&file, (0..hosts).map(host).collect::<String>())
    };
    // How many of the list were used, and of how many it is unknown. A test run that a signal
    // interrupts is repeated, and counts twice.
    let counted = || -> Result<(usize, usize)> {
        let shown = filter.json(&["ranges", "list"])?;
        let rows = shown["ranges"].as_array().context("no ranges")?;
        let used = rows.iter().filter(|row| row["packets"].as_u64() > Some(0));
        let unknown = rows.iter().filter(|row| row["packets"].is_null());
        Ok((used.count(), unknown.count()))
    };

    write(10, room + 100)?;
    set()?;
    assert_eq!(counted()?, (0, 0));
    use_all(10, room + 100)?;
    let (used, unknown) = counted()?;
    assert_eq!(used, room as usize);
    ensure!(unknown >= 100, "{unknown}");
    // Other ranges, while the previous generation still exists: they have room once that is gone,
    // too.
    for first in [11, 12] {
        write(first, room)?;
        set()?;
    }
    use_all(12, room)?;
    let (used, unknown) = counted()?;
    assert_eq!((used, unknown), (room as usize, 0));
    Ok(())
}
