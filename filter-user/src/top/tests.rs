//! The model from artificial samples.

mod keys;
mod screens;

use std::{collections::HashMap, sync::Arc, time::Duration};

use filter_common::{DropReason, Verdict};
use jiff::{SignedDuration, Timestamp};

use self::screens::{same, screen};
use super::{
    controls::Controls,
    lookup::{Found, Ranges, UsedRange},
    model::Model,
    rows::{self, Sort},
    sample::Sample,
};
use crate::{
    config::Guard,
    kernel::{
        bpf::{DropReport, ReportBatch, Use},
        links::protected::ProtectedInterface,
        net::interface::XdpAttachMode,
    },
    policy::Prefix,
    ranges::ListName,
    view::stats::Row,
};

fn time(second: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + second as i64)
}

fn refused(source: [u8; 4], second: u64) -> DropReport {
    DropReport {
        time: time(second),
        verdict: Verdict::Drop(DropReason::Unauthorized),
        source: Some(source.into()),
        destination: Some([192, 0, 2, 10].into()),
        ports: Some([40_000, 6443]),
        ifindex: 2,
        bytes: 74,
    }
}

fn list(name: &str) -> ListName {
    name.parse().expect("a name")
}

fn ranges() -> Ranges {
    let listed = Some("default");
    let ranges = [
        ("198.51.100.0/24", listed, "office Berlin"),
        (
            "2001:db8:aa::/48",
            Some("partners"),
            "a partner whose comment is a long one",
        ),
        ("10.0.0.0/8", None, ""),
    ];
    let used = |(id, (range, owner, comment)): (usize, &(&str, Option<&str>, &str))| {
        let used = UsedRange {
            prefix: Prefix {
                range: range.parse().expect("a range"),
                origins: if owner.is_some() { 1 } else { 8 },
                expires: None,
            },
            lists: owner.iter().map(|name| list(name)).collect(),
            comment: Some(comment.to_string()).filter(|text| !text.is_empty()),
            expires: owner
                .filter(|name| *name == "partners")
                .map(|_| time(9_000)),
        };
        (id as u32, used)
    };
    Arc::new(ranges.iter().enumerate().map(used).collect())
}

/// One second: it drops 100 packets, passes 25, and reports one source twice.
fn sample(second: u64) -> Sample {
    let row = |verdict, reason, packets| Row {
        verdict,
        reason,
        packets,
        bytes: packets * 74,
    };
    let uses = [(0, 1_000 + 20 * second), (1, 7), (2, 5 * second), (9, 3)];
    Sample {
        at: Duration::from_secs(1_000 + second),
        time: time(second),
        state: "enforcing",
        ports: "443, 6443".to_owned(),
        guards: vec![Guard {
            ports: [2379].into(),
            lists: [list("control-plane")].into(),
        }],
        host: "cp-1".to_owned(),
        provisional: None,
        interfaces: vec![(
            ProtectedInterface {
                native_refused: None,
                interface: "eth0".to_owned(),
                ifindex: 2,
                xdp_mode: Some(XdpAttachMode::Native),
                guarded: true,
            },
            vec![
                row("pass", "authorized", 1_000 + 25 * second),
                row("pass", "not_tcp", 5_000),
                row("drop", "unauthorized", 100 * second),
            ],
        )],
        restarted: second == 0,
        batch: ReportBatch {
            reports: vec![
                refused([203, 0, 113, 9], second),
                refused([203, 0, 113, 9], second),
                refused([203, 0, 113, second as u8 % 4 + 100], second),
            ],
            not_reported: 97,
        },
        uses: uses
            .map(|(id, packets)| Use {
                id,
                packets,
                last_seen: time(if id == 1 { 0 } else { second }),
            })
            .to_vec(),
        found: Found {
            ranges: ranges(),
            list_size: Some(12),
        },
    }
}

/// A quarter of an hour of samples, which is more than the charts cover.
fn model() -> Model {
    let mut model = Model::default();
    for second in 0..900 {
        model.add(sample(second));
    }
    model
}

#[test]
fn rates_are_those_of_the_samples() {
    let model = model();
    assert_eq!(model.rate(&["drop"]), 100.0);
    assert_eq!(model.rate(&["pass"]), 25.0);
    assert_eq!(model.authorized_rate(), 25.0);
    assert_eq!(
        (model.sources.reported, model.sources.not_reported),
        (2_700, 900 * 97)
    );
    assert_eq!(model.history.len(), 301);
    assert!(
        model
            .history
            .iter()
            .all(|point| (point.refused, point.passed) == (100.0, 25.0))
    );
    let rates: HashMap<String, f64> = model
        .entries()
        .map(|entry| (entry.range().to_string(), entry.packets.rate(&model.times)))
        .collect();
    // The fourth use is of a range that is gone.
    assert_eq!(rates.len(), 3);
    assert_eq!(rates["198.51.100.0/24"], 20.0);
    assert_eq!(rates["10.0.0.0/8"], 5.0);
    assert_eq!(rates["2001:db8:aa::/48"], 0.0);
    let noisy = &rows::sources(&model, Sort::Rate)[0];
    assert_eq!(noisy.0, Some([203, 0, 113, 9].into()));
    assert_eq!(noisy.1.packets.rate(&model.times), 2.0);
}

#[test]
fn each_sort_has_its_own_order() {
    let model = model();
    let order = |sort| {
        let entries = rows::entries(&model, sort).into_iter();
        entries
            .map(|entry| entry.range().to_string())
            .collect::<Vec<_>>()
    };
    let [admin, office, cluster] = ["198.51.100.0/24", "2001:db8:aa::/48", "10.0.0.0/8"];
    assert_eq!(order(Sort::Rate), [admin, cluster, office]);
    assert_eq!(order(Sort::Total), [admin, cluster, office]);
    assert_eq!(order(Sort::Name), [cluster, admin, office]);
    assert_eq!(order(Sort::LastSeen)[2], office);
}

/// A flood of sources with one packet each, for more samples than there is room.
#[test]
fn a_flood_of_sources_neither_fills_memory_nor_evicts_a_busy_source() {
    let mut model = Model::default();
    let mut number = 0_u32;
    for second in 0..8 {
        let mut sample = sample(second);
        sample.batch.reports.truncate(1);
        for _ in 0..400 {
            number += 1;
            let [_, a, b, c] = number.to_be_bytes();
            sample.batch.reports.push(refused([100, a, b, c], second));
        }
        model.add(sample);
    }
    assert_eq!(model.sources.known.len(), 1024);
    assert_eq!(model.sources.reported, 8 * 401);
    let (address, first) = &rows::sources(&model, Sort::Total)[0];
    assert_eq!(*address, Some([203, 0, 113, 9].into()));
    assert_eq!(first.packets.total(), 8);
}

#[test]
fn a_filter_attached_again_is_counted_from_zero() {
    let mut model = model();
    let mut gone = sample(900);
    gone.state = "detached";
    gone.interfaces.clear();
    gone.batch = ReportBatch::default();
    gone.uses.clear();
    gone.found = Found::default();
    model.add(gone);
    assert_eq!(model.rate(&["drop"]), 0.0);
    assert_eq!(model.entries().count(), 0);
    same(
        "detached",
        &screen(&model, &mut Controls::default(), (80, 24)),
    );
    let mut back = sample(1);
    (back.at, back.time, back.restarted) = (Duration::from_secs(1_901), time(901), true);
    model.add(back);
    assert_eq!(model.history.back().map(|point| point.refused), Some(100.0));
    let rates = model
        .entries()
        .map(|entry| entry.packets.rate(&model.times));
    assert_eq!(
        rates.fold(0.0, f64::max),
        0.0,
        "what came before is no rate"
    );
    model.fail(&anyhow::anyhow!("read policy: gone"));
    let text = screen(&model, &mut Controls::default(), (80, 24))
        .backend()
        .to_string();
    assert!(text.contains("unknown: read policy: gone"), "{text}");
}

/// A new view shows the last minute, and more as time passes.
#[test]
fn the_charts_widen() {
    let mut model = Model::default();
    let spans = (0..400).map(|second| {
        model.add(sample(second));
        model.span().as_secs()
    });
    let spans: Vec<u64> = spans.collect();
    assert_eq!((spans[0], spans[60], spans[100]), (60, 60, 120));
    assert_eq!((spans[250], spans[399]), (300, 300));
}
