//! The ranges file: one entry a line, `CIDR [expires=TIME] [# comment]`. Blank lines and comment
//! lines are the user's and stay. Instead of entries, a line may say that there are none: `empty`
//! (or `0.0.0.0/32`), and in the list `default` `disabled`.

#[cfg(test)]
mod tests;

use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    Entry, InputError, List, NO_SOURCE,
    expiry::parse_until,
    fault::{Fault, Faults, ends_a_line, split},
    meant::hidden,
    parse::{only_implicit_with_others, read_range},
    shape::detect_format,
};

/// The word that switches enforcement off, on a line of its own.
const OFF: &str = "disabled";

/// The word for a list without entries, on a line of its own.
const EMPTY: &str = "empty";

/// The text before an entry's expiry.
const EXPIRES: &str = "expires=";

/// A ranges file as text that can be edited without losing a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangesFile {
    lines: Vec<Line>,
}

/// A change to a range that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The range, its host bits zero.
    pub range: IpNet,
    /// The new expiry, or none; `None` keeps the old one.
    pub expires: Option<Option<Timestamp>>,
    /// The new comment, or none; `None` keeps the old one.
    pub comment: Option<Option<String>>,
}

impl Edit {
    /// The entry if the range is new.
    fn entry(self) -> Entry {
        Entry {
            range: self.range,
            expires: self.expires.flatten(),
            comment: self.comment.flatten(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// Blank, or a comment; kept unchanged.
    Text(String),
    Entry {
        /// The original text, until the entry is changed.
        text: String,
        entry: Entry,
    },
    NoSource(String),
    Off(String),
}

impl Line {
    fn entry(entry: Entry) -> Self {
        let mut text = entry.range.to_string();
        if let Some(time) = entry.expires {
            text.push_str(&format!(" {EXPIRES}{time}"));
        }
        if let Some(comment) = &entry.comment {
            text.push_str(&format!(" # {comment}"));
        }
        Self::Entry { text, entry }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text)
            | Self::Entry { text, .. }
            | Self::NoSource(text)
            | Self::Off(text) => text,
        }
    }
}

/// The byte order mark that some editors put before UTF-8 text.
const BOM: char = '\u{feff}';

impl RangesFile {
    /// A file without entries, on purpose.
    pub fn empty() -> Self {
        Self {
            lines: vec![Line::NoSource(EMPTY.to_owned())],
        }
    }

    /// A file that holds `list`.
    pub fn new(list: &List) -> Self {
        let lines = match list {
            List::Off => vec![Line::Off(OFF.to_owned())],
            List::Ranges(entries) if entries.is_empty() => {
                vec![Line::NoSource(NO_SOURCE.to_owned())]
            }
            List::Ranges(entries) => entries.iter().cloned().map(Line::entry).collect(),
        };
        Self { lines }
    }

    /// Parses a file's `text`. A byte order mark at its beginning is accepted, and not written
    /// back.
    ///
    /// # Errors
    /// The faults. A file without an entry is refused: an empty file must never open the port.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let mut lines = Vec::new();
        let mut faults = Faults::default();
        let mut ranges = 0_usize;
        let mut switches = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            match parse_line(line) {
                Ok(line) => {
                    match &line {
                        Line::Text(_) => {}
                        Line::Entry { .. } => ranges += 1,
                        Line::NoSource(_) | Line::Off(_) => switches.push((number, line.clone())),
                    }
                    if !faults.is_empty() {
                        // Only the last line of a refused file is needed below.
                        lines.clear();
                    }
                    lines.push(line);
                }
                Err(fault) => faults.push(number, || fault.explain(line)),
            }
        }
        if !faults.is_empty()
            && let Some(refusal) = detect_format(text)
        {
            return Err(Faults {
                first: vec![(0, refusal)],
                more: 0,
            });
        }
        if let Some(fault) = cut_last_line(text, lines.last()) {
            faults.push_always(text.lines().count(), fault);
        }
        if let Some((number, fault)) = misplaced_switch(&switches, ranges > 0) {
            faults.push_always(number, fault);
        }
        if faults.is_empty() && ranges + switches.len() == 0 {
            faults.push_always(
                0,
                InputError::new(
                    "the file has no range",
                    format!("write a range; or `{NO_SOURCE}` to allow only the implicit sources; or the word `{OFF}` to switch enforcement off"),
                ),
            );
        }
        if faults.is_empty() {
            Ok(Self { lines })
        } else {
            Err(faults)
        }
    }

    /// The list in the file's order, which is nearly sorted in most files.
    pub fn list(&self) -> List {
        if self.is_off() {
            List::Off
        } else {
            let mut entries: Vec<Entry> = self.entries().cloned().collect();
            entries.sort_by_key(|entry| (entry.range, entry.expires));
            List::Ranges(entries)
        }
    }

    /// Whether it is the off switch.
    pub fn is_off(&self) -> bool {
        self.lines.iter().any(|line| matches!(line, Line::Off(_)))
    }

    /// Whether `text` equals this file; a different text need not be parsed.
    pub fn is(&self, text: &str) -> bool {
        let lines = text.strip_prefix(BOM).unwrap_or(text).lines();
        let lines = lines.map(str::trim_end);
        lines.eq(self.lines.iter().map(Line::text)) && Self::parse(text).as_ref() == Ok(self)
    }

    /// The number of entries, repetitions included.
    pub fn entry_count(&self) -> usize {
        self.entries().count()
    }

    /// The entries in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| match line {
            Line::Entry { entry, .. } => Some(entry),
            _ => None,
        })
    }

    /// Authorizes the ranges of `edits` at `now`: at the end of the file, or in their present
    /// lines. There an edit replaces the fields that it names, and a past expiry is removed, since
    /// adding means to authorize.
    ///
    /// The off switch or `0.0.0.0/32` is removed with the first range.
    pub fn add(&mut self, edits: impl IntoIterator<Item = Edit>, now: Timestamp) {
        for edit in edits {
            self.lines
                .retain(|line| !matches!(line, Line::NoSource(_) | Line::Off(_)));
            let is_of = |line: &Line| matches!(line, Line::Entry { entry, .. } if entry.range == edit.range);
            let listed = self.entries().filter(|entry| entry.range == edit.range);
            // Of several lines the one with the latest expiry counts.
            let old = listed.max_by_key(|entry| entry.expires.unwrap_or(Timestamp::MAX));
            let Some(old) = old.cloned() else {
                self.lines.push(Line::entry(edit.entry()));
                continue;
            };
            let lives = old.expires.filter(|time| now < *time);
            let new = Entry {
                range: edit.range,
                expires: edit.expires.unwrap_or(lives),
                comment: edit.comment.unwrap_or_else(|| old.comment.clone()),
            };
            if new == old {
                continue;
            }
            let first = self.lines.iter().position(is_of);
            let mut index = 0..;
            self.lines
                .retain(|line| index.next() == first || !is_of(line));
            if let Some(line) = first.and_then(|first| self.lines.get_mut(first)) {
                *line = Line::entry(new);
            }
        }
    }

    /// Removes the entries that have expired at `now`. If none would be left, the file authorizes
    /// only implicit sources.
    pub fn prune(&mut self, now: Timestamp) {
        let expired = |entry: &Entry| entry.expires.is_some_and(|time| time <= now);
        self.lines
            .retain(|line| !matches!(line, Line::Entry { entry, .. } if expired(entry)));
        let is_switch = |line: &Line| matches!(line, Line::NoSource(_) | Line::Off(_));
        if self.entries().next().is_none() && !self.lines.iter().any(is_switch) {
            self.lines.push(Line::NoSource(NO_SOURCE.to_owned()));
        }
    }

    /// Says that there is no entry on purpose, if there is none.
    pub fn mark_empty(&mut self) {
        let is_text = |line: &Line| matches!(line, Line::Text(_));
        if self.lines.iter().all(is_text) {
            self.lines.push(Line::NoSource(EMPTY.to_owned()));
        }
    }

    /// Removes the entries with exactly this range; false without one.
    pub fn remove(&mut self, range: IpNet) -> bool {
        let before = self.lines.len();
        self.lines
            .retain(|line| !matches!(line, Line::Entry { entry, .. } if entry.range == range));
        self.lines.len() < before
    }
}

impl fmt::Display for RangesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{}", line.text())?;
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Result<Line, Fault> {
    let text = line.trim_end().to_owned();
    let (words, comment) = split(line);
    if comment.is_some_and(|comment| comment.contains(ends_a_line)) || hidden(words).is_some() {
        return Err(Fault::Hidden);
    }
    let comment = comment.map(str::trim);
    let mut words = words.split_whitespace();
    let Some(first) = words.next() else {
        return Ok(Line::Text(text));
    };
    let mut expires = None;
    for (index, word) in (1..).zip(words) {
        match word.strip_prefix(EXPIRES) {
            Some(time) if expires.is_none() && ![OFF, NO_SOURCE, EMPTY].contains(&first) => {
                expires = Some(parse_until(time).map_err(Fault::Time)?);
            }
            _ => return Err(Fault::Word(index)),
        }
    }
    if first == OFF {
        return Ok(Line::Off(text));
    }
    if first == NO_SOURCE || first == EMPTY {
        return Ok(Line::NoSource(text));
    }
    let range = read_range(first).ok_or(Fault::Range)?;
    let comment = comment
        .filter(|comment| !comment.is_empty())
        .map(str::to_owned);
    Ok(Line::Entry {
        text,
        entry: Entry {
            range,
            expires: expires.flatten(),
            comment,
        },
    })
}

/// The fault if the last line of `text` may have been cut within its range.
fn cut_last_line(text: &str, last: Option<&Line>) -> Option<InputError> {
    let Some(Line::Entry { text: line, entry }) = last else {
        return None;
    };
    (!text.ends_with('\n') && may_be_cut(line, entry.range)).then(|| {
        InputError::new(
            format!(
                "range `{}` may be cut short: the file ends within its line",
                entry.range
            ),
            "if the range is complete, end its line with a line feed",
        )
    })
}

/// The fault, with its line, if one of the numbered `switches` does not stand alone.
fn misplaced_switch(switches: &[(usize, Line)], has_ranges: bool) -> Option<(usize, InputError)> {
    let find = |is: fn(&Line) -> bool| switches.iter().find(|(_, line)| is(line));
    let off = find(|line| matches!(line, Line::Off(_)));
    let has_company = has_ranges || find(|line| matches!(line, Line::NoSource(_))).is_some();
    if let Some((number, _)) = off.filter(|_| has_company) {
        let fault = InputError::new(
            format!("the file has the word `{OFF}` and ranges"),
            format!(
                "remove `{OFF}` to enforce the ranges, or the ranges to switch enforcement off"
            ),
        );
        return Some((*number, fault));
    }
    let (number, line) = switches.first().filter(|_| has_ranges)?;
    let fault = match line.text().trim_start().starts_with(EMPTY) {
        true => InputError::new(
            format!("the file has the word `{EMPTY}` and ranges"),
            format!("remove `{EMPTY}` to allow the ranges, or the ranges to allow none of them"),
        ),
        false => only_implicit_with_others(),
    };
    Some((*number, fault))
}

/// Whether an unfinished last line may be the beginning of a narrower range: `128.0.0.0/1` of
/// `128.0.0.0/16`.
fn may_be_cut(text: &str, range: IpNet) -> bool {
    let longest = match range {
        IpNet::V4(_) => 3,
        IpNet::V6(_) => 12,
    };
    text.contains('/') && (1..=longest).contains(&range.prefix_len())
}
