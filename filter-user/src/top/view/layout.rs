//! The places of the parts: panes get lines by need, the focused one more; a small screen has one.

use ratatui::layout::{Constraint, Layout, Rect};

use crate::top::rows::Panel;

/// The places of all parts.
pub(super) struct Places {
    pub(super) head: Rect,
    /// The charts, or one line of rates.
    pub(super) rates: Rect,
    pub(super) has_charts: bool,
    /// The names of the tables, where only one is shown.
    pub(super) tabs: Option<Rect>,
    pub(super) panes: Vec<(Panel, Rect)>,
    pub(super) foot: Rect,
}

/// Lines of a pane besides its rows: the frame and the header.
const AROUND: u16 = 3;
/// The fewest lines of a pane.
const LEAST: u16 = AROUND + 2;
/// From this width on, sources and entries are side by side.
const WIDE: u16 = 140;

impl Places {
    /// The places in `area`, with `head` lines at the top and this many `rows` in each table.
    pub(super) fn new(area: Rect, head: u16, rows: [usize; 3], focus: Panel) -> Self {
        let has_charts = area.height >= 18 && area.width >= 50;
        let rates = match has_charts {
            true if area.height >= 24 => 9,
            true => 7,
            false => 1,
        };
        let foot = u16::from(area.height >= 8);
        let room = area.height.saturating_sub(head + rates + foot);
        let is_wide = area.width >= WIDE;
        let least = if is_wide { 2 * LEAST } else { 3 * LEAST };
        let has_all = has_charts && room >= least;
        let tabs = u16::from(!has_all && area.height >= 9);
        let [head, rates, tabs_area, tables, foot] = Layout::vertical([
            Constraint::Length(head),
            Constraint::Length(rates),
            Constraint::Length(tabs),
            Constraint::Fill(1),
            Constraint::Length(foot),
        ])
        .areas(area);
        let panes = match has_all {
            true => panes(tables, rows, focus, is_wide),
            false => vec![(focus, tables)],
        };
        Self {
            head,
            rates,
            has_charts,
            tabs: (tabs > 0).then_some(tabs_area),
            panes,
            foot,
        }
    }
}

/// The places of all panes.
fn panes(area: Rect, rows: [usize; 3], focus: Panel, is_wide: bool) -> Vec<(Panel, Rect)> {
    let needs = rows.map(|rows| {
        u16::try_from(rows)
            .unwrap_or(u16::MAX)
            .saturating_add(AROUND)
    });
    let split = |needs: &[u16], focused: usize| {
        let lines = divide(area.height, needs, focused);
        Layout::vertical(lines.into_iter().map(Constraint::Length)).split(area)
    };
    if !is_wide {
        let parts = split(&needs, focus as usize);
        return Panel::ALL.into_iter().zip(parts.iter().copied()).collect();
    }
    let [sources, entries, interfaces] = needs;
    let is_below = usize::from(focus == Panel::Interfaces);
    let parts = split(&[sources.max(entries), interfaces], is_below);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(parts[0]);
    let parts = [left, right, parts[1]];
    Panel::ALL.into_iter().zip(parts).collect()
}

/// Divides `room` lines among panes with these `needs`. The focused one counts twice, and gets what
/// no other needs.
fn divide(room: u16, needs: &[u16], focused: usize) -> Vec<u16> {
    let weight = |pane: usize| if pane == focused { 2 } else { 1 };
    let mut lines = vec![LEAST; needs.len()];
    let taken = LEAST * needs.len() as u16;
    for _ in taken..room {
        let wants = (0..needs.len()).filter(|pane| lines[*pane] < needs[*pane]);
        let next = wants.min_by_key(|pane| u32::from(lines[*pane]) * 2 / weight(*pane));
        lines[next.unwrap_or(focused)] += 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_where_they_are_needed() {
        assert_eq!(divide(15, &[50, 50, 50], 0), [5, 5, 5]);
        assert_eq!(divide(40, &[50, 50, 50], 0), [20, 10, 10]);
        assert_eq!(divide(40, &[100, 4, 8], 1), [27, 5, 8], "others need less");
        assert_eq!(divide(40, &[6, 4, 8], 2), [6, 5, 29], "no other needs it");
        for room in 15..80 {
            let lines = divide(room, &[30, 4, 12], 1);
            assert_eq!(lines.iter().sum::<u16>(), room);
        }
    }
}
