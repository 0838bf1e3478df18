//! The benchmark: at its slowest the generator loses no frame and every frame is right; the short
//! benchmark gives every contender its numbers.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    cli::{Apifence, binary},
    flood::{NODE, PORT, Pace, VethPair},
    site::{Family, at},
    wait::until,
};

/// Total frames, and frames per burst: the node's ring holds 256.
const COUNT: u64 = 10_000;
const STEP: u32 = 200;

/// Sends the flood without loss.
fn flood(pair: &VethPair, family: Family) -> Result<()> {
    pair.flood(family, Pace::Full, |flood| {
        let before = pair.taken()?;
        for step in 1..=COUNT / u64::from(STEP) {
            flood.send(STEP)?;
            until("the node has taken what was sent", || {
                Ok(pair.taken()? - before >= step * u64::from(STEP))
            })?;
        }
        Ok(())
    })
}

#[test]
fn every_frame_of_a_flood_arrives_and_is_counted() -> Result<()> {
    let pair = VethPair::new("flooded", false)?;
    let filter = Apifence::new(pair.node())?;
    // Every source is near a range, and in none.
    filter.ok(&[
        "attach",
        "--interface",
        pair.interface(),
        "--authorized-ip-ranges",
        "100.64.0.0/24,2001:db8::1/128",
    ])?;
    for (family, dropped) in [(Family::V4, COUNT), (Family::V6, 2 * COUNT)] {
        flood(&pair, family)?;
        ensure!(
            filter.packets("drop", "unauthorized")? == dropped,
            "{}",
            filter.ok(&["stats"])?
        );
        // The neighbours send other packets, too; no segment passes.
        ensure!(filter.dropped()? == dropped && filter.packets("pass", "authorized")? == 0);
    }
    Ok(())
}

#[test]
fn without_a_filter_the_stack_accepts_the_segments() -> Result<()> {
    for family in Family::BOTH {
        let pair = VethPair::new("flooded", false)?;
        let node: IpAddr = NODE[family as usize].parse()?;
        let _listener = pair
            .node()
            .run(|| TcpListener::bind(at(NODE[family as usize], PORT)))?;
        flood(&pair, family)?;
        // A wrong checksum would be counted, and no SYN answered.
        let text = pair.node().run(|| -> Result<String> {
            Ok(fs::read_to_string("/proc/thread-self/net/snmp")?
                + &fs::read_to_string("/proc/thread-self/net/netstat")?)
        })?;
        ensure!(counter(&text, "Tcp", "InCsumErrors") == 0, "{node}: {text}");
        ensure!(counter(&text, "Ip", "InHdrErrors") == 0, "{node}: {text}");
        ensure!(
            counter(&text, "TcpExt", "SyncookiesSent") + counter(&text, "Tcp", "OutSegs")
                > COUNT / 2,
            "{node}: {text}"
        );
    }
    Ok(())
}

#[test]
fn every_contender_has_its_numbers() -> Result<()> {
    let out = TempDir::with_prefix("apf-")?;
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--short", "--markdown", "--out"])
        .arg(out.path())
        .env("APIFENCE_BIN", binary())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let talk = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{talk}");

    let text = fs::read_to_string(out.path().join("bench.json"))?;
    let report: Value = serde_json::from_str(&text)?;
    for name in ["cpu", "cpus", "kernel", "filter", "date"] {
        ensure!(!report["machine"][name].is_null(), "no `{name}`: {text}");
    }
    // By part and table: the rows that need numbers, whatever else is installed.
    let wanted = [
        ("load", 0, "apifence"),
        ("micro", 0, "IPv4, near, 100"),
        ("micro", 0, "IPv6, hit, 1"),
        ("micro", 1, "IPv6, not TCP"),
        ("update", 0, "1,000 entries"),
        ("update", 0, "1 more, to 1,000"),
        ("update", 1, "nobody listed"),
        ("flood", 0, "bare XDP_DROP"),
        ("flood", 0, "apifence, 1"),
        ("flood", 0, "apifence, 3,500, with `run`"),
        ("flood", 0, "XDP, plain LPM"),
        ("flood", 0, "nftables, input"),
        ("flood", 0, "no filter"),
        ("service", 0, "XDP, one address"),
        ("service", 0, "apifence, 3,500"),
        ("service", 0, "nftables, input"),
    ];
    for (part, table, row) in wanted {
        let table = &report["parts"][part]["tables"][table];
        let rows = table["rows"].as_array().context("no rows")?;
        let found = rows.iter().find(|found| found["name"] == row);
        let found = found.with_context(|| format!("{part}: no `{row}`: {text}"))?;
        ensure!(said.contains(&format!("| {row} |")), "{said}");
        let values = found["values"].as_array().context("no values")?;
        let columns = table["columns"].as_array().context("no columns")?;
        ensure!(values.len() == columns.len(), "{part}, {row}: {found}");
        // A peer or the memory controller may be missing; apifence and its maps may not.
        let numbers: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
        ensure!(!numbers.is_empty(), "{part}, {row}: {found}");
        for number in numbers {
            let [least, median, most] =
                ["least", "median", "most"].map(|name| number[name].as_f64());
            ensure!(
                least.is_some() && least <= median && median <= most,
                "{part}, {row}: {number}"
            );
            ensure!(number["runs"].as_u64() > Some(0), "{part}, {row}: {number}");
        }
        if part == "flood" {
            ensure!(
                values[0]["least"].as_f64() > Some(0.0),
                "nothing arrived: {found}"
            );
        }
    }
    let chart = fs::read_to_string(out.path().join("benchmarks.svg"))?;
    ensure!(chart.contains("XDP, plain LPM"), "{chart}");
    Ok(())
}

/// A counter in a table of `/proc/net`: a line of names and one of numbers, each after the name of
/// the table.
fn counter(text: &str, table: &str, name: &str) -> u64 {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(table)?.strip_prefix(": "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split(' ')
        .zip(numbers.split(' '))
        .find_map(|(found, number)| (found == name).then(|| number.parse().ok())?)
        .unwrap_or(0)
}
