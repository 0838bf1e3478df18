//! What the keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{model, refused, sample, screens::screen};
use crate::top::{
    controls::{Action, Controls, Popup},
    model::Model,
    rows::{self, Panel, RowKey, Sort},
};

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
