//! Tables: aligned columns that fit the terminal.

use super::{line::Line, style::Ink};

/// Blanks between columns.
const GAP: usize = 2;
/// The least width of a column that is cut.
const MIN_CUT: usize = 10;
/// The least width of the first column.
const MIN_FIRST: usize = 16;
/// The least width of a column that has several lines.
const MIN_WRAPPED: usize = 20;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    is_number: bool,
    narrow: Option<Narrow>,
}

/// What happens to a cell where the terminal is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Narrow {
    /// Its end is left out.
    Cut,
    /// It has several lines.
    Wrap,
}

impl Column {
    /// A column of texts; `heading` in lower case.
    pub const fn text(heading: &'static str) -> Self {
        Self {
            heading,
            is_number: false,
            narrow: None,
        }
    }

    /// A column of numbers, which are aligned to the right.
    pub const fn number(heading: &'static str) -> Self {
        Self {
            is_number: true,
            ..Self::text(heading)
        }
    }

    /// A column of texts that are cut where the terminal is too narrow.
    pub const fn comment(heading: &'static str) -> Self {
        Self {
            narrow: Some(Narrow::Cut),
            ..Self::text(heading)
        }
    }

    /// A column of texts that have several lines where the terminal is too narrow: the last one.
    pub const fn wrapped(heading: &'static str) -> Self {
        Self {
            narrow: Some(Narrow::Wrap),
            ..Self::text(heading)
        }
    }
}

/// Rows of cells under headings.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Line>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// A table of texts.
    pub fn of(headings: &[&'static str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let mut table = Self::new(headings.iter().map(|heading| Column::text(heading)));
        for row in rows {
            table.row(row);
        }
        table
    }

    /// Adds a row: a cell for each column.
    pub fn row<T: Into<Line>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table without columns that have no text in any row.
    #[must_use]
    pub fn without_empty_columns(self) -> Self {
        let has_text = |column: usize| self.rows.iter().any(|row| !row[column].is_empty());
        let kept: Vec<bool> = (0..self.columns.len()).map(has_text).collect();
        let keep = |column: usize| kept[column];
        let columns = (0..self.columns.len()).filter(|column| keep(*column));
        Self {
            columns: columns.map(|column| self.columns[column]).collect(),
            rows: self
                .rows
                .into_iter()
                .map(|row| {
                    let cells = row.into_iter().enumerate();
                    let cells = cells.filter(|(column, _)| keep(*column));
                    cells.map(|(_, cell)| cell).collect()
                })
                .collect(),
        }
    }

    /// Its lines, none wider than `width`. Where columns that can be cut do not suffice, each row
    /// is a block of lines.
    pub fn lines(&self, width: Option<usize>) -> Vec<Line> {
        let mut widths = self.natural_widths();
        if let Some(width) = width
            && !self.fit(&mut widths, width)
            && !self.fit_first(&mut widths, width)
        {
            return self.blocks(width);
        }
        let headings = self.columns.iter();
        let headings =
            headings.map(|column| Line::inked(Ink::Strong, column.heading.to_uppercase()));
        let mut lines = vec![self.aligned(headings.collect(), &widths)];
        for row in &self.rows {
            self.push_row(row, &widths, &mut lines);
        }
        lines
    }

    fn natural_widths(&self) -> Vec<usize> {
        let columns = self.columns.iter().enumerate();
        let widest = |(number, column): (usize, &Column)| {
            let cells = self.rows.iter().map(|row| row[number].width());
            cells.max().unwrap_or(0).max(column.heading.len())
        };
        columns.map(widest).collect()
    }

    /// Makes columns that can be cut narrower; false if that does not suffice.
    fn fit(&self, widths: &mut [usize], width: usize) -> bool {
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        // The last one first: it is the comment.
        let columns = self.columns.iter().zip(widths.iter_mut()).rev();
        for (column, own) in columns.filter(|(column, _)| column.narrow.is_some()) {
            let least = match column.narrow {
                Some(Narrow::Wrap) => MIN_WRAPPED,
                _ => MIN_CUT,
            };
            let least = least.min(*own);
            let cut = excess.min(*own - least);
            *own -= cut;
            excess -= cut;
        }
        excess == 0
    }

    /// Adds the lines of a row: several where its last cell is wrapped.
    fn push_row(&self, row: &[Line], widths: &[usize], lines: &mut Vec<Line>) {
        let mut first = row.to_vec();
        let mut rest = Vec::new();
        if let (Some(last), Some(Narrow::Wrap), Some(width)) = (
            first.last_mut(),
            self.columns.last().and_then(|column| column.narrow),
            widths.last(),
        ) {
            let mut parts = std::mem::take(last).wrapped(*width, 2).into_iter();
            *last = parts.next().unwrap_or_default();
            rest.extend(parts);
        }
        if let (Some(cell), Some(width)) = (first.first_mut(), widths.first())
            && cell.width() > *width
        {
            lines.push(std::mem::take(cell));
        }
        lines.push(self.aligned(first, widths));
        let before = widths.iter().rev().skip(1);
        let indent = before.map(|width| width + GAP).sum();
        lines.extend(
            rest.into_iter()
                .map(|part| Line::from(" ".repeat(indent)).and_line(part)),
        );
    }

    /// Makes the first column narrower: its long cells get a line of their own. False if that does
    /// not suffice. The columns that can be cut are as narrow as they can be.
    fn fit_first(&self, widths: &mut [usize], width: usize) -> bool {
        let others: usize = widths.iter().skip(1).map(|own| own + GAP).sum();
        let most = width.saturating_sub(others);
        let Some(first) = widths.first_mut() else {
            return true;
        };
        if most < MIN_FIRST {
            return false;
        }
        let cells = self.rows.iter().map(|row| row[0].width());
        let heading = self.columns[0].heading.len();
        let fitting = cells.filter(|own| *own <= most).max();
        *first = fitting.unwrap_or_default().max(heading);
        true
    }

    fn aligned(&self, cells: Vec<Line>, widths: &[usize]) -> Line {
        let mut line = Line::default();
        let cells = cells.into_iter().zip(&self.columns).zip(widths);
        for (number, ((cell, column), width)) in cells.enumerate() {
            let cell = cell.cut(*width);
            let blanks = " ".repeat(width - cell.width());
            if number > 0 {
                line = line.and(" ".repeat(GAP));
            }
            line = match column.is_number {
                true => line.and(blanks).and_line(cell),
                false => line.and_line(cell).and(blanks),
            };
        }
        line
    }

    /// A block for each row: the first cell, and below it the others, each after its heading.
    fn blocks(&self, width: usize) -> Vec<Line> {
        let indent = GAP.min(width / 2);
        let mut lines = Vec::new();
        for row in &self.rows {
            let mut cells = row.iter().zip(&self.columns);
            if let Some((first, _)) = cells.next() {
                lines.extend(first.clone().wrapped(width, indent));
            }
            let mut line = Line::default();
            for (cell, column) in cells.filter(|(cell, _)| !cell.is_empty()) {
                let heading = format!("{} ", column.heading.to_uppercase());
                let pair = Line::inked(Ink::Dim, heading).and_line(cell.clone());
                if !line.is_empty() && line.width() + GAP + pair.width() > width {
                    lines.extend(std::mem::take(&mut line).wrapped(width, 2 * indent));
                }
                line = line.and(" ".repeat(indent)).and_line(pair);
            }
            if !line.is_empty() {
                lines.extend(line.wrapped(width, 2 * indent));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::text("range"),
            Column::number("packets"),
            Column::comment("comment"),
        ]);
        table.row(["198.51.100.0/24", "12,431", "office in Berlin, first floor"]);
        table.row(["203.0.113.7", "0", ""]);
        table
    }

    fn text(lines: &[Line]) -> String {
        let lines: Vec<String> = lines.iter().map(|line| line.text(false)).collect();
        lines.join("\n")
    }

    #[test]
    fn numbers_are_aligned_to_the_right() {
        assert_eq!(
            text(&table().lines(None)),
            "RANGE            PACKETS  COMMENT\n\
             198.51.100.0/24   12,431  office in Berlin, first floor\n\
             203.0.113.7            0"
        );
    }

    #[test]
    fn a_wrapped_cell_has_several_lines() {
        let mut table = Table::new([Column::text("source"), Column::wrapped("why")]);
        table.row([
            "192.0.2.1",
            "in no authorized range, and the mode is monitor",
        ]);
        assert_eq!(
            text(&table.lines(Some(40))),
            "SOURCE     WHY\n\
             192.0.2.1  in no authorized range, and\n             the mode is monitor"
        );
        for width in 1..100 {
            let lines = table.lines(Some(width));
            assert!(lines.iter().all(|line| line.width() <= width), "{width}");
        }
    }

    #[test]
    fn the_comment_is_cut_first_and_then_rows_become_blocks() {
        assert_eq!(
            text(&table().lines(Some(40))),
            "RANGE            PACKETS  COMMENT\n\
             198.51.100.0/24   12,431  office in Ber…\n\
             203.0.113.7            0"
        );
        assert_eq!(
            text(&table().lines(Some(30))),
            "198.51.100.0/24\n  PACKETS 12,431\n  COMMENT office in Berlin,\n    first floor\n\
             203.0.113.7\n  PACKETS 0"
        );
        for width in 1..100 {
            let lines = table().lines(Some(width));
            assert!(lines.iter().all(|line| line.width() <= width), "{width}");
        }
    }

    #[test]
    fn a_long_first_cell_has_a_line_of_its_own() {
        let mut table = table();
        table.row(["2001:db8:1111:2222:3333:4444:5555:6666", "7", "a host"]);
        assert_eq!(
            text(&table.lines(Some(40))),
            "RANGE            PACKETS  COMMENT\n\
             198.51.100.0/24   12,431  office in…\n\
             203.0.113.7            0\n\
             2001:db8:1111:2222:3333:4444:5555:6666\n\
             \x20                      7  a host"
        );
    }
}
