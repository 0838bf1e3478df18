//! What the agent remembers of each list, and when an object changes a list.
//!
//! Only a new generation of an object does. A deleted object, a deleted kind, an object from a
//! backup and an object that was emptied without its annotation leave the list as it is: each of
//! them is more often an accident than a wish, and a wish can be said.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::list::{Content, Version, Wanted, digest};

/// What is remembered of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the object that the file is from.
    pub written: Version,
    /// The version that was seen last. It is older than that of the file while etcd is older than
    /// the file.
    pub seen: Version,
    /// SHA-256 of the file; empty once the file is gone.
    pub sha256: String,
    /// When the last of its ranges has expired, if all do.
    pub ends: Option<Timestamp>,
    /// The number of its ranges.
    pub ranges: usize,
}

impl Record {
    /// The digest of a file that another hand removed.
    pub const LOST: &str = "lost";

    /// Whether there is a file.
    pub fn has_file(&self) -> bool {
        !self.sha256.is_empty()
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.ranges == 0 || self.ends.is_some_and(|ends| ends <= now)
    }

    fn of(version: &Version, content: &Content) -> Self {
        Self {
            written: version.clone(),
            seen: version.clone(),
            sha256: digest(&content.text),
            ends: content.ends,
            ranges: content.ranges,
        }
    }
}

/// What to do with the file of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as the object says, or there is none and shall be none.
    Leave,
    /// Leave it, though the API says something else; why.
    Keep(Kept),
    /// Write it, and remember it so.
    Write(Content, Record),
    /// Take it away: it authorizes no source, and its object is gone.
    Remove,
}

/// Why a list is not as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The object is gone.
    Gone,
    /// The object cannot be a list.
    Refused(String),
    /// The object is older than the list: etcd was restored.
    Older,
    /// The object is the same, and does not select this node any more.
    Unselected,
}

impl Kept {
    /// The reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "ObjectGone",
            Self::Refused(_) => "Refused",
            Self::Older => "ObjectOlder",
            Self::Unselected => "Unselected",
        }
    }

    /// A sentence with the way out.
    pub fn message(&self) -> String {
        match self {
            Self::Gone => "the object is gone, and its list stays in force: make it again, or empty it first and then delete it".to_owned(),
            Self::Refused(why) => format!("the last good list stays in force: {why}"),
            Self::Older => "the object is older than the list in force, as after a restore of etcd: the list stays; any change of the object's spec puts it in force".to_owned(),
            Self::Unselected => "the labels of the node do not match any more, and the list stays in force: change the object's nodeSelector to withdraw it".to_owned(),
        }
    }
}

/// What to do with a list, by what is remembered and what the API has at `now`. `None` for an
/// object that is not there. The record is changed where a generation was seen that goes back.
pub fn step(record: Option<&mut Record>, wanted: Option<&Wanted>, now: Timestamp) -> Step {
    let Some(wanted) = wanted else {
        return match record {
            Some(record) if record.has_file() && record.is_over(now) => Step::Remove,
            Some(record) if record.has_file() => Step::Keep(Kept::Gone),
            _ => Step::Leave,
        };
    };
    let content = match &wanted.content {
        Ok(content) => content,
        Err(refusal) => {
            return match record.is_some_and(|record| record.has_file()) {
                true => Step::Keep(Kept::Refused(refusal.message.clone())),
                false => Step::Leave,
            };
        }
    };
    let version = &wanted.version;
    let Some(record) = record else {
        return match wanted.is_selected {
            true => Step::Write(content.clone(), Record::of(version, content)),
            false => Step::Leave,
        };
    };
    let is_new = version.is_newer(&record.seen);
    if !is_new {
        record.seen = version.clone();
        if record.written.is_newer(version) {
            return Step::Keep(Kept::Older);
        }
    }
    if !wanted.is_selected {
        return match (is_new, record.has_file() && record.ranges > 0) {
            (_, false) => Step::Leave,
            (true, true) => {
                let empty =
                    Content::empty("not for this node any more; apifence-kube writes this file");
                let record = Record::of(version, &empty);
                Step::Write(empty, record)
            }
            (false, true) => Step::Keep(Kept::Unselected),
        };
    }
    match is_new || record.sha256 != digest(&content.text) {
        true => Step::Write(content.clone(), Record::of(version, content)),
        false => Step::Leave,
    }
}

/// The most lists that are remembered after their files are gone.
const MOST_GONE: usize = 1000;

/// Forgets the oldest of the lists without files, if they are too many.
pub fn forget(records: &mut BTreeMap<String, Record>) {
    let mut gone: Vec<_> = records
        .iter()
        .filter(|(_, record)| !record.has_file())
        .map(|(name, record)| (record.written.created, name.clone()))
        .collect();
    gone.sort_unstable();
    for (_, name) in gone.iter().rev().skip(MOST_GONE) {
        records.remove(name);
    }
}
