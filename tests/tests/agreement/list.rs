//! The ranges file as its author sees it: lines, in a few shapes. It shares no code with the
//! product.

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use jiff::Timestamp;

/// A range in the list. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) range: IpNet,
    pub(crate) expires: Option<i64>,
    pub(crate) comment: Option<String>,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Blank, or a comment.
    Text(String),
    /// A range, as written.
    Entry(String, Entry),
    Nobody,
    Off,
    /// A line that no list may have.
    Broken(String),
}

impl Line {
    /// The line as a command writes it.
    pub(crate) fn from_entry(entry: Entry) -> Self {
        let mut text = entry.range.to_string();
        if let Some(time) = entry.expires {
            text += &format!(" expires={}", rfc3339(time));
        }
        if let Some(comment) = &entry.comment {
            text += &format!(" # {comment}");
        }
        Self::Entry(text, entry)
    }

    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry(_, entry) => Some(entry),
            _ => None,
        }
    }
}

/// A second in the file's notation.
pub(crate) fn rfc3339(second: i64) -> String {
    let time = Timestamp::from_second(second).expect("a time of our days");
    time.to_string()
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List(pub(crate) Vec<Line>);

impl List {
    /// Ranges and nothing else.
    pub(crate) fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Self {
        Self(entries.into_iter().map(Line::from_entry).collect())
    }

    pub(crate) fn off() -> Self {
        Self(vec![Line::Off])
    }

    /// Reads a list that a command left in the history.
    pub(crate) fn read(text: &str) -> Self {
        let lines = text
            .lines()
            .map(|line| read_line(line).unwrap_or_else(|_| Line::Broken(line.to_owned())));
        Self(lines.collect())
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.0.iter().map(|line| match line {
            Line::Text(text) | Line::Entry(text, _) | Line::Broken(text) => format!("{text}\n"),
            Line::Nobody => "0.0.0.0/32\n".to_owned(),
            Line::Off => "disabled\n".to_owned(),
        });
        lines.collect()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter_map(Line::entry)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.contains(&Line::Off)
    }

    /// Whether every command refuses it.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.iter().any(|line| matches!(line, Line::Broken(_)))
    }

    /// Each range once.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        let mut ranges: Vec<IpNet> = self.entries().map(|entry| entry.range).collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// The entries of one range.
    pub(crate) fn of_range(&self, range: IpNet) -> Vec<Entry> {
        let same = self.entries().filter(|entry| entry.range == range);
        let mut same: Vec<Entry> = same.cloned().collect();
        same.sort_by_key(|entry| entry.expires);
        same
    }

    /// The longest-lived of several entries of a range.
    pub(crate) fn longest(&self, range: IpNet) -> Option<Entry> {
        let same = self.of_range(range);
        let forever = same.iter().rfind(|entry| entry.expires.is_none());
        forever.or(same.last()).cloned()
    }

    /// Whether both give packets the same verdicts: comments, order and repetitions aside.
    pub(crate) fn means(&self, other: &Self) -> bool {
        let meaning = |list: &Self| {
            let entries = list.entries().map(|entry| (entry.range, entry.expires));
            let mut entries: Vec<_> = entries.collect();
            entries.sort_unstable();
            entries.dedup();
            (list.is_off(), entries)
        };
        !self.is_broken() && !other.is_broken() && meaning(self) == meaning(other)
    }

    /// Adds `range`.
    pub(crate) fn add(
        &mut self,
        range: IpNet,
        expires: Option<Option<i64>>,
        comment: Option<&str>,
        now: i64,
    ) {
        self.0
            .retain(|line| !matches!(line, Line::Nobody | Line::Off));
        let of_it = |line: &Line| line.entry().is_some_and(|entry| entry.range == range);
        let comment = comment.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        let Some(old) = self.longest(range) else {
            self.0.push(Line::from_entry(Entry {
                range,
                expires: expires.flatten(),
                comment: comment.flatten(),
            }));
            return;
        };
        let alive = old.expires.filter(|time| *time > now);
        let new = Entry {
            range,
            expires: expires.unwrap_or(alive),
            comment: comment.unwrap_or_else(|| old.comment.clone()),
        };
        if new == old {
            return;
        }
        let place = self.0.iter().position(of_it).expect("it was found");
        self.0[place] = Line::from_entry(new);
        let mut index = 0..;
        self.0
            .retain(|line| index.next() == Some(place) || !of_it(line));
    }

    /// Removes the ranges. False if one is missing or the list would become empty.
    pub(crate) fn remove(&mut self, ranges: &[IpNet]) -> bool {
        for range in ranges {
            let before = self.0.len();
            self.0
                .retain(|line| line.entry().is_none_or(|entry| entry.range != *range));
            if self.0.len() == before {
                return false;
            }
        }
        self.entries().next().is_some()
    }

    pub(crate) fn prune(&mut self, now: i64) {
        let dead = |entry: &Entry| entry.expires.is_some_and(|time| time <= now);
        self.0.retain(|line| !line.entry().is_some_and(dead));
        if self.0.iter().all(|line| matches!(line, Line::Text(_))) {
            self.0.push(Line::Nobody);
        }
    }
}

fn read_line(line: &str) -> Result<Line> {
    let (words, comment) = match line.split_once('#') {
        Some((words, comment)) => (words, Some(comment.trim().to_owned())),
        None => (line, None),
    };
    let mut words = words.split_whitespace();
    let range = match words.next() {
        None => return Ok(Line::Text(line.to_owned())),
        Some("disabled") => return Ok(Line::Off),
        Some("0.0.0.0/32") => return Ok(Line::Nobody),
        Some(word) if word.contains('/') => word.parse()?,
        Some(word) => IpNet::from(word.parse::<std::net::IpAddr>()?),
    };
    let expires = match words.next() {
        None => None,
        Some(word) => {
            let time = word.strip_prefix("expires=").context("another word")?;
            Some(time.parse::<Timestamp>()?.as_second())
        }
    };
    if words.next().is_some() {
        bail!("a third word: {line}");
    }
    Ok(Line::Entry(
        line.to_owned(),
        Entry {
            range,
            expires,
            comment: comment.filter(|text| !text.is_empty()),
        },
    ))
}
