//! A table: as many of its columns as its width holds, and the rows around the cursor.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    text::Line,
    widgets::{Block, Row, Table},
};

use super::{
    text::{cut, width},
    theme::Theme,
};
use crate::{
    top::{
        controls::Controls,
        model::Model,
        rows::{Panel, Sort, TableRow},
    },
    ui::number::count,
};

/// A column.
struct Column {
    title: &'static str,
    alignment: Alignment,
    sort: Option<Sort>,
    /// Which columns go first where there is no room; 0 stays.
    rank: u8,
    /// The least width of a column that can be cut.
    least: Option<usize>,
}

const fn column(
    title: &'static str,
    alignment: Alignment,
    sort: Option<Sort>,
    rank: u8,
    least: Option<usize>,
) -> Column {
    Column {
        title,
        alignment,
        sort,
        rank,
        least,
    }
}

const L: Alignment = Alignment::Left;
const R: Alignment = Alignment::Right;
const SOURCES: [Column; 7] = [
    column("SOURCE", L, Some(Sort::Name), 0, Some(15)),
    column("/S", R, Some(Sort::Rate), 1, None),
    column("SEEN", R, Some(Sort::Total), 3, None),
    column("LAST SEEN", R, Some(Sort::LastSeen), 4, None),
    column("REASON", L, None, 2, None),
    column("TO PORT", R, None, 5, None),
    column("INTERFACE", L, None, 6, None),
];
const ENTRIES: [Column; 6] = [
    column("RANGE", L, Some(Sort::Name), 0, Some(15)),
    column("/S", R, Some(Sort::Rate), 1, None),
    column("PACKETS", R, Some(Sort::Total), 3, None),
    column("LAST SEEN", R, Some(Sort::LastSeen), 4, None),
    column("LIST", L, None, 5, None),
    column("COMMENT", L, None, 2, Some(10)),
];
const INTERFACES: [Column; 7] = [
    column("INTERFACE", L, None, 0, Some(10)),
    column("/S", R, Some(Sort::Rate), 1, None),
    column("PACKETS", R, Some(Sort::Total), 4, None),
    column("VERDICT", L, None, 2, None),
    column("REASON", L, None, 3, None),
    column("BYTES/S", R, None, 5, None),
    column("XDP", L, None, 6, None),
];
/// The columns between two columns.
const GAP: usize = 2;

const fn columns(panel: Panel) -> &'static [Column] {
    match panel {
        Panel::Sources => &SOURCES,
        Panel::Entries => &ENTRIES,
        Panel::Interfaces => &INTERFACES,
    }
}

/// Draws the table of `panel` with these `rows`, and scrolls it to the cursor.
pub(super) fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    (panel, rows): (Panel, &[TableRow]),
    model: &Model,
    controls: &mut Controls,
    theme: Theme,
) {
    let is_focused = controls.focus == panel;
    // Small areas have no frame.
    let has_frame = area.height >= 5;
    let around = if has_frame { 2 } else { 0 };
    let room = usize::from(area.height.saturating_sub(around + 1));
    if is_focused {
        controls.page = room.max(1);
    }
    let cursor = &mut controls.cursors[panel as usize];
    let chosen = cursor.scroll(rows, room.max(1));
    let first = cursor.offset;
    let visible: Vec<&TableRow> = rows.iter().skip(first).take(room).collect();
    let columns_wide = usize::from(area.width.saturating_sub(around));
    let chosen = chosen.filter(|_| is_focused).map(|place| place - first);
    let mut table = aligned(panel, &visible, columns_wide, controls.sort, chosen);
    if has_frame {
        let title = title(panel, model, rows.len(), &controls.filter);
        let more = match visible.len() < rows.len() {
            true => format!("{}-{} of {}", first + 1, first + visible.len(), rows.len()),
            false => String::new(),
        };
        let block = Block::bordered()
            .border_style(theme.frame(is_focused))
            .title(cut(&title, columns_wide))
            .title_bottom(Line::from(more).right_aligned());
        table = table.block(block);
    }
    frame.render_widget(table, area);
}

/// The columns that fit, with their cells in line.
fn aligned(
    panel: Panel,
    rows: &[&TableRow],
    room: usize,
    sort: Sort,
    chosen: Option<usize>,
) -> Table<'static> {
    let columns = columns(panel);
    let title = |column: &Column| match column.sort == Some(sort) {
        true => format!("{} ▼", column.title),
        false => column.title.to_owned(),
    };
    let natural = (0..columns.len()).map(|index| {
        let cells = rows.iter().map(|row| width(&row.cells[index]));
        let wide = cells.max().unwrap_or(0);
        wide.max(width(&title(&columns[index])))
    });
    let widths = fit(columns, &natural.collect::<Vec<_>>(), room);
    let place = |index: usize, wide: usize, text: &str| {
        Line::from(cut(text, wide)).alignment(columns[index].alignment)
    };
    let lines = rows.iter().enumerate().map(|(number, row)| {
        let cells = widths.iter();
        let cells = cells.map(|(index, wide)| place(*index, *wide, &row.cells[*index]));
        match Some(number) == chosen {
            true => Row::new(cells).style(Theme::reversed()),
            false => Row::new(cells),
        }
    });
    let header = widths.iter();
    let header = header.map(|(index, wide)| place(*index, *wide, &title(&columns[*index])));
    let header = Row::new(header).style(Theme::bold());
    let wide = widths
        .iter()
        .map(|(_, wide)| Constraint::Length(*wide as u16));
    Table::new(lines, wide)
        .header(header)
        .column_spacing(GAP as u16)
}

/// The columns that fit into `room`, by rank, each with its width.
fn fit(columns: &[Column], natural: &[usize], room: usize) -> Vec<(usize, usize)> {
    let mut ranked: Vec<usize> = (0..columns.len()).collect();
    ranked.sort_by_key(|index| columns[*index].rank);
    let mut shown: Vec<(usize, usize)> = Vec::new();
    let mut taken = 0;
    for index in ranked {
        let least = columns[index].least.unwrap_or(natural[index]);
        let wide = least.min(natural[index]);
        match shown.is_empty() {
            true => {
                taken = wide.min(room);
                shown.push((index, taken));
            }
            false if taken + GAP + wide <= room => {
                taken += GAP + wide;
                shown.push((index, wide));
            }
            false => break,
        }
    }
    // The rest goes to the columns that were cut, the most important one first.
    let mut rest = room - taken;
    for (index, wide) in &mut shown {
        let more = rest.min(natural[*index] - (*wide).min(natural[*index]));
        *wide += more;
        rest -= more;
    }
    shown.sort_unstable();
    shown
}

/// The names of the tables, where only the one in front is shown.
pub(super) const TABS: [&str; 3] = ["1 sources", "2 entries", "3 interfaces"];

/// The title of a table.
fn title(panel: Panel, model: &Model, rows: usize, filter: &str) -> String {
    let filtered = match filter {
        "" => String::new(),
        filter => format!(", {rows} with `{filter}`"),
    };
    match panel {
        Panel::Sources => {
            let sources = &model.sources;
            let sampled = match sources.not_reported {
                0 => String::new(),
                more => format!(", sampled: {} more not shown", count(more)),
            };
            format!(
                "1 refused sources: {} seen{sampled}{filtered}",
                count(sources.reported)
            )
        }
        Panel::Entries => format!("2 used entries{filtered}"),
        Panel::Interfaces => format!("3 interfaces{filtered}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_into_any_room() {
        for panel in Panel::ALL {
            let columns = columns(panel);
            for natural in [3, 9, 39, 200] {
                let natural = vec![natural; columns.len()];
                for room in 0..260 {
                    let shown = fit(columns, &natural, room);
                    let wide = shown.iter().map(|(_, wide)| wide).sum::<usize>();
                    assert!(wide + GAP * (shown.len() - 1) <= room, "{room}: {shown:?}");
                    assert_eq!(shown[0].0, 0, "the name is always there");
                }
            }
        }
    }

    #[test]
    fn a_long_comment_leaves_room_for_the_counts() {
        let natural = [18, 5, 9, 10, 7, 120];
        let shown = fit(&ENTRIES, &natural, 78);
        let wide: usize = shown.iter().map(|(_, wide)| wide).sum();
        assert_eq!(shown.len(), ENTRIES.len());
        assert_eq!(wide + GAP * (shown.len() - 1), 78);
    }
}
