//! The generator of the benchmark, at its slowest: every frame arrives, and is what it says.

use std::net::{IpAddr, TcpListener};

use anyhow::{Result, ensure};
use tests::{
    cli::Apifence,
    flood::{NODE, PORT, Road},
    site::{Family, at},
    wait::until,
};

/// Frames in all, and at a time: the node's ring holds 256.
const COUNT: u64 = 10_000;
const STEP: u32 = 200;

/// Sends the flood so that none of it is lost.
fn flood(road: &Road, family: Family) -> Result<()> {
    road.flood(family, |flood| {
        let before = road.taken()?;
        for step in 1..=COUNT / u64::from(STEP) {
            flood.send(STEP)?;
            until("the node has taken what was sent", || {
                Ok(road.taken()? - before >= step * u64::from(STEP))
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_flood_arrives_to_the_frame_and_is_counted_so() -> Result<()> {
    let road = Road::new("flooded", false)?;
    let filter = Apifence::new(road.node())?;
    // All of it is near a range that holds none of it.
    filter.ok(&[
        "attach",
        "--interface",
        road.interface(),
        "--authorized-ip-ranges",
        "100.64.0.0/24,2001:db8::1/128",
    ])?;
    for (family, dropped) in [(Family::V4, COUNT), (Family::V6, 2 * COUNT)] {
        flood(&road, family)?;
        ensure!(
            filter.packets("drop", "unauthorized")? == dropped,
            "{}",
            filter.ok(&["stats"])?
        );
        // Neighbours have things to say to each other, too; no segment passes.
        ensure!(filter.dropped()? == dropped && filter.packets("pass", "authorized")? == 0);
    }
    Ok(())
}

#[test]
fn without_a_filter_the_stack_takes_the_segments_for_whole() -> Result<()> {
    for family in Family::BOTH {
        let road = Road::new("flooded", false)?;
        let node: IpAddr = NODE[family as usize].parse()?;
        let _listener = road
            .node()
            .run(|| TcpListener::bind(at(NODE[family as usize], PORT)))?;
        flood(&road, family)?;
        // A wrong checksum would be counted, and no SYN answered.
        let text = road.node().run(|| -> Result<String> {
            Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?
                + &std::fs::read_to_string("/proc/thread-self/net/netstat")?)
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

/// A counter in a table of `/proc/net`: a line of names, and one of numbers, each behind the table's own.
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
