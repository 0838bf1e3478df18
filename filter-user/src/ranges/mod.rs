//! Authorized ranges: from text to entries to the prefixes that the maps hold. Pure: no I/O here.

mod digest;
mod expiry;
mod fault;
mod feed;
mod file;
mod group;
mod lists;
mod meant;
mod parse;
mod remarks;
mod shape;
mod typed;
mod words;

pub use self::{
    expiry::parse_expiry,
    fault::{Faults, can_be_comment},
    feed::Size,
    file::{Edit, RangesFile},
    group::{Grouping, group},
    lists::{ListName, Lists},
    meant::{ME, parse_range},
    parse::InputError,
    remarks::{distinct, let_everyone_in, remarks},
    shape::not_text,
    typed::{is_blank, join, parse_list, parse_ranges, typed_items},
};

use indicatif::HumanCount;
use ipnet::IpNet;
use jiff::Timestamp;

/// `1 range`, `12,431 ranges`.
pub fn in_ranges(count: usize) -> String {
    match count {
        1 => "1 range".to_owned(),
        count => format!("{} ranges", HumanCount(count as u64)),
    }
}

/// The user's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// The off switch: every source passes.
    Off,
    /// Only these ranges. Empty for the list `0.0.0.0/32`: only the implicit sources.
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

/// A range with its attributes in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The range, its host bits zero.
    pub range: IpNet,
    /// The expiry; `None` is never.
    pub expires: Option<Timestamp>,
    /// The comment after it, without the `#`.
    pub comment: Option<String>,
}

/// As the only range of a list: authorizes only the implicit sources.
pub const NO_SOURCE: &str = "0.0.0.0/32";
