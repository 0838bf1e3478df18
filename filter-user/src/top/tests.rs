//! The model from artificial samples, and the screens drawn from it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use filter_common::{DropReason, Verdict};
use jiff::{SignedDuration, Timestamp};
use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{
    controls::{Action, Controls, Popup},
    form::{Form, Request},
    lookup::{Found, Ranges, UsedRange},
    model::Model,
    rows::{self, Panel, RowKey, Sort},
    sample::Sample,
    view::{Theme, draw},
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
    view::{policy::Provisional, stats::Row},
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

/// The sizes of terminals, from a phone's to a wall's.
#[test]
fn screens() {
    let mut model = model();
    let mut controls = Controls::default();
    same("80x24", &screen(&model, &mut controls, (80, 24)));
    same("120x40", &screen(&model, &mut controls, (120, 40)));
    controls.sort = Sort::Total;
    controls.focus = Panel::Entries;
    same("160x44", &screen(&model, &mut controls, (160, 44)));
    same("40x10", &screen(&model, &mut controls, (40, 10)));
    model.provisional = Some(Provisional {
        until: time(960),
        seconds_left: 61,
    });
    same("20x5", &screen(&model, &mut controls, (20, 5)));
    controls.focus = Panel::Interfaces;
    same("60x12", &screen(&model, &mut controls, (60, 12)));
    controls.popup = Some(Popup::Help);
    controls.frozen = Some(Box::new(model.clone()));
    same("help", &screen(&Model::default(), &mut controls, (80, 24)));
}

#[test]
fn popups() {
    let model = model();
    let mut controls = Controls::default();
    let enter = |controls: &mut Controls| controls.press(KeyCode::Enter.into(), &model);
    enter(&mut controls);
    same("source", &screen(&model, &mut controls, (80, 24)));
    enter(&mut controls);
    controls.focus = Panel::Entries;
    controls.press(KeyCode::End.into(), &model);
    enter(&mut controls);
    same("entry", &screen(&model, &mut controls, (80, 24)));

    let mut form = Form::new(Request::new([203, 0, 113, 9].into(), &ListName::default()));
    controls.popup = Some(Popup::Form(form.clone()));
    same("asking", &screen(&model, &mut controls, (80, 24)));
    form.finish(
        false,
        vec![
            "refused: change policy: it shuts out 198.51.100.5".to_owned(),
            "hint: `--force` if it is meant; nothing changed".to_owned(),
        ],
    );
    controls.popup = Some(Popup::Form(form));
    same("refused", &screen(&model, &mut controls, (40, 14)));
}

fn press(controls: &mut Controls, model: &Model, keys: &str) -> Action {
    let mut last = Action::None;
    for letter in keys.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        last = controls.press(code.into(), model);
    }
    last
}

#[test]
fn keys_do_what_the_help_says() {
    let model = model();
    let mut controls = Controls::default();
    press(&mut controls, &model, "2s");
    assert_eq!(
        (controls.focus, controls.sort),
        (Panel::Entries, Sort::Total)
    );
    controls.press(KeyCode::BackTab.into(), &model);
    assert_eq!(controls.focus, Panel::Sources);
    press(&mut controls, &model, "p");
    assert!(controls.frozen.is_some());
    press(&mut controls, &model, " ");
    assert!(controls.frozen.is_none());
    assert_eq!(
        press(&mut controls, &model, "?\x1b"),
        Action::None,
        "it leaves the help"
    );
    assert!(controls.popup.is_none());
    for quit in ["q", "\x1b", "?q", "\nq"] {
        assert_eq!(
            press(&mut Controls::default(), &model, quit),
            Action::Quit,
            "{quit:?}"
        );
    }
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut controls, &model, "a");
    assert_eq!(controls.press(control_c, &model), Action::Quit);
}

#[test]
fn a_filter_keeps_the_rows_with_its_text() {
    let model = model();
    let mut controls = Controls::default();
    // While it is typed, letters are text.
    assert_eq!(press(&mut controls, &model, "/BERLINqa"), Action::None);
    for _ in 0..2 {
        controls.press(KeyCode::Backspace.into(), &model);
    }
    press(&mut controls, &model, "\n2");
    let rows = |filter: &str| rows::rows(&model, Panel::Entries, Sort::Rate, filter).len();
    assert_eq!(controls.filter, "BERLIN");
    assert_eq!(
        (rows(""), rows("berlin"), rows("2001:db8:aa::5")),
        (3, 1, 1)
    );
    let text = screen(&model, &mut controls, (80, 24))
        .backend()
        .to_string();
    assert!(
        text.contains("office Berlin") && !text.contains("10.0.0.0"),
        "{text}"
    );
    assert_eq!(
        press(&mut controls, &model, "\x1b"),
        Action::None,
        "it clears the filter"
    );
    assert!(controls.filter.is_empty());
}

#[test]
fn a_source_is_proposed_for_the_list_of_its_port() {
    let mut model = model();
    let mut controls = Controls::default();
    let command = |list| format!("apifence ranges add 203.0.113.9{list} --expires 8h");
    assert_eq!(press(&mut controls, &model, "c"), Action::Copy(command("")));
    assert!(matches!(controls.popup, Some(Popup::Command(_))));
    let mut other = sample(900);
    for report in &mut other.batch.reports {
        report.ports = Some([40_000, 2379]);
    }
    model.add(other);
    assert_eq!(
        press(&mut controls, &model, " c"),
        Action::Copy(command(" --list control-plane"))
    );
    // An entry is listed already, and an unknown source has no address.
    assert_eq!(press(&mut controls, &model, " 2a"), Action::None);
    assert!(controls.popup.is_none() && controls.note.is_some());
    let mut hidden = Model::default();
    let mut first = sample(0);
    first.batch.reports.truncate(1);
    first.batch.reports[0].source = None;
    hidden.add(first);
    press(&mut controls, &hidden, "1a");
    let note = controls.note.clone().unwrap_or_default();
    assert!(
        controls.popup.is_none() && note.contains("unknown"),
        "{note}"
    );
}

#[test]
fn a_key_meets_the_source_that_was_chosen() {
    let mut model = model();
    let mut controls = Controls::default();
    controls.press(KeyCode::Down.into(), &model);
    let chosen = |controls: &Controls, model: &Model| {
        let rows = rows::rows(model, Panel::Sources, Sort::Rate, "");
        let place = controls.cursors[0].place(&rows);
        place.map(|place| rows[place].key.clone())
    };
    let before = chosen(&controls, &model);
    assert_ne!(before, Some(RowKey::Source(Some([203, 0, 113, 9].into()))));
    let mut flood = sample(900);
    flood.batch.reports = (0..40).map(|_| refused([203, 0, 113, 77], 900)).collect();
    model.add(flood);
    assert_eq!(chosen(&controls, &model), before);
}

/// At any size nothing panics, and the first line shows as much as fits.
#[test]
fn any_size_is_drawn() {
    let mut model = model();
    model.provisional = Some(Provisional {
        until: time(960),
        seconds_left: 61,
    });
    let source = RowKey::Source(Some([203, 0, 113, 9].into()));
    let form = Form::new(Request::new([203, 0, 113, 9].into(), &ListName::default()));
    let popups = [
        None,
        Some(Popup::Help),
        Some(Popup::Detail(source)),
        Some(Popup::Form(form)),
    ];
    for width in (1..20).chain([40, 79, 139, 140, 200, 300]) {
        for height in (1..20).chain([26, 35, 36, 60, 100]) {
            for popup in &popups {
                let mut controls = Controls {
                    popup: popup.clone(),
                    popup_scroll: 1_000,
                    ..Controls::default()
                };
                let text = screen(&model, &mut controls, (width, height))
                    .backend()
                    .to_string();
                let wanted: String = "enforcing".chars().take(width.into()).collect();
                assert!(
                    popup.is_some() || text.contains(&wanted),
                    "{width}x{height}: {text}"
                );
            }
        }
    }
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
