//! The verdict table, judged twice: over byte slices, and by the loaded program.

use std::{collections::HashMap, iter, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use filter_common::{
    Bytes, DropReason, FlowInfo, Judgement, LinkHeader, Policy as _, Verdict, judge, judge_fast,
    judge_slow,
};
use tests::{
    netns::Namespace,
    packets::tagged,
    table::{
        self, NODE4, NODE6, Row, Rules, Who,
        loaded::{Filter, SHORTEST, end_of_packet},
        v4, v6,
    },
};

fn ethernet(bytes: &[u8]) -> Bytes<'_> {
    let link_header = LinkHeader::Ethernet;
    Bytes { link_header, bytes }
}

fn verdict(judgement: &Judgement) -> Verdict {
    Verdict::from_index(judgement.verdict_index).expect("every judgement has a verdict")
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

/// The short way and the long one lead to the same place; `frames` says how many take the short one.
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
    // A bit or two off, a plain frame often is none.
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

/// Who is reported: the source that the policy refused, at the port that it protects; nobody where nobody is to be believed.
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
                    !rules.authorizes(source) && rules.protects(port),
                    "{name}: {info:?}"
                );
            }
            (DropReason::MisplacedFragment, None, None, None) => {}
            (DropReason::Malformed | DropReason::Truncated, Some(source), Some(_), None) => {
                assert!(!rules.authorizes(source), "{name}: {info:?}");
            }
            // Of the packet in the frame if its own port is hidden; of none if its source is.
            (
                DropReason::IncompleteFirstFragment | DropReason::HeadersTooDeep,
                source,
                destination,
                None,
            ) if source.is_some() == destination.is_some() => {
                assert!(
                    source.is_none_or(|source| !rules.authorizes(source)),
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
    let who = Who::Stranger;
    let [four, six] = [IpAddr::V4(who.v4()), IpAddr::V6(who.v6())];
    let ports = Some([40_001, 6443]);
    let four_syn = || v4(who).syn(40_001, 6443);
    let six_syn = || v6(who).destination_options(16).syn(40_001, 6443);
    let tunnel = |number, packet: &[u8]| {
        v6(Who::Listed)
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

/// Every verdict that there is occurs in the table.
#[test]
fn rows_cover_every_reason() {
    let rows = table::all();
    let missing: Vec<_> = Verdict::all()
        .filter(|verdict| !rows.iter().any(|row| row.want == *verdict))
        .collect();
    assert!(missing.is_empty(), "no row wants {missing:?}");
}

#[test]
fn loaded_program_gives_the_wanted_verdicts() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for row in table::all() {
        // Shorter frames do not exist: the kernel refuses to run the program on one.
        if row.frame.len() < SHORTEST {
            continue;
        }
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        asked += 1;
        check(&mut wrong, &row, None, filter);
    }
    println!("{asked} frames");
    report(&wrong)
}

/// Wherever a frame is divided between the memory that the program sees and what only the helper reads.
#[test]
fn loaded_program_reads_beyond_the_linear_part() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let splits = splits(&mut filters)?;
    if !splits {
        println!("skipped: before Linux 6.18 a test run cannot say how much of a frame is linear");
        return Ok(());
    }
    let mut rng = Rng::with_seed(table::seed());
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for row in table::all() {
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        // Up to a page less the room that XDP keeps free.
        let longest = row.frame.len().min(3_000);
        if longest < SHORTEST {
            continue;
        }
        let everywhere = row.name.starts_with("headers/order/") && row.frame.len() < 160;
        let points: Vec<_> = if everywhere {
            (SHORTEST..=longest).step_by(3).collect()
        } else {
            let chosen = [SHORTEST, 16, 34, 54, row.frame.len() / 2];
            let random = iter::repeat_with(|| rng.usize(SHORTEST..=longest));
            chosen
                .into_iter()
                .chain(random.take(2))
                .filter(|at| (SHORTEST..=longest).contains(at))
                .collect()
        };
        for linear in points {
            asked += 1;
            check(&mut wrong, &row, Some(linear), filter);
        }
    }
    println!("{asked} frames");
    report(&wrong)
}

/// Frames that nobody thought of: both judges say the same, whatever it is.
#[test]
fn both_judges_agree_on_mutated_frames() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let rows: Vec<_> = table::all()
        .into_iter()
        .filter(|row| row.frame.len() < 2_000)
        .collect();
    let splits = splits(&mut filters)?;
    let mut rng = Rng::with_seed(table::seed());
    let mut wrong = Vec::new();
    for round in 0..20_000 {
        let mut row = rng.choice(&rows).context("the table is empty")?.clone();
        mutate(&mut rng, &mut row.frame, &rows);
        row.name = format!("{} mutated in round {round}", row.name);
        row.want = verdict(&judge(&row.bytes(), &row.rules));
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        let longest = row.frame.len().min(3_000);
        let linear = (splits && rng.bool()).then(|| rng.usize(SHORTEST..=longest));
        check(&mut wrong, &row, linear, filter);
    }
    report(&wrong)
}

/// Arbitrary bytes have a verdict.
#[test]
fn slices_of_anything_have_a_verdict() {
    let mut rng = Rng::with_seed(table::seed());
    let rows = table::all();
    for _ in 0..100_000 {
        let mut frame = vec![0; rng.usize(0..200)];
        rng.fill(&mut frame);
        // Every second one at least claims to be IP.
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

/// Changes a frame here and there; it stays one that the kernel takes.
fn mutate(rng: &mut Rng, frame: &mut Vec<u8>, rows: &[Row]) {
    for _ in 0..rng.usize(1..5) {
        // Headers are in front.
        let at = rng.usize(0..frame.len().clamp(1, 120));
        match rng.u8(0..8) {
            0 => frame.truncate(at.max(SHORTEST)),
            1 => frame.extend(iter::repeat_n(rng.u8(..), rng.usize(0..64))),
            2 => {
                let other = &rng.choice(rows).expect("the table is not empty").frame;
                frame.truncate(at);
                frame.extend(other.iter().skip(at));
            }
            3 if at < frame.len() => frame[at] = *rng.choice(&INTERESTING).expect("not empty"),
            4 if at < frame.len() => frame[at] ^= 1 << rng.u8(0..8),
            5 if at < frame.len() => frame[at] = rng.u8(..),
            6 => {
                let piece: Vec<_> = frame
                    .iter()
                    .skip(at)
                    .take(rng.usize(1..40))
                    .copied()
                    .collect();
                frame.splice(at.min(frame.len())..at.min(frame.len()), piece);
            }
            _ => {
                let end = (at + rng.usize(1..16)).min(frame.len());
                frame.drain(at.min(end)..end);
            }
        }
    }
    frame.resize(frame.len().max(SHORTEST), 0);
}

/// Bytes that mean something in one header or another.
const INTERESTING: [u8; 24] = [
    0, 1, 2, 3, 4, 6, 8, 17, 41, 43, 44, 50, 51, 58, 59, 60, 0x45, 0x4f, 0x60, 0x81, 0x86, 135,
    140, 255,
];

/// One namespace for each policy.
struct Namespaces(Vec<(Rules, Namespace)>);

impl Namespaces {
    fn new() -> Result<Self> {
        let named = |rules: Rules| Ok((rules, Namespace::new(&format!("{rules:?}"))?));
        Ok(Self(
            Rules::ALL.into_iter().map(named).collect::<Result<_>>()?,
        ))
    }

    fn attach(&self) -> Result<HashMap<Rules, Filter>> {
        let attached = |(rules, namespace): &(Rules, Namespace)| {
            let filter =
                Filter::attach(namespace, *rules).with_context(|| format!("attach {rules:?}"))?;
            Ok((*rules, filter))
        };
        self.0.iter().map(attached).collect()
    }
}

fn splits(filters: &mut HashMap<Rules, Filter>) -> Result<bool> {
    filters
        .get_mut(&Rules::Enforce)
        .context("nothing is attached")?
        .splits()
}

fn check(wrong: &mut Vec<String>, row: &Row, linear: Option<usize>, filter: &mut Filter) {
    // The other judge, on the same bytes: they must have seen the same.
    let frame = row.bytes();
    let judgement = judge(&frame, &row.rules);
    let info = match verdict(&judgement) {
        Verdict::Pass(_) => None,
        Verdict::Drop(_) | Verdict::WouldDrop(_) => {
            Some(FlowInfo::read(&frame, judgement.location))
        }
    };
    let have = match filter.judge_and_report(frame, linear) {
        Ok((verdict, seen)) if verdict == row.want && seen == info => return,
        Ok((verdict, seen)) => format!("{verdict:?}, {seen:?} and not {info:?}"),
        Err(error) => format!("{error:#}"),
    };
    let hex: String = row
        .frame
        .iter()
        .take(200)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let Row {
        name, want, rules, ..
    } = row;
    wrong.push(format!(
        "{name}: want {want:?}, have {have} ({rules:?}, linear {linear:?}, {hex})"
    ));
}

fn report(wrong: &[String]) -> Result<()> {
    let shown: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    ensure!(
        wrong.is_empty(),
        "{} wrong, first of them:\n{}",
        wrong.len(),
        shown.join("\n")
    );
    Ok(())
}
