//! Any input on the command line or in a file: the error names the intended form. A list is taken
//! as its author meant it or not at all, and a terminal gets no character that it would obey.

mod snapshot;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use snapshot::same;
use tests::{
    cli::{Apifence, INPUT, Ran, refused},
    netns::Namespace,
    scrape::{get, ready, until_not_ready},
    site::{ATTACH, Family, INTERFACE, Site},
};

/// The list in the file before each attempt.
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const PORT: u16 = 443;
/// Maximum length of all messages about one file.
const LITTLE: usize = 4096;

/// The verbs and arguments for typical typing errors.
#[test]
fn typing_errors_are_named() -> Result<()> {
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let mut said = Vec::new();
    for text in [
        "198.51.100.0/255.255.255.0",
        "198.51.100.0 255.255.255.0",
        "198.51.100.0/0.0.0.255",
        "198.51.100.0/24\"",
        "198.51.100.0/024",
        "198.51.100.0/+24",
        "198.51.100.0/33",
        "198.51.100.0/",
        "137.117.106.90/29",
        r#"["198.51.100.0/24", "2001:db8:aa::/48"]"#,
        r#"["198.51.100.0/24","nonsense"]"#,
        "192.0.2.1-192.0.2.9",
        "192.0.2.1 - 192.0.2.9",
        "192.0.2.1-9",
        "10.0.0.1-10.255.255.254",
        "2001:db8::1-2001:db8::8",
        "vpn.example.com",
        "https://vpn.example.com/login",
        "AzureCloud",
        "AWS",
        "sg-0123abcd",
        "@nodes",
        "00:1a:2b:3c:4d:5e",
        "198.51.100.7:443",
        "[2001:db8::1]:443",
        "fe80::1%eth0",
        "010.0.0.1",
        "10.0.0/8",
        "10/8",
        "0/0",
        "198.51.100.*",
        "*",
        "any",
        "none",
        "disabled",
        "localhost",
        "255.255.255.0",
        "198.51.100.256",
        "198.51.100.0\u{200b}/24",
        "198.51.100.0/24,\u{a0}192.0.2.1",
        "198.51.100.0/24,,192.0.2.1",
        ",198.51.100.0/24",
        ",",
        "",
        "a b c d e f g h i j k l",
    ] {
        filter.write_list(LIST)?;
        let ran = filter.run(&["ranges", "set", text])?;
        refused(&ran, INPUT, &[])?;
        // Every command refuses a bad range in the same words; only `set` asks about the empty
        // list.
        if text.contains(|letter: char| letter != ',') {
            for verb in ["add", "remove"] {
                let other = filter.run(&["ranges", verb, text])?;
                ensure!(
                    other.stderr == ran.stderr && other.code == ran.code,
                    "{ran}\n{other}"
                );
            }
        }
        ensure!(filter.list()? == LIST, "{ran}");
        said.push(ran);
    }
    same("input-typed", &filter, &said);
    Ok(())
}

#[test]
fn a_list_is_typed_in_any_way() -> Result<()> {
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let file = || filter.list();
    let pair = "198.51.100.0/24\n192.0.2.1/32\n";
    for typed in [
        &["198.51.100.0/24,192.0.2.1"][..],
        &["198.51.100.0/24", "192.0.2.1"],
        &["198.51.100.0/24,", "192.0.2.1,"],
        &["198.51.100.0/24 192.0.2.1"],
        &["198.51.100.0/24\n192.0.2.1\n"],
        &["198.51.100.0/24;192.0.2.1;"],
        &[" 198.51.100.0/24 ,\t192.0.2.1\r\n"],
    ] {
        filter.write_list("203.0.113.0/24\n")?;
        filter.ok(&[&["ranges", "set"], typed].concat())?;
        assert_eq!(file()?, pair, "set {typed:?}");
        filter.write_list("203.0.113.0/24\n")?;
        filter.ok(&[&["ranges", "add"], typed].concat())?;
        assert_eq!(file()?, format!("203.0.113.0/24\n{pair}"), "add {typed:?}");
        filter.ok(&[&["ranges", "remove"], typed].concat())?;
        assert_eq!(file()?, "203.0.113.0/24\n", "remove {typed:?}");
    }
    // Input without a range never opens the port, even with `--force`, except the empty list
    // itself.
    for nothing in [",", ";", " ,", "\n;", "[]", "\"\"", "''", "[\"\"]"] {
        for force in [&[][..], &["--force"]] {
            let ran = filter.run(&[&["ranges", "set", nothing], force].concat())?;
            refused(&ran, INPUT, &["empty"])?;
        }
    }
    for unset in [
        &[""][..],
        &["  "],
        &["198.51.100.0/24", "", "192.0.2.1"],
        &["", "192.0.2.1"],
    ] {
        let ran = filter.run(&[&["ranges", "set"], unset].concat())?;
        refused(&ran, INPUT, &["empty"])?;
    }
    assert_eq!(file()?, "203.0.113.0/24\n");
    // Flags with lists of their own are parsed in the same way.
    let shown = filter.json(&[
        "config",
        "--cluster-cidrs",
        "10.0.0.0/8 10.96.0.0/12;172.16.0.0/12",
    ])?;
    ensure!(shown.to_string().contains("172.16.0.0/12"), "{shown}");
    let ran = filter.run(&["config", "--cluster-cidrs", "10.0.0.0/255.0.0.0"])?;
    refused(&ran, INPUT, &["--cluster-cidrs", "network mask"])
}

/// Sets the list from another file that holds `bytes`.
fn set_from(filter: &Apifence, name: &str, bytes: &[u8]) -> Result<Ran> {
    filter.write_list(LIST)?;
    let file = filter.ranges_file().with_file_name(name);
    fs::write(&file, bytes)?;
    let ran = filter.run(&["ranges", "set", "--from-file", &file.display().to_string()])?;
    if ran.code != Some(0) {
        let now = filter.list()?;
        ensure!(now == LIST, "{ran}\n{now}");
    }
    Ok(ran)
}

fn utf16(text: &str, mark: bool) -> Vec<u8> {
    let mark = if mark { "\u{feff}" } else { "" };
    let units = mark.encode_utf16().chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

#[test]
fn errors_in_a_file_are_named() -> Result<()> {
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let lines = |line: &dyn Fn(usize) -> String| (0..60_000).map(line).collect::<String>();
    let json = lines(&|n| {
        format!(
            "  {{\"ip_prefix\": \"10.{}.{}.0/24\"}},\n",
            n / 256,
            n % 256
        )
    });
    let yaml = lines(&|n| format!("- 10.{}.{}.0/24\n", n / 256, n % 256));
    let csv = lines(&|n| format!("10.{}.{}.0/24,eu-west,EC2\n", n / 256, n % 256));
    let bad = lines(&|n| format!("10.{}.{}.0/8\n", n / 256, n % 256 + 1));
    let long = "x".repeat(1 << 20);
    let files: [(&str, Vec<u8>); 22] = [
        ("json", format!("{{\"prefixes\": [\n{json}]}}\n").into()),
        ("yaml", format!("ranges:\n{yaml}").into()),
        ("csv", format!("prefix,region,service\n{csv}").into()),
        (
            "html",
            b"<!DOCTYPE html>\n<html><body>\n<h1>502 Bad Gateway</h1>\n".to_vec(),
        ),
        ("toml", b"mode = \"enforce\"\nports = [6443]\n".to_vec()),
        ("utf-16", utf16("198.51.100.0/24\r\n", true)),
        ("utf-16-without-mark", utf16("198.51.100.0/24\r\n", false)),
        ("latin-1", b"198.51.100.0/24 # Orl\xe9ans\n".to_vec()),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
        ("60000-faults", bad.into()),
        (
            "long",
            format!("{long}\n198.51.100.0/24 {long}\n198.51.100.0/24 expires={long}\n").into(),
        ),
        ("nul", b"198.51.100.0/24\0\0\0\0".to_vec()),
        (
            "nul-in-comment",
            b"198.51.100.0/24 # office\0\0\0\0".to_vec(),
        ),
        ("zero-width", "198.51.100.0/24\u{200b}\n".into()),
        ("mark-inside", "198.51.100.0/24\n\u{feff}192.0.2.1\n".into()),
        ("direction", "\u{202e}198.51.100.0/24\n".into()),
        ("no-break-space", "198.51.100.0/24\u{a0}# office\n".into()),
        ("escape", b"\x1b[31m198.51.100.0/24\n".to_vec()),
        (
            "mac-lines",
            b"# office\r198.51.100.0/24\r192.0.2.1\r".to_vec(),
        ),
        (
            "mask",
            b"198.51.100.0/255.255.255.0\n198.51.100.0 255.255.255.0\n".to_vec(),
        ),
        (
            "from-to",
            b"192.0.2.1-192.0.2.9\n192.0.2.1 - 192.0.2.9\n".to_vec(),
        ),
        (
            "several",
            b"198.51.100.0/24, 192.0.2.1\n\n198.51.100.0/24;\n".to_vec(),
        ),
    ];
    let mut said = Vec::new();
    for (name, bytes) in files {
        let ran = set_from(&filter, name, &bytes)?;
        refused(&ran, INPUT, &[name])?;
        ensure!(
            ran.stderr.len() < LITTLE,
            "{} bytes: {ran}",
            ran.stderr.len()
        );
        said.push(ran);
    }
    let folder = filter.ranges_file().parent().context("no folder")?;
    let folder = format!("{}/", folder.display());
    for ran in &mut said {
        ran.stderr = ran.stderr.replace(&folder, "FOLDER/");
    }
    let mut text = said
        .iter()
        .map(Ran::transcript)
        .collect::<Vec<_>>()
        .join("\n");
    text = text.replace(&folder, "FOLDER/");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots") }, {
        insta::assert_snapshot!("input-files", text);
    });

    // Windows line endings are accepted, and an edit keeps them harmless.
    let ran = set_from(
        &filter,
        "bom",
        "\u{feff}198.51.100.0/24 # Lyon\r\n192.0.2.1\r\n".as_bytes(),
    )?;
    ensure!(ran.code == Some(0), "{ran}");
    assert_eq!(filter.list()?, "198.51.100.0/24 # Lyon\n192.0.2.1\n");
    filter.write_list("\u{feff}198.51.100.0/24\r\n")?;
    filter.ok(&["ranges", "add", "192.0.2.1"])?;
    assert_eq!(filter.list()?, "198.51.100.0/24\n192.0.2.1/32\n");
    Ok(())
}

#[test]
fn a_file_full_of_errors_is_reported_in_a_few_lines() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_list(LIST)?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    let bad: String = (0..300_000)
        .map(|n| format!("10.0.0.1/{} # {n} \u{1b}[31m\n", n % 8 + 1))
        .collect();
    filter.write_list(bad)?;
    let log = daemon.log_until("the policy in force stays in force")?;
    ensure!(
        log.contains("and 299,990 more like these") && log.len() < LITTLE,
        "{log}"
    );
    until_not_ready(&site.node)?;
    let body = get(&site.node, "/readyz")?.body;
    ensure!(
        body.contains("and 299,990 more like these") && body.len() < LITTLE,
        "{body}"
    );
    let status = filter.ok(&["status"])?;
    ensure!(
        status.contains("and 299,990 more like these") && status.len() < LITTLE,
        "{status}"
    );
    let json = filter.json(&["status"])?.to_string();
    ensure!(json.len() < 2 * LITTLE, "{} bytes", json.len());
    let memory = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let peak = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no peak")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    ensure!(peak < 100 << 10, "{peak} kB");
    site.admin_gets_in(Family::V4, PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.write_list(LIST)?;
    daemon.line(|line| line.contains("in force again"))?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait().map(drop)
}

#[test]
fn a_range_that_is_listed_twice_counts_once() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let once: String = (0..1900)
        .map(|n| format!("10.0.{}.{}\n", n / 256, n % 256))
        .collect();
    filter.write_list(format!("{once}{once}198.51.100.0/24\n"))?;
    let ran = filter.run(&ATTACH[..3])?.succeeded()?;
    ran.stderr_has(&["listed twice"])?;
    site.admin_gets_in(Family::V4, PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let many: String = (0..10_001)
        .map(|n| format!("10.0.{}.{}\n", n / 256, n % 256))
        .collect();
    filter.write_list(format!("{many}{many}"))?;
    let ran = filter.run(&["ranges", "reload"])?;
    refused(
        &ran,
        INPUT,
        &["10001 ranges (10001 duplicates not counted)", "10000"],
    )
}

#[test]
fn a_list_shows_the_sources_that_it_authorizes() -> Result<()> {
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let said = filter.run_all(&[
        &["ranges", "set", "0.0.0.0/1,128.0.0.0/1", "--dry-run"],
        &["ranges", "set", "::/1,8000::/1", "--dry-run"],
        &["ranges", "set", "2000::/3", "--dry-run"],
        &["ranges", "set", "13.0.0.0/8,52.0.0.0/9", "--dry-run"],
        &["ranges", "set", "0.0.0.0/1", "--dry-run"],
        &["ranges", "set", "203.0.0.0/16,10.0.0.0/8", "--dry-run"],
    ])?;
    same("input-whom-a-list-lets-in", &filter, &said);
    Ok(())
}

#[test]
fn times_are_parsed_as_meant_or_refused() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let text = format!(
        "{LIST}203.0.113.0/24 expires=9999-12-31T23:59:59Z\n192.0.2.0/25 expires=2400-01-01T00:00:00Z\n"
    );
    filter.write_list(&text)?;
    filter.ok(&["ranges", "reload"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    // The kernel has the file's policy: no change is left to make.
    let ran = filter.run(&["ranges", "reload"])?;
    ran.stderr_has(&["4 unchanged\n"])?;
    ensure!(!ran.stderr.contains("another expiry"), "{ran}");
    assert_eq!(filter.list()?, text);
    let list = filter.ok(&["ranges", "list"])?;
    ensure!(
        list.contains("2400-01-01T00:00:00Z") && !list.contains("2262"),
        "{list}"
    );
    for time in ["3mo", "1y", "2027-01-31t18:00:00z"] {
        filter.ok(&["ranges", "add", "192.0.2.200", "--expires", time])?;
    }
    let mut said = Vec::new();
    for time in [
        "tomorrow",
        "8",
        "1000y",
        "9999-12-31T23:59:59Z",
        "2027-01-31T18:00:00",
        "2027-01-31T18:00:00+25:00",
        "2027-01-31T18:00:00+01:00[Europe/Paris]",
        "-1h",
        "2020-01-01T00:00:00Z",
    ] {
        let ran = filter.run(&["ranges", "add", "192.0.2.201", &format!("--expires={time}")])?;
        refused(&ran, INPUT, &["expiry"])?;
        said.push(ran.transcript());
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots") }, {
        insta::assert_snapshot!("input-times", said.join("\n"));
    });
    for time in [
        "2027-01-31T18:00:00+25:00",
        "2027-01-31T18:00:00+01:00[Europe/Paris]",
        "2027-01-31T18:00:00",
        "2027-01-31",
    ] {
        filter.write_list(format!("{LIST}203.0.113.9 expires={time}\n"))?;
        refused(&filter.run(&["ranges", "reload"])?, INPUT, &[time, ":3:"])?;
    }
    Ok(())
}
