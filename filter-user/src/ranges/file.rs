//! The ranges file: one entry a line, `CIDR [expires=TIME] [# comment]`; blank and comment lines are the user's and stay.

use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    Entry, List, NOBODY, Refusal,
    expiry::parse_until,
    fault::{Fault, Faults, ends_a_line, split},
    meant::hidden,
    parse::{nobody_beside_others, read_range},
    shape::looks_like,
};

/// The word that switches enforcement off, on a line of its own.
const OFF: &str = "disabled";

/// What stands before the time at which an entry expires.
const EXPIRES: &str = "expires=";

/// A ranges file as text that can be edited without losing a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangesFile {
    lines: Vec<Line>,
}

/// What is to become of a range that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The range, its host bits zero.
    pub range: IpNet,
    /// When it is to expire, or that it is not to; `None` for what it was.
    pub expires: Option<Option<Timestamp>>,
    /// Its comment, or that it is to have none; `None` for what it was.
    pub comment: Option<Option<String>>,
}

impl Edit {
    /// The entry that it makes where there was none.
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
    /// Blank, or a comment: kept as it is.
    Text(String),
    Entry {
        /// As written, until the entry is changed.
        text: String,
        entry: Entry,
    },
    Nobody(String),
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
            Self::Text(text) | Self::Entry { text, .. } | Self::Nobody(text) | Self::Off(text) => {
                text
            }
        }
    }
}

/// What some editors put before a text in UTF-8.
const BOM: char = '\u{feff}';

impl RangesFile {
    /// A file that holds `list`.
    pub fn new(list: &List) -> Self {
        let lines = match list {
            List::Off => vec![Line::Off(OFF.to_owned())],
            List::Ranges(entries) if entries.is_empty() => vec![Line::Nobody(NOBODY.to_owned())],
            List::Ranges(entries) => entries.iter().cloned().map(Line::entry).collect(),
        };
        Self { lines }
    }

    /// Reads a file's `text`. A byte order mark at its beginning is taken, and not written back.
    ///
    /// # Errors
    /// What is wrong with it. A file without an entry is refused: it never opens the port by being empty.
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
                        Line::Nobody(_) | Line::Off(_) => switches.push((number, line.clone())),
                    }
                    if !faults.is_empty() {
                        // Of a file that is refused only the last line is looked at again.
                        lines.clear();
                    }
                    lines.push(line);
                }
                Err(fault) => faults.push(number, || fault.explain(line)),
            }
        }
        if !faults.is_empty()
            && let Some(refusal) = looks_like(text)
        {
            return Err(Faults {
                first: vec![(0, refusal)],
                more: 0,
            });
        }
        if let Some(Line::Entry { text: last, entry }) = lines.last()
            && !text.ends_with('\n')
            && may_be_cut(last, entry.range)
        {
            faults.insist(
                text.lines().count(),
                Refusal::new(
                    format!(
                        "range `{}` may be cut short: the file ends within its line",
                        entry.range
                    ),
                    "end the last line with a line feed if the range is meant",
                ),
            );
        }
        let off = switches
            .iter()
            .find(|(_, line)| matches!(line, Line::Off(_)));
        let company = ranges > 0
            || switches
                .iter()
                .any(|(_, line)| matches!(line, Line::Nobody(_)));
        if let Some((number, _)) = off.filter(|_| company) {
            faults.insist(
                *number,
                Refusal::new(
                    format!("the word `{OFF}` stands beside ranges"),
                    format!("remove `{OFF}` to enforce the ranges, or the ranges to switch enforcement off"),
                ),
            );
        } else if ranges > 0
            && let Some((number, _)) = switches.first()
        {
            faults.insist(*number, nobody_beside_others());
        }
        if faults.is_empty() && ranges + switches.len() == 0 {
            faults.insist(
                0,
                Refusal::new(
                    "it holds no range",
                    format!("write a range, `{NOBODY}` to let nobody in, or the word `{OFF}` to switch enforcement off"),
                ),
            );
        }
        if faults.is_empty() {
            Ok(Self { lines })
        } else {
            Err(faults)
        }
    }

    /// The list it holds, in order: whoever sorts it again has little to do.
    pub fn list(&self) -> List {
        if self.lines.iter().any(|line| matches!(line, Line::Off(_))) {
            List::Off
        } else {
            let mut entries: Vec<Entry> = self.entries().cloned().collect();
            entries.sort_by_key(|entry| (entry.range, entry.expires));
            List::Ranges(entries)
        }
    }

    /// Whether `text` is this file. One that is another is told from it without being understood.
    pub fn is(&self, text: &str) -> bool {
        let lines = text.strip_prefix(BOM).unwrap_or(text).lines();
        let lines = lines.map(str::trim_end);
        lines.eq(self.lines.iter().map(Line::text)) && Self::parse(text).as_ref() == Ok(self)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| match line {
            Line::Entry { entry, .. } => Some(entry),
            _ => None,
        })
    }

    /// Lets the ranges of `edits` in at `now`: at the end of the file, or where they are listed already. There an edit takes the place of
    /// what it says something about, and an expiry that has passed is taken off: adding means to let in.
    ///
    /// A switch that says nobody or everybody makes way for the first range.
    pub fn add(&mut self, edits: impl IntoIterator<Item = Edit>, now: Timestamp) {
        for edit in edits {
            self.lines
                .retain(|line| !matches!(line, Line::Nobody(_) | Line::Off(_)));
            let is_of = |line: &Line| matches!(line, Line::Entry { entry, .. } if entry.range == edit.range);
            let listed = self.entries().filter(|entry| entry.range == edit.range);
            // Of several lines the one that lives longest says what holds.
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

    /// Takes out the entries that have expired at `now`. Where none would be left, the file says that nobody is let in.
    pub fn prune(&mut self, now: Timestamp) {
        let expired = |entry: &Entry| entry.expires.is_some_and(|time| time <= now);
        self.lines
            .retain(|line| !matches!(line, Line::Entry { entry, .. } if expired(entry)));
        let is_switch = |line: &Line| matches!(line, Line::Nobody(_) | Line::Off(_));
        if self.entries().next().is_none() && !self.lines.iter().any(is_switch) {
            self.lines.push(Line::Nobody(NOBODY.to_owned()));
        }
    }

    /// Removes the entries of exactly this range; false if there is none.
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
            Some(time) if expires.is_none() && first != OFF && first != NOBODY => {
                expires = Some(parse_until(time).map_err(Fault::Time)?);
            }
            _ => return Err(Fault::Word(index)),
        }
    }
    if first == OFF {
        return Ok(Line::Off(text));
    }
    if first == NOBODY {
        return Ok(Line::Nobody(text));
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

/// Whether an unfinished last line may be the beginning of a narrower range: `128.0.0.0/1` of `128.0.0.0/16`.
fn may_be_cut(text: &str, range: IpNet) -> bool {
    let longest = match range {
        IpNet::V4(_) => 3,
        IpNet::V6(_) => 12,
    };
    text.contains('/') && (1..=longest).contains(&range.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::parse_time;

    const TEXT: &str = "# office\n198.51.100.0/24 # Lyon\n\n2001:db8:aa::/48\n";

    fn now() -> Timestamp {
        parse_time("2026-11-29T12:00:00Z").expect("a time")
    }

    /// Nothing said but the range.
    fn edit(range: &str) -> Edit {
        Edit {
            range: range.parse().expect("a range"),
            expires: None,
            comment: None,
        }
    }

    fn entry(range: &str, comment: Option<&str>) -> Entry {
        Entry {
            range: range.parse().expect("a range"),
            expires: None,
            comment: comment.map(str::to_owned),
        }
    }

    fn parse(text: &str) -> RangesFile {
        RangesFile::parse(text).expect(text)
    }

    #[test]
    fn what_is_read_is_written_back() {
        assert_eq!(parse(TEXT).to_string(), TEXT);
        assert_eq!(
            parse(TEXT).list(),
            List::Ranges(vec![
                entry("198.51.100.0/24", Some("Lyon")),
                entry("2001:db8:aa::/48", None)
            ])
        );
    }

    #[test]
    fn add_and_remove_keep_the_users_lines() {
        let mut file = parse(TEXT);
        let bastion = Edit {
            comment: Some(Some("bastion".to_owned())),
            ..edit("192.0.2.1/32")
        };
        file.add([bastion, edit("198.51.100.0/24")], now());
        assert!(file.remove("2001:db8:aa::/48".parse().expect("a range")));
        assert!(!file.remove("2001:db8:aa::/64".parse().expect("a range")));
        assert_eq!(
            file.to_string(),
            "# office\n198.51.100.0/24 # Lyon\n\n192.0.2.1/32 # bastion\n"
        );
    }

    #[test]
    fn an_expiry_is_kept_and_can_be_given_later() {
        let text = "10.0.0.0/8 expires=2027-01-31T18:00:00+01:00 # contractor\n";
        let mut file = parse(text);
        assert_eq!(file.to_string(), text);
        let later = Edit {
            expires: Some(Some(parse_time("2028-01-01T00:00:00Z").expect("a time"))),
            ..edit("10.0.0.0/8")
        };
        file.add([later, edit("10.0.0.0/8")], now());
        assert_eq!(
            file.to_string(),
            "10.0.0.0/8 expires=2028-01-01T00:00:00Z # contractor\n"
        );
        for bad in [
            "10.0.0.0/8 expires=tomorrow\n",
            "10.0.0.0/8 expires=\n",
            "10.0.0.0/8 expires=2027-01-31T18:00:00\n",
            "10.0.0.0/8 expires=2028-01-01T00:00:00Z expires=2029-01-01T00:00:00Z\n",
            "10.0.0.0/8 Expires=2028-01-01T00:00:00Z\n",
            "disabled expires=2028-01-01T00:00:00Z\n",
            "0.0.0.0/32 expires=2028-01-01T00:00:00Z\n",
        ] {
            RangesFile::parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn adding_lets_in_and_takes_off_what_it_is_told_to() {
        let never = |edit| Edit {
            expires: Some(None),
            ..edit
        };
        let bare = |edit| Edit {
            comment: Some(None),
            ..edit
        };
        let host = || edit("192.0.2.1/32");
        let expired = "192.0.2.1 expires=2026-01-01T00:00:00Z";
        let lives = "192.0.2.1 expires=2027-01-01T00:00:00Z";
        for (text, edit, want) in [
            (
                format!("{expired} # x"),
                host(),
                "192.0.2.1/32 # x".to_owned(),
            ),
            (format!("{lives} # x"), host(), format!("{lives} # x")),
            (
                format!("{lives} # x"),
                never(host()),
                "192.0.2.1/32 # x".to_owned(),
            ),
            (
                format!("{lives} # x"),
                bare(host()),
                lives.replace("1 ", "1/32 "),
            ),
            (
                "192.0.2.1".to_owned(),
                never(bare(host())),
                "192.0.2.1".to_owned(),
            ),
            // Listed twice, it lives as long as the longer one: what is said of it is said of both.
            (
                format!("{expired}\n10.0.0.0/8\n{lives}"),
                never(host()),
                "192.0.2.1/32\n10.0.0.0/8".to_owned(),
            ),
            (
                format!("{expired}\n{lives}"),
                host(),
                format!("{expired}\n{lives}"),
            ),
        ] {
            let mut file = parse(&format!("{text}\n"));
            file.add([edit], now());
            assert_eq!(file.to_string(), format!("{want}\n"), "{text}");
        }
    }

    #[test]
    fn what_has_expired_can_be_taken_out() {
        let mut file = parse(
            "# a\n192.0.2.1 expires=2026-01-01T00:00:00Z\n10.0.0.0/8\n192.0.2.2 expires=2027-01-01T00:00:00Z\n",
        );
        file.prune(now());
        assert_eq!(
            file.to_string(),
            "# a\n10.0.0.0/8\n192.0.2.2 expires=2027-01-01T00:00:00Z\n"
        );
        let mut file = parse("# a\n192.0.2.1 expires=2026-01-01T00:00:00Z\n");
        file.prune(now());
        assert_eq!(file.to_string(), "# a\n0.0.0.0/32\n");
        for switch in ["disabled\n", "0.0.0.0/32\n"] {
            let mut file = parse(switch);
            file.prune(now());
            assert_eq!(file.to_string(), switch);
        }
    }

    #[test]
    fn a_first_range_replaces_the_switches() {
        for switch in ["disabled\n", "0.0.0.0/32\n"] {
            let mut file = parse(switch);
            file.add([edit("10.0.0.0/8")], now());
            assert_eq!(file.to_string(), "10.0.0.0/8\n");
        }
    }

    #[test]
    fn lists_survive_the_way_through_a_file() {
        for list in [
            List::Off,
            List::Ranges(vec![]),
            List::Ranges(vec![entry("10.0.0.0/8", Some("x"))]),
        ] {
            assert_eq!(parse(&RangesFile::new(&list).to_string()).list(), list);
        }
    }

    #[test]
    fn a_text_is_the_file_that_it_parses_to() {
        let file = parse(TEXT);
        for same in [TEXT.to_owned(), TEXT.replace('\n', " \r\n")] {
            assert_eq!(parse(&same), file);
            assert!(file.is(&same), "{same:?}");
        }
        for other in [
            "",
            &TEXT[..TEXT.len() / 2],
            &TEXT.replace("Lyon", "Lille"),
            &format!("{TEXT}# more\n"),
        ] {
            assert!(!file.is(other), "{other:?}");
        }
        // The same lines, but refused.
        let half = "128.0.0.0/1";
        assert!(!parse(&format!("{half}\n")).is(half));
        assert!(parse("10.0.0.0/8\n").is("10.0.0.0/8"));
    }

    #[test]
    fn a_file_without_a_range_is_refused() {
        for text in ["", "\n", "# nothing\n\n"] {
            let refusals = RangesFile::parse(text).expect_err(text);
            assert_eq!(refusals.first[0].1.cause, "it holds no range");
        }
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let refusals = RangesFile::parse("10.0.0.1/8\n# fine\n10.0.0.0/8 forever\nwhat\n")
            .expect_err("three faults");
        assert_eq!(
            refusals
                .first
                .iter()
                .map(|(line, _)| *line)
                .collect::<Vec<_>>(),
            [1, 3, 4]
        );
    }

    #[test]
    fn switches_stand_alone() {
        for (text, line, words) in [
            ("# x\ndisabled\n10.0.0.0/8\n", 2, "the word `disabled`"),
            ("10.0.0.0/8\n0.0.0.0/32\n", 2, "means nobody"),
            ("0.0.0.0/32\ndisabled\n", 2, "the word `disabled`"),
        ] {
            let refusals = RangesFile::parse(text).expect_err(text);
            assert_eq!((refusals.first.len(), refusals.more), (1, 0), "{text}");
            let (have, refusal) = &refusals.first[0];
            assert_eq!(*have, line, "{text}");
            assert!(refusal.cause.contains(words), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_switch_in_company_is_named_beside_other_faults() {
        let refusals = RangesFile::parse("10.0.0.1/8\ndisabled\n192.0.2.0/24\n").expect_err("two");
        let lines: Vec<usize> = refusals.first.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2]);
    }

    #[test]
    fn a_cut_last_line_never_widens_the_list() {
        assert!(RangesFile::parse("10.0.0.0/8\n128.0.0.0/1").is_err());
        assert!(RangesFile::parse("8000::/1").is_err());
        parse("10.0.0.0/8\n128.0.0.0/1\n");
        parse("10.0.0.0/8");
        parse("10.0.0.0/8\r\n192.0.2.0/24\r\n");
    }

    #[test]
    fn a_mark_at_the_beginning_is_taken_and_an_edit_drops_it() {
        let text = format!("\u{feff}{TEXT}");
        let file = parse(&text);
        assert_eq!(file.to_string(), TEXT);
        assert!(file.is(&text));
        RangesFile::parse("10.0.0.0/8\n\u{feff}192.0.2.0/24\n").expect_err("a mark in the middle");
    }
}
