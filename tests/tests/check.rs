//! `check` agrees with the program on every source.

use std::{fs, io::Write as _, path::Path, process::Stdio, thread};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use filter_common::{
    DropReason, Verdict,
    layout::{LAYOUT_VERSION, POLICY_HEADERS, PolicyHeader, SELECTOR, SLOTS},
};
use serde_json::Value;
use tests::{
    cli::{Apifence, FAILED, INPUT, Ran, words},
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
    packets::V4,
    table::{self},
};

const LIST: &str =
    "198.51.100.0/24,192.0.2.7,192.0.2.64/26,2001:db8:aa::/48,203.0.113.0/25,203.0.113.128/25";

fn attach(namespace: &Namespace, list: &str) -> Result<Apifence> {
    add_interface(namespace)?;
    let apifence = Apifence::new(namespace)?;
    let interface = format!("--interface={INTERFACE}");
    apifence.ok(&words(&format!(
        "attach {interface} --max-ranges=20000 --authorized-ip-ranges {list}"
    )))?;
    Ok(apifence)
}

fn results(ran: &Ran) -> Result<Vec<Value>> {
    let shown: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.to_string())?;
    Ok(shown["results"].as_array().context("no results")?.clone())
}

#[test]
fn each_form_of_a_source_gets_the_answer_it_asks_for() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let apifence = attach(&namespace, LIST)?;
    // The query, the verdict, and a word of the reason.
    let cases = [
        (
            "198.51.100.9",
            "pass",
            "198.51.100.9 allowed: `198.51.100.0/24`",
        ),
        ("198.51.100.9:51000", "pass", "51000 decides nothing"),
        ("[2001:db8:aa::1]:51000", "pass", "2001:db8:aa::1 allowed"),
        ("::ffff:198.51.100.9", "pass", "198.51.100.9 allowed"),
        ("::ffff:198.51.100.9", "pass", "IPv4-mapped"),
        ("[::ffff:192.0.2.8]:4", "drop", "192.0.2.8 dropped"),
        ("127.0.0.1", "not_filtered", "loopback is not filtered"),
        ("127.9.9.9:80", "not_filtered", "loopback is not filtered"),
        ("::1", "not_filtered", "loopback is not filtered"),
        ("127.0.0.0/8", "not_filtered", "loopback is not filtered"),
        ("198.51.100.0/24", "pass", "198.51.100.0/24 allowed"),
        ("198.51.100.128/25", "pass", "`198.51.100.0/24`"),
        ("203.0.113.0/24", "pass", "203.0.113.0/24 allowed"),
        ("192.0.2.0/24", "part", "`192.0.2.7/32`, `192.0.2.64/26`"),
        ("192.0.2.0/30", "drop", "192.0.2.0/30 dropped: in no"),
        ("0.0.0.0/0", "part", "0.0.0.0/0 partly allowed"),
        ("2001:db8::/32", "part", "`2001:db8:aa::/48`"),
        ("2001:db8:bb::/48", "drop", "in no authorized range"),
    ];
    for (sources, verdict, word) in cases {
        let ran = apifence.run(&["check", sources])?;
        ensure!(ran.stdout.contains(word), "`{word}` is not there: {ran}");
        let allowed = matches!(verdict, "pass" | "not_filtered");
        ensure!(ran.code == Some(i32::from(!allowed)), "{ran}");
        let ran = apifence.run(&["-o", "json", "check", sources])?;
        let results = results(&ran)?;
        ensure!(results[0]["verdict"] == verdict, "{ran}");
        ensure!(results[0]["allowed"] == allowed, "{ran}");
    }
    // One address that is not allowed decides, in any position.
    for (all, code) in [
        (&["198.51.100.1", "::1"][..], 0),
        (&["198.51.100.1", "192.0.2.0/24", "::1"], 1),
    ] {
        assert_eq!(apifence.run(&[&["check"], all].concat())?.code, Some(code));
    }
    for wrong in ["nobody", "198.51.100.9/24", "198.51.100.9:x", "1.2.3", ""] {
        let ran = apifence.run(&["check", "198.51.100.1", wrong])?;
        let word = format!("error: check `{wrong}`");
        ensure!(
            ran.code == Some(INPUT) && ran.stderr.contains(&word),
            "{ran}"
        );
        ensure!(ran.stdout.is_empty(), "{ran}");
    }
    apifence.ok(&["ranges", "clear"])?;
    apifence
        .ok(&["check", "192.0.2.0/24", "192.0.2.1"])
        .map(drop)
}

#[test]
fn sources_are_read_from_standard_input() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let apifence = attach(&namespace, LIST)?;
    let check = |text: &str| -> Result<Ran> {
        let arguments = ["-o", "json", "check", "::1", "-", "192.0.2.9"];
        let mut command = apifence.command(&arguments);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(&mut command)?;
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(text.as_bytes())?;
        drop(input);
        Ran::new(&arguments, &child.wait_with_output()?)
    };
    let ran = check("198.51.100.1 # one\n\n192.0.2.0/24,192.0.2.8\n")?;
    let verdicts: Vec<Value> = results(&ran)?
        .iter()
        .map(|result| result["verdict"].clone())
        .collect();
    assert_eq!(verdicts, ["not_filtered", "pass", "part", "drop", "drop"]);
    ensure!(ran.code == Some(1), "{ran}");
    let ran = check("198.51.100.1\nx\n")?;
    ensure!(
        ran.code == Some(INPUT) && ran.stderr.contains("`x`"),
        "{ran}"
    );
    Ok(())
}

/// With a list that is too long for the header, so that table and bitmap are in maps of their own.
#[test]
fn check_agrees_with_the_program() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let apifence = attach(&namespace, "192.0.2.1")?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let mut rng = fastrand::Rng::with_seed(table::seed());
    for hosts in [100, 9_000] {
        let listed: Vec<[u8; 4]> = (0..hosts)
            .map(|_| [10, rng.u8(..), rng.u8(..), rng.u8(..)])
            .collect();
        let text = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}");
        let file = apifence.ranges_file().with_file_name("long");
        let lines: Vec<String> = listed.iter().copied().map(text).collect();
        fs::write(&file, lines.join("\n"))?;
        let file = file.display().to_string();
        apifence.ok(&["ranges", "set", "--from-file", &file, "--force"])?;
        let mut sources = Vec::new();
        for host in listed.iter().step_by(hosts / 50) {
            let [a, b, c, d] = *host;
            sources.extend([*host, [a, b, c, d.wrapping_add(1)], [11, b, c, d]]);
        }
        let words: Vec<String> = sources.iter().copied().map(text).collect();
        let mut command = vec!["-o", "json", "check"];
        command.extend(words.iter().map(String::as_str));
        let results = results(&apifence.run(&command)?)?;
        ensure!(results.len() == sources.len());
        for (source, result) in sources.iter().zip(results) {
            let syn = V4::new((*source).into(), table::NODE4).syn(40_000, 443);
            let verdict = filter.judge(&syn.frame(), None)?;
            let drops = verdict == Verdict::Drop(DropReason::Unauthorized);
            ensure!(result["allowed"] == !drops, "{verdict:?}, and {result}");
        }
    }
    Ok(())
}

/// Clears the IPv4 bitmap in the active slot.
fn spoil_table(maps: &Path) -> Result<()> {
    let selector: Array<MapData, u32> =
        Map::Array(MapData::from_pin(maps.join(SELECTOR))?).try_into()?;
    let slot = selector.get(&0, 0)? & (SLOTS - 1);
    let mut headers: Array<MapData, [u8; size_of::<PolicyHeader>()]> =
        Map::Array(MapData::from_pin(maps.join(POLICY_HEADERS))?).try_into()?;
    let mut bytes = headers.get(&slot, 0)?;
    let mut header: PolicyHeader = bytemuck::pod_read_unaligned(&bytes);
    header.prefilter.roots[0].bitmap.fill(0);
    bytes.copy_from_slice(bytemuck::bytes_of(&header));
    Ok(headers.set(slot, bytes, 0)?)
}

/// The table, which the program asks first, lacks a range of the trie: the program drops the
/// source, whatever the trie says.
#[test]
fn a_table_that_contradicts_the_trie_is_an_error() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let apifence = attach(&namespace, LIST)?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let maps = apifence
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/maps"));
    // A header does not fit the stack of a test.
    thread::scope(|scope| {
        let big = thread::Builder::new().stack_size(16 << 20);
        let spoil = big.spawn_scoped(scope, || spoil_table(&maps))?;
        spoil.join().expect("the thread does not panic")
    })?;

    let syn = V4::new([198, 51, 100, 9].into(), table::NODE4).syn(40_000, 443);
    let verdict = filter.judge(&syn.frame(), None)?;
    assert_eq!(verdict, Verdict::Drop(DropReason::Unauthorized));
    for sources in ["198.51.100.9", "198.51.100.0/24", "192.0.2.0/24"] {
        let ran = apifence.run(&["check", sources])?;
        ensure!(ran.code == Some(FAILED), "{ran}");
        ensure!(ran.stderr.contains("contradict each other"), "{ran}");
        ensure!(!ran.stdout.contains(" allowed: `"), "{ran}");
    }
    apifence.ok(&["check", "2001:db8:aa::1"])?;
    // The hint helps.
    apifence.ok(&["ranges", "reload"])?;
    apifence.ok(&["check", "198.51.100.9"]).map(drop)
}
