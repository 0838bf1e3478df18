//! The model from artificial samples, and the screens drawn from it.

use std::{collections::HashMap, sync::Arc};

use filter_common::{DropReason, Verdict};
use jiff::{SignedDuration, Timestamp};
use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{
    keys::Panel,
    rows::Sort,
    sample::{Ranges, Sample},
    *,
};
use crate::{
    kernel::{
        bpf::{DropReport, ReportBatch, Use},
        links::protected::ProtectedInterface,
        net::interface::XdpAttachMode,
    },
    policy::Prefix,
    view::{
        policy::{Provisional, headline},
        stats::Row,
    },
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

fn ranges() -> Ranges {
    let ranges = ["198.51.100.0/24", "2001:db8:aa::/48", "10.0.0.0/8"];
    let prefix = |(id, range): (usize, &&str)| {
        let prefix = Prefix {
            range: range.parse().expect("a range"),
            origins: if id == 2 { 8 } else { 1 },
            expires: None,
        };
        (id as u32, prefix)
    };
    Arc::new(ranges.iter().enumerate().map(prefix).collect())
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
        headline: headline("enforcing", "443, 6443"),
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
        ranges: ranges(),
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

fn screen(model: &Model, controls: &mut Controls, size: (u16, u16)) -> Terminal<TestBackend> {
    let backend = TestBackend::new(size.0, size.1);
    let mut terminal = Terminal::new(backend).expect("memory does not fail");
    terminal
        .draw(|frame| draw(frame, model, controls, Theme::new(true)))
        .expect("memory does not fail");
    terminal
}

fn same(name: &str, terminal: &Terminal<TestBackend>) {
    let mut settings = insta::Settings::new();
    // The path is absolute, so the test need not ask cargo for the workspace.
    let folder = "/src/top/snapshots";
    settings.set_snapshot_path(format!("{}{folder}", env!("CARGO_MANIFEST_DIR")));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, terminal.backend()));
}

#[test]
fn rates_are_those_of_the_samples() {
    let model = model();
    assert_eq!(model.rate(&["drop"]), 100.0);
    assert_eq!(model.rate(&["pass"]), 25.0);
    assert_eq!(model.authorized_rate(), 25.0);
    assert_eq!((model.reported, model.not_reported), (2_700, 900 * 97));
    assert_eq!(model.history.len(), 301);
    assert!(
        model
            .history
            .iter()
            .all(|point| (point.refused, point.passed) == (100.0, 25.0))
    );
    let rates: HashMap<String, f64> = model
        .entries()
        .map(|entry| (entry.range.to_string(), entry.packets.rate(&model.times)))
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
            .map(|entry| entry.range.to_string())
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
    assert_eq!(model.sources.len(), 1024);
    assert_eq!(model.reported, 8 * 401);
    let (address, first) = &rows::sources(&model, Sort::Total)[0];
    assert_eq!(*address, Some([203, 0, 113, 9].into()));
    assert_eq!(first.packets.total(), 8);
}

#[test]
fn a_filter_attached_again_is_counted_from_zero() {
    let mut model = model();
    let mut gone = sample(900);
    gone.state = "detached";
    gone.headline = headline("detached", "");
    gone.interfaces.clear();
    gone.batch = ReportBatch::default();
    gone.uses.clear();
    gone.ranges = Ranges::default();
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

#[test]
fn screens() {
    let mut model = model();
    let mut controls = Controls::default();
    same("80x24", &screen(&model, &mut controls, (80, 24)));
    controls.sort = Sort::Total;
    same("160x44", &screen(&model, &mut controls, (160, 44)));
    model.provisional = Some(Provisional {
        until: time(960),
        seconds_left: 61,
    });
    controls.focus = Panel::Entries;
    same("20x5", &screen(&model, &mut controls, (20, 5)));
    controls.focus = Panel::Interfaces;
    same("60x12", &screen(&model, &mut controls, (60, 12)));
    controls.help = true;
    controls.frozen = Some(Box::new(model.clone()));
    same("help", &screen(&Model::default(), &mut controls, (80, 24)));
}

/// At any size nothing panics, and the first line shows as much as fits.
#[test]
fn any_size_is_drawn() {
    let model = model();
    for width in (1..20).chain([40, 79, 139, 140, 300]) {
        for height in (1..20).chain([35, 36, 100]) {
            let mut controls = Controls {
                scroll: [usize::MAX - 100; 3],
                ..Controls::default()
            };
            controls.help = height % 2 == 0 && width < 20;
            let text = screen(&model, &mut controls, (width, height))
                .backend()
                .to_string();
            let wanted: String = "enforcing".chars().take(width.into()).collect();
            assert!(
                controls.help || text.contains(&wanted),
                "{width}x{height}: {text}"
            );
        }
    }
}

/// A terminal obeys no escape sequence in a device's name.
#[test]
fn control_sequences_are_not_drawn() {
    let evil = "e\x1b[31m\x07\u{9b}\u{202e}\u{2066}\u{200b}\u{feff}\r\nth";
    let mut model = Model::default();
    for second in 0..3 {
        let mut sample = sample(second);
        sample.interfaces[0].0.interface = evil.to_owned();
        sample.interfaces[0].0.native_refused = Some(evil.to_owned());
        model.add(sample);
    }
    model.fail(&anyhow::anyhow!("read `{evil}`: gone"));
    let terminal = screen(&model, &mut Controls::default(), (160, 44));
    for cell in &terminal.backend().buffer().content {
        let hidden = cell.symbol().contains(crate::ui::visible::is_hidden);
        assert!(!hidden, "{:?}", cell.symbol());
    }
}

#[test]
fn without_colours_there_are_none() {
    let model = model();
    for colours in [true, false] {
        let mut terminal = Terminal::new(TestBackend::new(100, 40)).expect("memory does not fail");
        terminal
            .draw(|frame| draw(frame, &model, &mut Controls::default(), Theme::new(colours)))
            .expect("memory does not fail");
        let cells = terminal.backend().buffer().content.iter();
        let coloured = cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured.count() > 0, colours);
    }
}
