//! What lies over the tables: the help, details, and the form.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    text::{cut, tail, width, wrap},
    theme::Theme,
};
use crate::{
    top::{
        controls::{Controls, HELP, Popup},
        detail::detail,
        form::{Form, Stage},
        model::Model,
        rows::RowKey,
    },
    ui::visible::visible_in_line,
};

/// The widest popup.
const MOST: u16 = 100;

/// The content of a popup.
struct Content {
    title: String,
    lines: Vec<Line<'static>>,
    /// The keys that work in it.
    keys: &'static str,
}

/// Draws the popup, if there is one.
pub(super) fn popup(frame: &mut Frame<'_>, model: &Model, controls: &mut Controls, theme: Theme) {
    let Some(popup) = &controls.popup else { return };
    let area = frame.area();
    let columns = usize::from(area.width.min(MOST).saturating_sub(4));
    let content = match popup {
        Popup::Help => help(),
        Popup::Detail(key) => {
            let (title, facts) = detail(model, key)
                .unwrap_or_else(|| ("gone".to_owned(), vec![("", "it is not shown any more".to_owned())]));
            Content {
                title,
                lines: facts_in_line(&facts, columns),
                keys: match key {
                    RowKey::Source(Some(_)) => "a add  c copy  Esc close",
                    _ => "Esc close",
                },
            }
        }
        Popup::Command(command) => Content {
            title: "copied".to_owned(),
            lines: in_lines(
                &[
                    command.clone(),
                    String::new(),
                    "The clipboard has it if the terminal allows that (OSC 52). It is printed again at the end.".to_owned(),
                ],
                columns,
            ),
            keys: "any key closes it",
        },
        Popup::Form(form) => self::form(form, columns, theme),
    };
    draw(frame, content, &mut controls.popup_scroll, theme);
}

/// Draws the content in the middle, scrolled.
fn draw(frame: &mut Frame<'_>, content: Content, scroll: &mut usize, theme: Theme) {
    let area = frame.area();
    let longest = content.lines.iter().map(Line::width).max().unwrap_or(0);
    let wide = longest
        .max(content.keys.len() + 2)
        .max(width(&content.title) + 2);
    let size = (
        (wide as u16 + 4).min(area.width).min(MOST),
        (content.lines.len() as u16 + 2).min(area.height),
    );
    let place = Rect {
        x: (area.width - size.0) / 2,
        y: (area.height - size.1) / 2,
        width: size.0,
        height: size.1,
    };
    let room = usize::from(size.1.saturating_sub(2));
    *scroll = (*scroll).min(content.lines.len().saturating_sub(room));
    let inside = usize::from(size.0.saturating_sub(2));
    let more = match content.lines.len() {
        all if all > room => format!("lines {}-{} of {all}", *scroll + 1, *scroll + room),
        _ => String::new(),
    };
    let block = Block::bordered()
        .border_style(theme.frame(true))
        .title(cut(&content.title, inside))
        .title(Line::from(more).right_aligned())
        .title_bottom(cut(content.keys, inside));
    let lines = content.lines.into_iter().skip(*scroll).take(room);
    let padded = lines.map(|mut line| {
        line.spans.insert(0, Span::raw(" "));
        line
    });
    let paragraph = Paragraph::new(padded.collect::<Vec<_>>()).block(block);
    frame.render_widget(Clear, place);
    frame.render_widget(paragraph, place);
}

fn help() -> Content {
    let wide = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let lines = HELP.iter();
    let lines = lines.map(|(keys, what)| Line::from(format!("{keys:wide$}  {what}")));
    Content {
        title: "apifence top".to_owned(),
        lines: lines.collect(),
        keys: "",
    }
}

/// Labels at the left, values at the right, wrapped.
fn facts_in_line(facts: &[(&str, String)], columns: usize) -> Vec<Line<'static>> {
    let wide = facts
        .iter()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    let room = columns.saturating_sub(wide + 2);
    let lines = facts.iter().flat_map(|(label, value)| {
        let values = wrap(value, room).into_iter().enumerate();
        values.map(move |(number, value)| {
            let label = if number == 0 { *label } else { "" };
            let label = format!("{label:wide$}  ");
            Line::from(vec![Span::styled(label, Theme::dim()), Span::raw(value)])
        })
    });
    lines.collect()
}

fn in_lines(texts: &[String], columns: usize) -> Vec<Line<'static>> {
    let wrapped = texts.iter().flat_map(|text| wrap(text, columns));
    wrapped.map(Line::from).collect()
}

fn form(form: &Form, columns: usize, theme: Theme) -> Content {
    let is_asking = form.stage == Stage::Asking;
    let wide = 9;
    let answers = Form::FIELDS.into_iter().zip(form.answers()).enumerate();
    let mut lines: Vec<Line<'static>> = answers
        .map(|(number, (name, answer))| {
            let is_here = is_asking && number == form.field;
            let shown = visible_in_line(answer);
            // The end of an answer is where it is typed.
            let shown = tail(&shown, columns.saturating_sub(wide + 1));
            let mut line = Line::from(format!("{name:wide$}"));
            line.push_span(Span::styled(
                shown,
                if is_here { Theme::bold() } else { Style::new() },
            ));
            if is_here {
                line.push_span(Span::styled(" ", Theme::reversed()));
            }
            line
        })
        .collect();
    if is_asking {
        lines.push(Line::styled(
            cut("no expiry: the entry stays until it is removed", columns),
            Theme::dim(),
        ));
    }
    let report = form.report().iter().flat_map(|text| {
        let style = style_of(text, theme);
        let wrapped = wrap(&visible_in_line(text), columns).into_iter();
        wrapped.map(move |line| Line::styled(line, style))
    });
    let report: Vec<Line<'static>> = report.collect();
    if !report.is_empty() {
        lines.push(Line::default());
        lines.extend(report);
    }
    let title = match form.stage {
        Stage::Asking => "add to a list",
        Stage::Checking => "add to a list: checking",
        Stage::Ready(_) => "add to a list: nothing changed yet",
        Stage::Making => "add to a list: changing",
        Stage::Done(_) => "added",
        Stage::Failed(_) => "not added",
    };
    Content {
        title: title.to_owned(),
        lines,
        keys: form.keys(),
    }
}

/// The style of a line of a report, by its first letter or word.
fn style_of(line: &str, theme: Theme) -> Style {
    match line.chars().next() {
        Some('+') => return theme.colour(Color::Green),
        Some('-') => return theme.colour(Color::Red),
        Some('~') => return theme.colour(Color::Yellow),
        _ => {}
    }
    match line.split([':', ' ']).next() {
        Some("error" | "refused") => theme.loud(Color::Red),
        Some("warning") => theme.loud(Color::Yellow),
        Some("hint") => theme.colour(Color::Cyan),
        _ => Style::new(),
    }
}
