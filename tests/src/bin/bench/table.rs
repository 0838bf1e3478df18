//! Tables of measurements: printed as text or markdown, saved as JSON.

use serde_json::{Value, json};

/// Measurements of one quantity.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) runs: usize,
}

impl Cell {
    /// From measurements in any order; there must be at least one.
    pub(crate) fn from_numbers(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        Self {
            median: crate::numbers::median(&numbers),
            least: numbers[0],
            most: numbers[numbers.len() - 1],
            runs: numbers.len(),
        }
    }
}

/// A column: its title and its number of decimals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column(pub(crate) &'static str, pub(crate) usize);

/// A table; the first cell of a row is its name.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
    /// A cell is empty if there is no measurement.
    pub(crate) rows: Vec<(String, Vec<Option<Cell>>)>,
    /// Observations that are not numbers.
    pub(crate) notes: Vec<String>,
}

impl Table {
    /// Prints it: `median (least to most)`.
    pub(crate) fn print(&self, markdown: bool) {
        let mut lines = vec![
            std::iter::once(String::new())
                .chain(self.columns.iter().map(|column| column.0.to_owned()))
                .collect::<Vec<_>>(),
        ];
        for (name, cells) in &self.rows {
            let texts = self.columns.iter().zip(cells).map(|(column, cell)| {
                let Some(cell) = cell else {
                    return String::new();
                };
                let [median, least, most] = [cell.median, cell.least, cell.most]
                    .map(|number| format!("{number:.*}", column.1));
                if cell.runs == 1 {
                    median
                } else {
                    format!("{median} ({least} to {most})")
                }
            });
            lines.push(std::iter::once(name.clone()).chain(texts).collect());
        }
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|column| {
                let width = |line: &Vec<String>| line[column].chars().count();
                lines.iter().map(width).max().unwrap_or(0)
            })
            .collect();
        if markdown {
            println!("**{}**\n", self.title);
        } else {
            println!("{}\n", self.title);
        }
        for (number, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                text += &match (markdown, column) {
                    (true, 0) => format!("| {cell} |"),
                    (true, _) => format!(" {cell} |"),
                    (false, 0) => format!("{cell:<width$}"),
                    (false, _) => format!("{gap}{cell:>width$}"),
                };
            }
            println!("{text}");
            if markdown && number == 0 {
                println!("|---|{}", "---:|".repeat(widths.len() - 1));
            }
        }
        println!();
        for note in &self.notes {
            let bullet = if markdown { "- " } else { "" };
            println!("{bullet}{note}");
        }
        if !self.notes.is_empty() {
            println!();
        }
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        let columns: Vec<_> = self.columns.iter().map(|column| column.0).collect();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|(name, cells)| {
                let values: Vec<_> = cells
                    .iter()
                    .map(|cell| {
                        cell.as_ref().map(|cell| {
                            json!({
                                "median": cell.median, "least": cell.least, "most": cell.most,
                                "runs": cell.runs,
                            })
                        })
                    })
                    .collect();
                json!({ "name": name, "values": values })
            })
            .collect();
        json!({ "title": self.title, "columns": columns, "rows": rows, "notes": self.notes })
    }
}
