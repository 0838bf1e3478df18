//! What Linux delivers, with and without the filter: no leak, no loss.
//!
//! Every case runs on a node without a filter first. An answer from a protected port there shows
//! that the evasion works. With the filter, such a case must get no answer from an unlisted source,
//! and all others must be answered as before.

mod cases;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use cases::{Case, Works};
use filter_common::{LinkHeader, Verdict};
use tests::{
    cli::Apifence,
    delivery::{Answer, INTERFACE, Medium, Testbed},
    loaded::none_wrong,
    packets::{
        CLIENT_PORT, UDP,
        ethernet::{self, HEADER_LEN},
    },
    table::{self, Row, Rules, Source},
};

#[test]
fn ethernet_leaks_and_loses_nothing() -> Result<()> {
    everything(Medium::Ethernet, 1500, false)
}

#[test]
fn ethernet_with_conntrack_leaks_and_loses_nothing() -> Result<()> {
    everything(Medium::Ethernet, 1500, true)
}

#[test]
fn jumbo_frames_leak_and_lose_nothing() -> Result<()> {
    everything(Medium::Ethernet, 9000, false)
}

#[test]
fn jumbo_frames_with_conntrack_leak_and_lose_nothing() -> Result<()> {
    everything(Medium::Ethernet, 9000, true)
}

#[test]
fn packets_without_ethernet_leak_and_lose_nothing() -> Result<()> {
    everything(Medium::Tun, 1500, false)
}

#[test]
fn packets_without_ethernet_with_conntrack_leak_and_lose_nothing() -> Result<()> {
    everything(Medium::Tun, 1500, true)
}

/// A node of its own for each way to filter.
fn everything(medium: Medium, mtu: u32, tracked: bool) -> Result<()> {
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| fits(medium, mtu, &case.frames))
        .collect();
    let open = Run::new(&mut testbed(medium, mtu, tracked)?, &cases, medium, mtu)?;
    let mut wrong: Vec<_> = cases
        .iter()
        .zip(&open.cases)
        .filter(|(case, answered)| case.works.on(tracked) && **answered == Answered::Not)
        .map(|(case, _)| format!("without a filter: {} is not answered", case.name))
        .collect();
    println!(
        "{medium:?}, mtu {mtu}, conntrack {tracked}: {} of {} cases and {} of {} rows answered without a filter",
        open.cases
            .iter()
            .filter(|answered| **answered != Answered::Not)
            .count(),
        cases.len(),
        open.rows.len(),
        rows(medium, mtu).len(),
    );
    // The driver of tun devices has no native XDP for those without an Ethernet header.
    let modes = match medium {
        Medium::Ethernet => &["native", "generic"][..],
        Medium::Tun => &["auto", "generic"],
    };
    for mode in modes {
        let mut testbed = testbed(medium, mtu, tracked)?;
        let node = testbed.node.try_clone()?;
        let apifence = Apifence::new(&node)?;
        let pins = apifence.bpffs().with_file_name(format!("{mode}-{mtu}"));
        let apifence = apifence.with_bpffs(pins);
        apifence.ok(&[
            "attach",
            &format!("--interface={INTERFACE}"),
            &format!("--xdp-mode={mode}"),
            &format!(
                "--authorized-ip-ranges={}",
                Rules::Enforce.ranges().join(",")
            ),
            "--no-node-addresses",
        ])?;
        let filtered = Run::new(&mut testbed, &cases, medium, mtu)?;
        wrong.extend(compare(&cases, &open, &filtered).map(|what| format!("{mode}: {what}")));
        ensure!(apifence.dropped()? > 0, "{mode}: nothing was dropped");
        apifence.ok(&["detach"])?;
    }
    none_wrong(&wrong)
}

/// If only some destinations are guarded, a route in the packet does not bypass the filter.
#[test]
fn a_route_in_a_packet_reaches_no_guarded_destination() -> Result<()> {
    for tracked in [false, true] {
        let cases = cases::routes();
        let open = run(&mut testbed(Medium::Ethernet, 1500, tracked)?, &cases)?;
        let mut wrong = Vec::new();
        for (case, answered) in cases.iter().zip(&open) {
            if case.works.on(tracked) && *answered == Answered::Not {
                wrong.push(format!("without a filter: {} is not answered", case.name));
            }
        }
        let mut testbed = testbed(Medium::Ethernet, 1500, tracked)?;
        let node = testbed.node.try_clone()?;
        let apifence = Apifence::new(&node)?;
        let pins = apifence
            .bpffs()
            .with_file_name(format!("destinations-{tracked}"));
        let apifence = apifence.with_bpffs(pins);
        apifence.ok(&[
            "attach",
            &format!("--interface={INTERFACE}"),
            &format!(
                "--authorized-ip-ranges={}",
                Rules::Enforce.ranges().join(",")
            ),
            &format!("--destination={}", table::NODE4),
            &format!("--destination={}", table::NODE6),
            "--no-node-addresses",
        ])?;
        let filtered = run(&mut testbed, &cases)?;
        for ((case, open), filtered) in cases.iter().zip(open).zip(filtered) {
            wrong.extend(verdict(case, open, filtered));
        }
        apifence.ok(&["detach"])?;
        none_wrong(&wrong)?;
    }
    Ok(())
}

/// Result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answered {
    Not,
    Harmlessly,
    FromProtectedPort,
}

/// What was answered.
struct Run {
    cases: Vec<Answered>,
    rows: BTreeSet<String>,
    /// Cases of unlisted sources that a protected port answered.
    reached: BTreeSet<String>,
}

impl Run {
    fn new(testbed: &mut Testbed, cases: &[Case], medium: Medium, mtu: u32) -> Result<Self> {
        let answered = run(testbed, cases)?;
        let (mut rows_answered, mut reached) = (BTreeSet::new(), BTreeSet::new());
        for (at, mut row) in rows(medium, mtu).into_iter().enumerate() {
            renumber(
                &mut row.frame,
                10_000 + u16::try_from(at).context("too many rows")?,
            );
            let answers = testbed
                .send(&[row.frame])
                .with_context(|| row.name.clone())?;
            let from_protected = |answer: &Answer| {
                matches!(
                    answer,
                    Answer::Accepted {
                        from: 443 | 6443,
                        ..
                    }
                )
            };
            if row.name.ends_with("/unlisted") && answers.iter().any(from_protected) {
                reached.insert(row.name.clone());
            }
            if !answers.is_empty() {
                rows_answered.insert(row.name);
            }
        }
        Ok(Self {
            cases: answered,
            rows: rows_answered,
            reached,
        })
    }
}

/// Results of the cases.
fn run(testbed: &mut Testbed, cases: &[Case]) -> Result<Vec<Answered>> {
    let of_case = |case: &Case| {
        let answers = testbed
            .send(&case.frames)
            .with_context(|| case.name.clone())?;
        let one = |answer: &Answer| match *answer {
            Answer::Accepted {
                from: 443 | 6443,
                to,
            } if to == case.tag => Answered::FromProtectedPort,
            Answer::Accepted { to, .. } | Answer::Datagram(to) | Answer::Echo(to)
                if to == case.tag =>
            {
                Answered::Harmlessly
            }
            _ => Answered::Not,
        };
        Ok(answers.iter().map(one).max().unwrap_or(Answered::Not))
    };
    cases.iter().map(of_case).collect()
}

fn compare<'a>(
    cases: &'a [Case],
    open: &'a Run,
    filtered: &'a Run,
) -> impl Iterator<Item = String> {
    let of_cases = cases
        .iter()
        .zip(open.cases.iter().zip(&filtered.cases))
        .filter_map(|(case, (open, filtered))| verdict(case, *open, *filtered));
    let leaked = filtered.reached.iter().map(|name| format!("leak: {name}"));
    let of_rows = table::all().into_iter().filter_map(|row| {
        let (was, is) = (
            open.rows.contains(&row.name),
            filtered.rows.contains(&row.name),
        );
        match row.want {
            Verdict::Drop(_) if is => Some(format!("leak: {}", row.name)),
            // The answer to a fragment depends on earlier fragments.
            Verdict::Pass(_) if was && !is && !row.name.contains("fragment") => {
                Some(format!("loss: {}", row.name))
            }
            _ => None,
        }
    });
    leaked
        .chain(of_rows)
        .chain(of_cases)
        .collect::<Vec<_>>()
        .into_iter()
}

fn verdict(case: &Case, open: Answered, filtered: Answered) -> Option<String> {
    if case.must_not_pass {
        (filtered == Answered::FromProtectedPort).then(|| format!("leak: {}", case.name))
    } else {
        (filtered < open).then(|| format!("loss: {}", case.name))
    }
}

/// The rows of the usual policy that fit this MTU and not a smaller one.
fn rows(medium: Medium, mtu: u32) -> Vec<Row> {
    table::all()
        .into_iter()
        .filter(|row| row.link_header == LinkHeader::Ethernet)
        .filter(|row| matches!(row.rules, Rules::Enforce | Rules::Decapsulating))
        .filter(|row| row.frame.len() >= 14)
        .filter(|row| fits(medium, mtu, std::slice::from_ref(&row.frame)))
        .collect()
}

fn fits(medium: Medium, mtu: u32, frames: &[Vec<u8>]) -> bool {
    if medium == Medium::Tun && !frames.iter().all(|frame| is_packet(frame)) {
        return false;
    }
    let longest = frames.iter().map(Vec::len).max().unwrap_or(0);
    match mtu {
        1500 => longest <= 1514,
        _ => (1515..=9014).contains(&longest),
    }
}

/// Whether a frame is an IP packet with a matching Ethernet header: without that header it is the
/// same packet.
fn is_packet(frame: &[u8]) -> bool {
    let packet = frame.get(HEADER_LEN..).unwrap_or_default();
    packet.len() > 40
        && ethernet::frame(packet)[12..14] == frame[12..14]
        && matches!(packet[0] >> 4, 4 | 6)
}

fn testbed(medium: Medium, mtu: u32, tracked: bool) -> Result<Testbed> {
    let testbed = Testbed::new(medium, mtu)?;
    if tracked {
        testbed.track_connections()?;
    }
    Ok(testbed)
}

/// Gives each SYN in a frame of the table a source port of its own, so that the node sees another
/// connection.
fn renumber(frame: &mut [u8], port: u16) {
    let old = CLIENT_PORT.to_be_bytes();
    // Ports, then the sequence numbers that every SYN of the table has.
    let syn =
        |at: usize| frame[at..at + 2] == old && frame[at + 4..at + 12] == [0, 0, 0, 1, 0, 0, 0, 0];
    let Some(at) = (14..frame.len().saturating_sub(19))
        .rev()
        .find(|at| syn(*at))
    else {
        return;
    };
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    // RFC 1624: the checksum of the changed word.
    let sum = u16::from_be_bytes([frame[at + 16], frame[at + 17]]);
    let changed = u32::from(!sum) + u32::from(!CLIENT_PORT) + u32::from(port);
    let folded = (changed & 0xffff) + (changed >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let sum = !u16::try_from(folded).expect("folded twice it fits");
    frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn renumbered_segments_have_right_checksums() {
    let port = 12_345;
    let segment = |port| table::v4(Source::Unlisted).syn(port, 443).frame();
    let mut frame = segment(CLIENT_PORT);
    renumber(&mut frame, port);
    assert_eq!(frame, segment(port));
    let mut frame = table::v4(Source::Unlisted).payload(UDP, &[1, 2, 3]).frame();
    let before = frame.clone();
    renumber(&mut frame, port);
    assert_eq!(frame, before, "there is no SYN to renumber");
    assert!(!Works::Never.on(false));
}
