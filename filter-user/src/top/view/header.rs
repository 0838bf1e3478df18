//! The first lines: the state, the node, the time, and a change on trial.

use ratatui::{
    style::Color,
    text::{Line, Span},
};

use super::{
    text::{cut, width},
    theme::Theme,
};
use crate::{
    top::model::Model,
    ui::{number::plural, visible::visible_in_line},
    view::policy::Provisional,
};

/// The lines, at most `most` of them.
pub(super) fn lines(
    model: &Model,
    is_paused: bool,
    columns: usize,
    most: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut lines = vec![first(model, is_paused, columns, theme)];
    if let Some(trial) = &model.provisional {
        let loud = theme.loud(Color::Yellow);
        let trial = trial_lines(trial, columns);
        lines.extend(trial.into_iter().map(|line| Line::styled(line, loud)));
    }
    lines.truncate(most.max(1));
    lines
}

/// The state and its meaning at the left; node, list and time at the right, as far as they fit.
fn first(model: &Model, is_paused: bool, columns: usize, theme: Theme) -> Line<'static> {
    let mut line = Line::default();
    if is_paused {
        line.push_span(Span::styled("PAUSED", Theme::reversed()));
        line.push_span(" ");
    }
    let room = columns.saturating_sub(line.width());
    if let Some(failure) = &model.failure {
        let text = format!("{}: {}", model.state, visible_in_line(failure));
        line.push_span(Span::styled(cut(&text, room), theme.state(model.state)));
        return line;
    }
    line.push_span(Span::styled(model.state, theme.state(model.state)));
    let room = room.saturating_sub(width(model.state));
    let right = right(model, room.saturating_sub(2));
    let room = room.saturating_sub(width(&right) + 2);
    let meanings = meanings(model);
    let fits = |text: &&String| width(text) + 2 <= room;
    let meaning = meanings.iter().find(fits).cloned().unwrap_or_default();
    let left = match meaning.is_empty() {
        true => String::new(),
        false => format!(": {meaning}"),
    };
    let gap = (room + 2).saturating_sub(width(&left));
    line.push_span(left);
    line.push_span(" ".repeat(gap));
    line.push_span(right);
    line
}

/// The node, the size of the list and the time, as many of them as `room` holds.
fn right(model: &Model, room: usize) -> String {
    let size = model.list_size.map(|size| plural(size, "range"));
    let clock = model.time.strftime("%H:%M:%SZ").to_string();
    let host = cut(&visible_in_line(&model.host), 32);
    let all = [Some(host), size, Some(clock)];
    // The clock goes first, then the size.
    let kept = (1..=all.len()).rev().map(|count| {
        let parts = all[..count].iter().flatten();
        let parts: Vec<&str> = parts.map(String::as_str).collect();
        parts.join("  ")
    });
    let mut kept = kept.filter(|text| width(text) <= room);
    kept.next().unwrap_or_default()
}

/// What the state means for packets from unlisted sources, the longest text first.
fn meanings(model: &Model) -> Vec<String> {
    let ports = format!("TCP {}", model.ports);
    match model.state {
        "enforcing" => vec![format!("{ports}: unlisted sources are dropped"), ports],
        "monitoring" => vec![
            format!("{ports}: unlisted sources are counted, nothing is dropped"),
            format!("{ports}: nothing is dropped"),
            "nothing is dropped".to_owned(),
        ],
        "off" => vec![
            "enforcement is switched off, all sources pass".to_owned(),
            "all sources pass".to_owned(),
        ],
        _ => vec![
            "no filter is attached, all sources pass".to_owned(),
            "all sources pass".to_owned(),
        ],
    }
}

/// The change on trial: when it reverts, and the two commands that decide.
fn trial_lines(trial: &Provisional, columns: usize) -> Vec<String> {
    let parts = [
        format!("trial: reverts in {} s", trial.seconds_left),
        "keep: apifence confirm".to_owned(),
        "undo: apifence ranges rollback".to_owned(),
    ];
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(last) if width(last) + 2 + width(&part) <= columns => {
                last.push_str("  ");
                last.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}
