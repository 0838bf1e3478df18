//! The screen, drawn from the model at any size, down to a few cells.

mod chart;
mod header;
mod layout;
mod popup;
mod table;
mod text;
mod theme;

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

pub(crate) use self::theme::Theme;
use self::{
    layout::Places,
    table::TABS,
    text::{cut, fitting},
};
use super::{
    controls::Controls,
    model::Model,
    rows::{Panel, rows},
};
use crate::ui::visible::is_hidden;

/// Draws the whole screen, and stores the size of the front table in `controls`.
pub(crate) fn draw(frame: &mut Frame<'_>, live: &Model, controls: &mut Controls, theme: Theme) {
    let frozen = controls.frozen.take();
    let model = frozen.as_deref().unwrap_or(live);
    let area = frame.area();
    let most = usize::from(area.height / 3).max(1);
    let head = header::lines(model, frozen.is_some(), area.width.into(), most, theme);
    let tables = Panel::ALL.map(|panel| rows(model, panel, controls.sort, &controls.filter));
    let counts = tables.each_ref().map(Vec::len);
    let places = Places::new(area, head.len() as u16, counts, controls.focus);

    frame.render_widget(Paragraph::new(head), places.head);
    if places.has_charts {
        chart::charts(frame, places.rates, model, theme);
    } else {
        let rates = chart::rates(model);
        let text = fitting(
            &rates.each_ref().map(String::as_str),
            " | ",
            area.width.into(),
        );
        frame.render_widget(Paragraph::new(text), places.rates);
    }
    if let Some(place) = places.tabs {
        frame.render_widget(tabs(controls.focus, place.width), place);
    }
    for (panel, place) in places.panes {
        let rows = (panel, &tables[panel as usize][..]);
        table::table(frame, place, rows, model, controls, theme);
    }
    foot(frame, places.foot, controls);
    popup::popup(frame, model, controls, theme);
    strip_controls(frame);
    controls.frozen = frozen;
}

/// Removes control sequences from the drawn cells. The library leaves out control characters, but
/// keeps those that change the direction of writing in the cell before them.
fn strip_controls(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        if cell.symbol().contains(is_hidden) {
            let seen: String = cell
                .symbol()
                .chars()
                .filter(|letter| !is_hidden(*letter))
                .collect();
            cell.set_symbol(if seen.is_empty() { " " } else { &seen });
        }
    }
}

/// The names of the tables, where only the one in front is shown.
fn tabs(focus: Panel, columns: u16) -> Line<'static> {
    let mut line = Line::default();
    for (number, name) in TABS.into_iter().enumerate() {
        if number > 0 {
            line.push_span(Span::styled(" | ", Theme::dim()));
        }
        let is_front = number == focus as usize;
        // The front one is to be seen even on the smallest screen.
        let room = usize::from(columns).saturating_sub(line.width());
        let style = if is_front {
            Theme::reversed()
        } else {
            Theme::dim()
        };
        line.push_span(Span::styled(cut(name, room), style));
    }
    line
}

/// The last line: what is typed, a note, or the keys.
fn foot(frame: &mut Frame<'_>, area: Rect, controls: &Controls) {
    let room = usize::from(area.width);
    let line = if controls.is_typing {
        let hint = "Enter keep  Esc clear";
        let typed = format!("/{}", controls.filter);
        let shown = fitting(&[&cut(&typed, room.saturating_sub(1)), hint], "   ", room);
        Line::from(shown)
    } else if let Some(note) = &controls.note {
        Line::styled(cut(note, room), Theme::bold())
    } else if !controls.filter.is_empty() {
        let text = format!(
            "filter `{}`: / change  Esc clear  Enter detail",
            controls.filter
        );
        Line::styled(cut(&text, room), Theme::bold())
    } else {
        let keys = [
            "q quit",
            "h help",
            "Tab table",
            "Enter detail",
            "a add",
            "c copy",
            "/ filter",
            "s sort",
            "p pause",
        ];
        Line::styled(fitting(&keys, "  ", room), Theme::dim())
    };
    frame.render_widget(Paragraph::new(line), area);
}
