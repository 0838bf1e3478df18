//! What the agent remembers of each list, and when an object changes a list.
//!
//! Only a new generation of an object does. A deleted object, a deleted kind, an object from a
//! backup and an object that was emptied without its annotation leave the list as it is: each of
//! them is more often an accident than a wish, and a wish can be said.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::list::{Content, Version, Wanted, digest, entries};

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

    /// That of a file of which nothing else is known: each object is newer.
    pub fn of_file(text: &str) -> Self {
        Self {
            sha256: digest(text),
            ranges: entries(text).filter(|entry| *entry != "empty").count(),
            ..Self::default()
        }
    }

    fn of(version: &Version, content: &Content) -> Self {
        Self {
            written: version.clone(),
            seen: version.clone(),
            sha256: content.sha256.clone(),
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
    Write(Content, Box<Record>),
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
    /// The object selects nodes by labels, and those of this node were never known.
    NoNode,
}

impl Kept {
    /// The reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "ObjectGone",
            Self::Refused(_) => "Refused",
            Self::Older => "ObjectOlder",
            Self::Unselected => "Unselected",
            Self::NoNode => "NoNode",
        }
    }

    /// A sentence with the way out.
    pub fn message(&self) -> String {
        match self {
            Self::Gone => "the object was deleted, but its list stays in force: create it again, empty it, then delete it".to_owned(),
            Self::Refused(why) => format!("the last good list stays in force: {why}"),
            Self::Older => "the object is older than the list in force (was etcd restored?): the list stays in force; change the object's spec to apply it".to_owned(),
            Self::Unselected => "the labels of the node no longer match, but the list stays in force: change the object's nodeSelector to withdraw it".to_owned(),
            Self::NoNode => "the node has no Node object, so its labels are unknown: the list stays in force".to_owned(),
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
    let content = match &*wanted.content {
        Ok(content) => content,
        Err(refusal) => {
            return match record.is_some_and(|record| record.has_file()) {
                true => Step::Keep(Kept::Refused(refusal.message.clone())),
                false => Step::Leave,
            };
        }
    };
    let version = &wanted.version;
    let Some(is_selected) = wanted.is_selected else {
        return match record.is_some_and(|record| record.has_file()) {
            true => Step::Keep(Kept::NoNode),
            false => Step::Leave,
        };
    };
    let Some(record) = record else {
        return match is_selected {
            true => Step::Write(content.clone(), Box::new(Record::of(version, content))),
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
    if !is_selected {
        return match (is_new, record.has_file() && record.ranges > 0) {
            (_, false) => Step::Leave,
            (true, true) => {
                let empty =
                    Content::empty("no longer for this node; apifence-kube writes this file");
                let record = Record::of(version, &empty);
                Step::Write(empty, Box::new(record))
            }
            (false, true) => Step::Keep(Kept::Unselected),
        };
    }
    match is_new || record.sha256 != content.sha256 {
        true => Step::Write(content.clone(), Box::new(Record::of(version, content))),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::list::Refusal;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// An object: its uid, which is also the second when it was made, its generation, and a range.
    fn object(uid: i64, generation: i64, text: &str) -> Wanted {
        Wanted {
            version: Version {
                uid: uid.to_string(),
                created: at(uid),
                generation,
            },
            is_selected: Some(true),
            content: Arc::new(Ok(Content::new(
                text.to_owned(),
                None,
                usize::from(text != "empty"),
            ))),
        }
    }

    /// A node that follows what the API has.
    #[derive(Default)]
    struct Node {
        record: Option<Record>,
        file: Option<String>,
    }

    impl Node {
        fn sees(&mut self, wanted: Option<&Wanted>) -> Step {
            let done = step(self.record.as_mut(), wanted, at(1000));
            match &done {
                Step::Write(content, record) => {
                    self.file = Some(content.text.clone());
                    self.record = Some((**record).clone());
                }
                Step::Remove => {
                    self.file = None;
                    let record = self.record.as_mut().expect("a record");
                    record.sha256.clear();
                    record.ranges = 0;
                }
                _ => {}
            }
            done
        }

        fn has(&self, text: &str) {
            assert_eq!(self.file.as_deref(), Some(text));
        }
    }

    #[test]
    fn a_new_generation_changes_the_list_and_nothing_else_does() {
        let mut node = Node::default();
        assert_eq!(node.sees(None), Step::Leave);
        node.sees(Some(&object(1, 1, "a")));
        node.has("a");
        assert_eq!(node.sees(Some(&object(1, 1, "a"))), Step::Leave);
        node.sees(Some(&object(1, 2, "b")));
        node.has("b");
        // Deleted, and made again with another content.
        assert_eq!(node.sees(None), Step::Keep(Kept::Gone));
        node.has("b");
        node.sees(Some(&object(2, 1, "c")));
        node.has("c");
        // Refused: emptied by accident.
        let mut emptied = object(2, 2, "");
        emptied.content = Arc::new(Err(Refusal {
            reason: "Empty",
            message: "none".to_owned(),
        }));
        let kept = node.sees(Some(&emptied));
        assert_eq!(kept, Step::Keep(Kept::Refused("none".to_owned())));
        node.has("c");
        // The annotation does not make another generation.
        node.sees(Some(&object(2, 2, "empty")));
        node.has("empty");
        assert_eq!(node.sees(None), Step::Remove);
        assert_eq!(node.sees(None), Step::Leave);
    }

    #[test]
    fn a_restored_snapshot_opens_nothing_and_a_change_after_it_counts() {
        let mut node = Node::default();
        node.sees(Some(&object(1, 3, "a b")));
        node.sees(Some(&object(1, 4, "a")));
        for _ in 0..2 {
            let seen = node.sees(Some(&object(1, 3, "a b")));
            assert_eq!(seen, Step::Keep(Kept::Older));
            node.has("a");
        }
        // The number is that of the list in force, and the content is another.
        node.sees(Some(&object(1, 4, "c")));
        node.has("c");

        // The object of the snapshot was deleted and made again since.
        node.sees(Some(&object(7, 1, "d")));
        let older = object(1, 3, "a b");
        assert_eq!(node.sees(Some(&older)), Step::Keep(Kept::Older));
        assert_eq!(node.sees(Some(&older)), Step::Keep(Kept::Older));
        node.has("d");
        node.sees(Some(&object(1, 4, "e")));
        node.has("e");
    }

    #[test]
    fn a_withdrawn_list_does_not_come_back_from_a_snapshot() {
        let mut node = Node::default();
        node.sees(Some(&object(1, 1, "a")));
        node.sees(Some(&object(1, 2, "empty")));
        assert_eq!(node.sees(None), Step::Remove);
        let restored = node.sees(Some(&object(1, 1, "a")));
        assert_eq!(restored, Step::Keep(Kept::Older));
        assert_eq!(node.file, None);
    }

    #[test]
    fn labels_of_the_node_withdraw_nothing_and_the_selector_does() {
        let mut node = Node::default();
        let mut other = object(1, 1, "a");
        other.is_selected = Some(false);
        assert_eq!(node.sees(Some(&other)), Step::Leave);
        node.sees(Some(&object(1, 1, "a")));
        node.has("a");
        assert_eq!(node.sees(Some(&other)), Step::Keep(Kept::Unselected));
        node.has("a");
        other.version.generation = 2;
        node.sees(Some(&other));
        assert!(
            node.file
                .as_deref()
                .is_some_and(|file| file.ends_with("\nempty\n"))
        );
        assert_eq!(node.sees(Some(&other)), Step::Leave);
        node.sees(Some(&object(1, 2, "a")));
        node.has("a");
    }

    #[test]
    fn without_labels_no_list_comes_and_none_goes() {
        let mut node = Node::default();
        let unknown = |generation, text| {
            let mut object = object(1, generation, text);
            object.is_selected = None;
            object
        };
        assert_eq!(node.sees(Some(&unknown(1, "a"))), Step::Leave);
        node.sees(Some(&object(1, 1, "a")));
        assert_eq!(node.sees(Some(&unknown(2, "b"))), Step::Keep(Kept::NoNode));
        node.has("a");
        node.sees(Some(&object(1, 2, "b")));
        node.has("b");
    }

    #[test]
    fn an_expired_list_goes_with_its_object() {
        for (ends, want) in [(1001, Step::Keep(Kept::Gone)), (1000, Step::Remove)] {
            let mut guest = object(ends, 1, "a");
            guest.content = Arc::new(Ok(Content::new("a".to_owned(), Some(at(ends)), 1)));
            let mut node = Node::default();
            node.sees(Some(&guest));
            assert_eq!(node.sees(Some(&guest)), Step::Leave);
            assert_eq!(node.sees(None), want);
        }
    }

    #[test]
    fn a_file_that_another_hand_changed_is_written_anew() {
        let mut node = Node::default();
        node.sees(Some(&object(1, 1, "a")));
        Record::LOST.clone_into(&mut node.record.as_mut().expect("a record").sha256);
        let written = node.sees(Some(&object(1, 1, "a")));
        assert!(matches!(written, Step::Write(..)));
    }

    #[test]
    fn what_is_remembered_of_lists_without_files_is_bounded() {
        let mut records = BTreeMap::new();
        for number in 0..MOST_GONE + 10 {
            let mut record = Record::default();
            record.written.created = at(i64::try_from(number).expect("a second"));
            records.insert(format!("list-{number}"), record);
        }
        let kept = Record {
            sha256: "00".to_owned(),
            ..Record::default()
        };
        records.insert("kept".to_owned(), kept);
        forget(&mut records);
        assert_eq!(records.len(), MOST_GONE + 1);
        assert!(records.contains_key("kept") && !records.contains_key("list-9"));
    }
}
