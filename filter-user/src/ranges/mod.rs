//! Authorized ranges: from text to entries to the prefixes that the maps hold. Pure: no I/O here.

mod compile;
mod difference;
mod digest;
mod expiry;
mod file;
mod group;
mod parse;
mod table;

pub use compile::{Prefix, Prefixes, Sources, compile};
pub use difference::Difference;
pub use expiry::{parse_expiry, parse_time};
pub use file::{Edit, RangesFile};
pub use group::{Grouping, group};
pub use parse::{Refusal, parse_list, parse_range};
pub use table::Table;

use ipnet::IpNet;
use jiff::Timestamp;

/// The user's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// The off switch: everyone passes.
    Off,
    /// These ranges, and nobody else. Empty for the list `0.0.0.0/32`: nobody but the implicit sources.
    Ranges(Vec<Entry>),
}

impl List {
    /// The entries; none if enforcement is off.
    pub fn entries(&self) -> &[Entry] {
        match self {
            Self::Off => &[],
            Self::Ranges(entries) => entries,
        }
    }
}

/// A range with what the user said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The range, its host bits zero.
    pub range: IpNet,
    /// When it stops to match; never without.
    pub expires: Option<Timestamp>,
    /// The comment behind it, without the `#`.
    pub comment: Option<String>,
}

/// The range that, alone in a list, lets in nobody but the implicit sources.
pub const NOBODY: &str = "0.0.0.0/32";

/// Most remarks on a list that are spelled out.
const MOST_REMARKS: usize = 10;

/// What is worth saying about a list that is in order, as a warning or a note: the first of it, and how much more there is.
pub fn remarks(entries: &[Entry]) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut more = 0_usize;
    let mut remark = |text: &dyn Fn() -> String| {
        if remarks.len() < MOST_REMARKS {
            remarks.push(text());
        } else {
            more += 1;
        }
    };
    let mut ranges: Vec<IpNet> = entries.iter().map(|entry| entry.range).collect();
    ranges.sort_unstable();
    for range in &ranges {
        if range.prefix_len() == 0 {
            remark(&|| format!("warning: `{range}` lets every source of its family in"));
        }
    }
    // Sorted, a range comes behind those that hold it: the innermost of these is on top of the stack.
    let mut open: Vec<IpNet> = Vec::new();
    for range in ranges {
        while open.last().is_some_and(|outer| !outer.contains(&range)) {
            open.pop();
        }
        match open.last() {
            Some(outer) if *outer == range => {
                remark(&|| format!("note: `{range}` is listed twice"));
            }
            Some(outer) => remark(&|| format!("note: `{range}` is inside `{outer}`")),
            None => {}
        }
        open.push(range);
    }
    if more > 0 {
        remarks.push(format!("note: and {more} more like these"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_nested_ranges_are_remarked() {
        let entries: Vec<Entry> = ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "192.0.2.1/32"]
            .map(|text| Entry {
                range: text.parse().expect("a range"),
                expires: None,
                comment: None,
            })
            .to_vec();
        assert_eq!(
            remarks(&entries),
            [
                "note: `10.1.0.0/16` is inside `10.0.0.0/8`",
                "note: `10.1.0.0/16` is listed twice"
            ]
        );
    }

    #[test]
    fn many_remarks_are_counted() {
        let mut entries: Vec<Entry> = (0..200)
            .map(|host| Entry {
                range: format!("10.0.0.{host}/32").parse().expect("a range"),
                expires: None,
                comment: None,
            })
            .collect();
        assert_eq!(remarks(&entries), [""; 0]);
        entries.push(Entry {
            range: "10.0.0.0/24".parse().expect("a range"),
            expires: None,
            comment: None,
        });
        let remarks = remarks(&entries);
        assert_eq!(remarks.len(), 11);
        assert_eq!(remarks[9], "note: `10.0.0.9/32` is inside `10.0.0.0/24`");
        assert_eq!(remarks[10], "note: and 190 more like these");
    }
}
