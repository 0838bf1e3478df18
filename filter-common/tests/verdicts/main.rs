//! The verdict table, judged over byte slices: no root, no kernel. `tests/tests/verdicts.rs` asks
//! the loaded program.

use std::net::IpAddr;

use fastrand::Rng;
use filter_common::{
    Bytes, DropReason, FlowInfo, LinkHeader, Policy as _, Verdict, judge, judge_fast, judge_slow,
};

use packets::{end_of_packet, tagged};
use table::{NODE4, NODE6, Row, Rules, Source, mutation::mutate, v4, v6, verdict};

// The crate `tests` includes both modules by their paths.
pub mod packets;
pub mod table;

fn ethernet(bytes: &[u8]) -> Bytes<'_> {
    let link_header = LinkHeader::Ethernet;
    Bytes { link_header, bytes }
}

#[test]
fn slices_get_the_wanted_verdicts() {
    let rows = table::all();
    assert!(
        rows.len() > 9_000,
        "the table has shrunk to {} rows",
        rows.len()
    );
    let wrong: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let have = verdict(&judge(&row.bytes(), &row.rules));
            (have != row.want).then(|| format!("{}: want {:?}, have {have:?}", row.name, row.want))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

/// The fast path and the slow path agree; `frames` is the number of frames that take the fast path.
fn same_both_ways<'a>(rows: impl Iterator<Item = &'a Row>) -> [usize; 2] {
    let mut ways = [0; 2];
    for row in rows {
        let (frame, rules) = (row.bytes(), &row.rules);
        let plain = judge_fast(&frame, rules, |judgement, end| (judgement, end));
        ways[usize::from(plain.is_some())] += 1;
        if let Some((judgement, end)) = plain {
            assert_eq!(judgement, judge_slow(&frame, rules), "{frame:02x?}");
            assert_eq!(Some(end), end_of_packet(frame), "{frame:02x?}");
        }
    }
    ways
}

#[test]
fn plain_frames_get_the_verdict_that_they_get_as_any_frame() {
    let mut rows = table::all();
    let [any, plain] = same_both_ways(rows.iter());
    assert!(any > 5_000 && plain > 500, "{any} and {plain}");
    // With a bit or two changed, a plain frame often leaves the fast path.
    let mut rng = Rng::with_seed(table::seed());
    rows.retain(|row| judge_fast(&row.bytes(), &row.rules, |_, _| ()).is_some());
    let mutated: Vec<Row> = (0..200_000)
        .map(|_| {
            let mut row = rng.choice(&rows).expect("there are some").clone();
            for _ in 0..rng.usize(1..3) {
                let at = rng.usize(0..row.frame.len().min(60));
                row.frame[at] ^= 1 << rng.u8(0..8);
            }
            if rng.u8(..8) == 0 {
                row.frame.truncate(rng.usize(..=row.frame.len()));
            }
            row
        })
        .collect();
    let [any, plain] = same_both_ways(mutated.iter());
    assert!(any > 20_000 && plain > 20_000, "{any} and {plain}");
}

/// The report names the source that the policy refused and the protected port. It names no source
/// that cannot be trusted.
#[test]
fn the_source_that_was_refused_is_reported() {
    for row in table::all() {
        let frame = row.bytes();
        let judgement = judge(&frame, &row.rules);
        let info = FlowInfo::read(&frame, judgement.location);
        let (Verdict::Drop(reason) | Verdict::WouldDrop(reason)) = verdict(&judgement) else {
            continue;
        };
        let Row { name, rules, .. } = &row;
        match (reason, info.source(), info.destination(), info.ports()) {
            (DropReason::Unauthorized, Some(source), Some(_), Some([_, port])) => {
                assert!(
                    !rules.authorizes(source, Some(port)) && rules.protects(port),
                    "{name}: {info:?}"
                );
            }
            (DropReason::MisplacedFragment, None, None, None) => {}
            (DropReason::Malformed | DropReason::Truncated, Some(source), Some(_), None) => {
                assert!(!rules.authorizes(source, None), "{name}: {info:?}");
            }
            // If its own port is unreadable, the report is about the packet in the frame; if its
            // source is unreadable, the report has none.
            (
                DropReason::IncompleteFirstFragment | DropReason::HeadersTooDeep,
                source,
                destination,
                None,
            ) if source.is_some() == destination.is_some() => {
                assert!(
                    source.is_none_or(|source| !rules.authorizes(source, None)),
                    "{name}: {info:?}"
                );
            }
            _ => panic!("{name}: {reason:?} with {info:?}"),
        }
    }
}

#[test]
fn every_part_of_a_flow_is_reported() {
    let node = [IpAddr::V4(NODE4), IpAddr::V6(NODE6)];
    let source = Source::Unlisted;
    let [four, six] = [IpAddr::V4(source.v4()), IpAddr::V6(source.v6())];
    let ports = Some([40_001, 6443]);
    let four_syn = || v4(source).syn(40_001, 6443);
    let six_syn = || v6(source).destination_options(16).syn(40_001, 6443);
    let tunnel = |number, packet: &[u8]| {
        v6(Source::Listed)
            .segments(0, &[NODE6])
            .payload(number, packet)
    };
    for (name, frame, source, destination, ports) in [
        ("IPv4", four_syn().frame(), four, node[0], ports),
        (
            "options",
            four_syn().options(&[1; 8]).frame(),
            four,
            node[0],
            ports,
        ),
        (
            "tags",
            tagged(&[(0x8100, 7), (0x88a8, 8)], &four_syn().packet()),
            four,
            node[0],
            ports,
        ),
        ("IPv6", six_syn().frame(), six, node[1], ports),
        (
            "IPv4 inside",
            tunnel(4, &four_syn().packet()).frame(),
            four,
            node[0],
            ports,
        ),
        (
            "IPv6 inside",
            tunnel(41, &six_syn().packet()).frame(),
            six,
            node[1],
            ports,
        ),
        ("cut", four_syn().cut(3).frame(), four, node[0], None),
    ] {
        let frame = ethernet(&frame);
        let judgement = judge(&frame, &Rules::Enforce);
        assert!(
            matches!(verdict(&judgement), Verdict::Drop(_)),
            "{name}: {judgement:?}"
        );
        let info = FlowInfo::read(&frame, judgement.location);
        let have = (info.source(), info.destination(), info.ports());
        assert_eq!(have, (Some(source), Some(destination), ports), "{name}");
    }
}

/// Every verdict occurs in the table.
#[test]
fn rows_cover_every_reason() {
    let rows = table::all();
    let missing: Vec<_> = Verdict::all()
        .filter(|verdict| !rows.iter().any(|row| row.want == *verdict))
        .collect();
    assert!(missing.is_empty(), "no row wants {missing:?}");
}

/// Arbitrary bytes have a verdict.
#[test]
fn slices_of_anything_have_a_verdict() {
    let mut rng = Rng::with_seed(table::seed());
    let rows = table::all();
    for _ in 0..100_000 {
        let mut frame = vec![0; rng.usize(0..200)];
        rng.fill(&mut frame);
        // Every second one at least has the EtherType of IP.
        if frame.len() > 14 && rng.bool() {
            let head: [u8; 3] = if rng.bool() {
                [0x08, 0x00, 0x45]
            } else {
                [0x86, 0xdd, 0x60]
            };
            frame[12..15].copy_from_slice(&head);
        }
        for rules in Rules::ALL {
            for link_header in LinkHeader::ALL {
                let bytes = &frame;
                judge(&Bytes { link_header, bytes }, &rules);
            }
        }
    }
    for _ in 0..100_000 {
        let mut row = rng.choice(&rows).expect("the table is not empty").clone();
        mutate(&mut rng, &mut row.frame, &rows);
        judge(&row.bytes(), &row.rules);
    }
}
