//! What a command shows people: lines and tables that fit the terminal.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use jiff::Timestamp;

use super::{line::Line, style, table::Table, when::when};

/// A result that people read as a page.
pub trait Screen {
    /// Writes it on `page`.
    fn show(&self, page: &mut Page);

    /// Its rows for a spreadsheet, if it has some.
    fn records(&self) -> Option<Records> {
        None
    }
}

/// Rows of plain values under the names of their columns.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The names.
    pub names: &'static [&'static str],
    /// The values.
    pub rows: Vec<Vec<String>>,
}

/// The lines of a screen.
#[derive(Debug)]
pub struct Page {
    lines: Vec<Line>,
    /// The width of the terminal; none if the reader is not one.
    width: Option<usize>,
    /// The time that others are relative to.
    pub now: Timestamp,
    /// Whether columns are shown that are mostly not needed.
    pub is_wide: bool,
}

impl Page {
    /// A page for stdout.
    pub fn for_stdout(is_wide: bool) -> Self {
        Self::new(width_of_stdout(), is_wide)
    }

    /// A page of the width `width`, or of any.
    pub fn new(width: Option<usize>, is_wide: bool) -> Self {
        Self {
            lines: Vec::new(),
            width,
            now: Timestamp::now(),
            is_wide,
        }
    }

    /// Adds a line, broken between words.
    pub fn line(&mut self, line: impl Into<Line>) {
        self.indented(line, 2);
    }

    /// Adds a line whose further parts begin with `indent` blanks.
    pub fn indented(&mut self, line: impl Into<Line>, indent: usize) {
        match self.width {
            Some(width) => self.lines.extend(line.into().wrapped(width, indent)),
            None => self.lines.push(line.into()),
        }
    }

    /// Adds a table.
    pub fn table(&mut self, table: &Table) {
        self.lines.extend(table.lines(self.width));
    }

    /// Whether the reader is a terminal.
    pub const fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// A time relative to now, or in UTC.
    pub fn when(&self, time: Timestamp) -> String {
        when(time, self.now)
    }

    /// Its text; `colours` adds the codes of a terminal.
    pub fn text(&self, colours: bool) -> String {
        let lines = self.lines.iter().map(|line| line.text(colours));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Its text for stdout.
    pub fn text_for_stdout(&self) -> String {
        self.text(style::on_stdout())
    }
}

/// The width of the terminal that stdout is; none if it is not one.
pub fn width_of_stdout() -> Option<usize> {
    width_of(&io::stdout())
}

/// A message with its lines broken to fit the terminal that stderr is.
pub fn fitted_for_stderr(text: String) -> String {
    let Some(width) = width_of(&io::stderr()) else {
        return text;
    };
    if text.lines().all(|line| line.chars().count() < width / 2) {
        return text;
    }
    let lines = text
        .lines()
        .flat_map(|line| Line::from(line).wrapped(width, 2));
    let lines = lines.map(|line| line.text(false));
    let fitted = lines.collect::<Vec<_>>().join("\n");
    match text.ends_with('\n') {
        true => fitted + "\n",
        false => fitted,
    }
}

fn width_of<S: IsTerminal + AsFd>(stream: &S) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let (width, _) = terminal_size::terminal_size_of(stream)?;
    Some(usize::from(width.0)).filter(|width| *width > 0)
}
