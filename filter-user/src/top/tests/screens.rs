//! The screens that are drawn from the model.

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{model, sample, time};
use crate::{
    ranges::ListName,
    top::{
        controls::{Controls, Popup},
        form::{Form, Request},
        model::Model,
        rows::{Panel, RowKey, Sort},
        view::{Theme, draw},
    },
    view::policy::Provisional,
};

pub(super) fn screen(
    model: &Model,
    controls: &mut Controls,
    size: (u16, u16),
) -> Terminal<TestBackend> {
    let backend = TestBackend::new(size.0, size.1);
    let mut terminal = Terminal::new(backend).expect("memory does not fail");
    terminal
        .draw(|frame| draw(frame, model, controls, Theme::new(true)))
        .expect("memory does not fail");
    terminal
}

pub(super) fn same(name: &str, terminal: &Terminal<TestBackend>) {
    let mut settings = insta::Settings::new();
    // The path is absolute, so the test need not ask cargo for the workspace.
    let folder = "/src/top/snapshots";
    settings.set_snapshot_path(format!("{}{folder}", env!("CARGO_MANIFEST_DIR")));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, terminal.backend()));
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
