//! The screen, drawn from the model at any size, down to a few cells.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Clear, Dataset, GraphType, Paragraph, Row, Table},
};

use super::{
    keys::{Controls, HELP, Panel},
    model::{Model, SPAN},
    rows::{Cells, Sort, entry_cells, interface_cells, short, source_cells},
};
use crate::ui::visible::is_hidden;

/// The style; it can be without colours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    colours: bool,
}

impl Theme {
    /// Follows `NO_COLOR` (no-color.org: any value but the empty one).
    pub(crate) fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    pub(crate) const fn new(colours: bool) -> Self {
        Self { colours }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn state(self, state: &str) -> Style {
        let colour = match state {
            "enforcing" => Color::Green,
            "monitoring" => Color::Yellow,
            _ => Color::Red,
        };
        self.colour(colour).add_modifier(Modifier::BOLD)
    }
}

/// A column: its header, alignment, sort key, and the least width of a table that shows it.
struct Column(&'static str, Alignment, Option<Sort>, u16);

const L: Alignment = Alignment::Left;
const R: Alignment = Alignment::Right;
const SOURCES: [Column; 7] = [
    Column("source", L, Some(Sort::Name), 0),
    Column("/s", R, Some(Sort::Rate), 0),
    Column("reported", R, Some(Sort::Total), 30),
    Column("last seen", R, Some(Sort::LastSeen), 44),
    Column("reason", L, None, 60),
    Column("to port", R, None, 74),
    Column("interface", L, None, 84),
];
const ENTRIES: [Column; 5] = [
    Column("range", L, Some(Sort::Name), 0),
    Column("/s", R, Some(Sort::Rate), 0),
    Column("packets", R, Some(Sort::Total), 30),
    Column("last seen", R, Some(Sort::LastSeen), 44),
    Column("origin", L, None, 56),
];
const INTERFACES: [Column; 7] = [
    Column("interface", L, None, 0),
    Column("/s", R, Some(Sort::Rate), 0),
    Column("packets", R, Some(Sort::Total), 56),
    Column("verdict", L, None, 30),
    Column("reason", L, None, 44),
    Column("bytes/s", R, None, 66),
    Column("XDP", L, None, 76),
];

/// Draws the whole screen, and stores the size of the table in `controls`.
pub(crate) fn draw(frame: &mut Frame<'_>, live: &Model, controls: &mut Controls, theme: Theme) {
    let frozen = controls.frozen.take();
    let model = frozen.as_deref().unwrap_or(live);
    let area = frame.area();
    let has_charts = area.height >= 18 && area.width >= 50;
    let has_all = has_charts && (area.height >= 36 || area.width >= 140);
    let above = 1 + u16::from(model.provisional.is_some());
    let [head, rates, tables, foot] = Layout::vertical([
        Constraint::Length(above),
        Constraint::Length(if has_charts { 9 } else { 1 }),
        Constraint::Fill(1),
        Constraint::Length(u16::from(area.height >= 8)),
    ])
    .areas(area);

    frame.render_widget(header(model, frozen.is_some(), theme), head);
    if has_charts {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(rates);
        chart(frame, left, model, theme, false);
        chart(frame, right, model, theme, true);
    } else {
        let text = format!("{} | {}", rate_of(model, false), rate_of(model, true));
        frame.render_widget(Paragraph::new(text), rates);
    }
    if has_all {
        let parts = if area.width >= 140 {
            let [above, below] =
                Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(tables);
            let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(above);
            [left, right, below]
        } else {
            Layout::vertical([Constraint::Fill(1); 3]).areas(tables)
        };
        for (panel, part) in Panel::ALL.into_iter().zip(parts) {
            table(frame, part, panel, model, controls, theme);
        }
    } else {
        table(frame, tables, controls.focus, model, controls, theme);
    }
    let keys = "q quit  p pause  s sort  Tab or 1-3 tables  arrows scroll  h help";
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(keys).style(dim), foot);
    if controls.help {
        help(frame);
    }
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

fn header<'a>(model: &'a Model, is_paused: bool, theme: Theme) -> Paragraph<'a> {
    let mut first = Line::default();
    if is_paused {
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        first.push_span(Span::styled("PAUSED", reversed));
        first.push_span(" ");
    }
    first.push_span(Span::styled(&model.headline, theme.state(model.state)));
    let mut lines = vec![first];
    if let Some(provisional) = &model.provisional {
        let loud = theme.colour(Color::Yellow).add_modifier(Modifier::BOLD);
        lines.push(Line::styled(provisional.to_string(), loud));
    }
    Paragraph::new(lines)
}

/// The rate of dropped or passed packets, in words.
fn rate_of(model: &Model, passed: bool) -> String {
    if passed {
        let [all, authorized] = [model.rate(&["pass"]), model.authorized_rate()].map(short);
        return format!("passed {all}/s, {authorized}/s of it authorized");
    }
    let [dropped, would] = ["drop", "would_drop"].map(|verdict| model.rate(&[verdict]));
    if model.state == "monitoring" || would > 0.0 {
        format!(
            "dropped {}/s, would drop {}/s",
            short(dropped),
            short(would)
        )
    } else {
        format!("dropped {}/s", short(dropped))
    }
}

/// The last minutes as a chart, with both axes labelled.
fn chart(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, passed: bool) {
    let now = model.times.last().unwrap_or_default().as_secs_f64();
    let points: Vec<(f64, f64)> = model
        .history
        .iter()
        .map(|point| {
            let rate = if passed { point.passed } else { point.refused };
            (point.at.as_secs_f64() - now, rate)
        })
        .collect();
    let most = points.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let top = ceiling(most);
    let colour = if passed { Color::Green } else { Color::Red };
    let dataset = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(theme.colour(colour))
        .data(&points);
    let span = SPAN.as_secs_f64();
    let chart = Chart::new(vec![dataset])
        .block(Block::bordered().title(rate_of(model, passed)))
        .legend_position(None)
        .x_axis(
            Axis::default()
                .bounds([-span, 0.0])
                .labels(["-5 min", "-2.5 min", "now"]),
        )
        .y_axis(
            Axis::default()
                .bounds([0.0, top])
                .labels([0.0, top / 2.0, top].map(short)),
        );
    frame.render_widget(chart, area);
}

/// The next round number, so that the axis does not move with every packet.
fn ceiling(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 10.0].into_iter();
    let mut rounds = steps.map(|step| step * power);
    rounds.find(|round| *round >= most).unwrap_or(most)
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    panel: Panel,
    model: &Model,
    controls: &mut Controls,
    theme: Theme,
) {
    let sort = controls.sort;
    let (columns, lines): (&[Column], Vec<Cells>) = match panel {
        Panel::Sources => (&SOURCES, source_cells(model, sort)),
        Panel::Entries => (&ENTRIES, entry_cells(model, sort)),
        Panel::Interfaces => (&INTERFACES, interface_cells(model, sort)),
    };
    let is_focused = controls.focus == panel;
    // Small areas have no frame.
    let has_frame = area.height >= 5;
    let room = usize::from(area.height.saturating_sub(if has_frame { 3 } else { 1 }));
    let scroll = &mut controls.scroll[panel as usize];
    *scroll = (*scroll).min(lines.len().saturating_sub(room));
    let first = *scroll;
    if is_focused {
        controls.page = room.max(1);
    }
    let visible: Vec<&Cells> = lines.iter().skip(first).take(room).collect();
    let mut table = aligned(columns, &visible, area.width, sort);
    if has_frame {
        let border = if is_focused {
            theme.colour(Color::Cyan).add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        table = table.block(Block::bordered().border_style(border).title(panel_title(
            panel,
            model,
            lines.len(),
            &(first..first + visible.len()),
        )));
    }
    frame.render_widget(table, area);
}

/// A table of those of `columns` that an area of this width has room for.
fn aligned(columns: &[Column], lines: &[&Cells], width: u16, sort: Sort) -> Table<'static> {
    let shown: Vec<usize> = (0..columns.len())
        .filter(|column| columns[*column].3 <= width)
        .collect();
    let title = |column: &Column| {
        let is_sorted = column.2 == Some(sort);
        format!("{}{}", column.0, if is_sorted { " ▼" } else { "" })
    };
    let widths = shown.iter().map(|column| {
        let cells = lines.iter().map(|cells| cells[*column].len());
        let wide = cells.max().unwrap_or(0);
        Constraint::Length(wide.max(title(&columns[*column]).chars().count()) as u16)
    });
    let place = |column: usize, text: String| Line::from(text).alignment(columns[column].1);
    let rows = lines.iter().map(|cells| {
        let cells = shown.iter().map(|column| (*column, cells[*column].clone()));
        Row::new(cells.map(|(column, text)| place(column, text)))
    });
    let header = shown
        .iter()
        .map(|column| place(*column, title(&columns[*column])));
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(header).column_spacing(2)
}

/// The title of a table, and the number of hidden lines.
fn panel_title(
    panel: Panel,
    model: &Model,
    lines: usize,
    shown: &std::ops::Range<usize>,
) -> String {
    let more = if shown.len() < lines {
        format!(" {}-{} of {lines}", shown.start + 1, shown.end)
    } else {
        String::new()
    };
    match panel {
        Panel::Sources => {
            let note = if model.not_reported > 0 {
                ", sampled"
            } else {
                ""
            };
            format!(
                "1 refused sources{more} ({} reported, {} not reported{note})",
                model.reported, model.not_reported
            )
        }
        Panel::Entries => format!("2 used entries{more}"),
        Panel::Interfaces => format!("3 interfaces{more}"),
    }
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let wide = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, what)| Line::from(format!("{keys:wide$}  {what}")))
        .collect();
    let size = (
        62.min(area.width),
        (lines.len() as u16 + 2).min(area.height),
    );
    let place = Rect {
        x: (area.width - size.0) / 2,
        y: (area.height - size.1) / 2,
        width: size.0,
        height: size.1,
    };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title("apifence top");
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
