//! The ranges behind the counts of uses, with the comment and the lists of each.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::{
    clock::Clocks,
    context::Context,
    kernel::bpf::{Maps, Slot, Use},
    policy::Prefix,
    ranges::{Entry, ListName, Lists},
    store::WatchedLists,
};

/// A range that packets used.
#[derive(Clone, Debug)]
pub(crate) struct UsedRange {
    pub(crate) prefix: Prefix,
    /// The lists that have an entry for it; none if it is an implicit source.
    pub(crate) lists: Vec<ListName>,
    pub(crate) comment: Option<String>,
    /// The expiry of the entry.
    pub(crate) expires: Option<Timestamp>,
}

/// The ranges by the ids of their use.
pub(crate) type Ranges = Arc<HashMap<u32, UsedRange>>;

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) ranges: Ranges,
    /// The number of ranges in all lists; none if the lists cannot be read.
    pub(crate) list_size: Option<usize>,
}

/// The range of each use. A lookup walks over all ranges. It runs in the background, only when a
/// new range is used or the lists change, and for at most a tenth of the time.
pub(crate) struct RangeLookup {
    context: Context,
    watched: WatchedLists,
    /// The generation that was looked up; none if the next walk must look.
    generation: Option<u64>,
    found: Found,
    requested: HashSet<u32>,
    walk: Option<Walk>,
    not_before: Option<Instant>,
}

struct Walk {
    generation: u64,
    ids: HashSet<u32>,
    begun: Instant,
    task: JoinHandle<Result<Option<Found>>>,
}

impl RangeLookup {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            watched: WatchedLists::new(context.list_files()),
            context: context.clone(),
            generation: None,
            found: Found::default(),
            requested: HashSet::new(),
            walk: None,
            not_before: None,
        }
    }

    /// Starts a walk if one is needed and its pause is over.
    pub(crate) fn start_walk(&mut self, uses: &[Use], generation: u64, slot: Slot) {
        if self.generation.is_some_and(|known| known != generation) {
            self.found.ranges = Ranges::default();
            self.requested.clear();
            self.generation = None;
        }
        // A comment can change without a new generation.
        if self.watched.changed() {
            self.generation = None;
        }
        let begun = Instant::now();
        let all_known =
            self.generation.is_some() && uses.iter().all(|one| self.requested.contains(&one.id));
        if all_known || self.walk.is_some() || self.not_before.is_some_and(|time| begun < time) {
            return;
        }
        self.watched.mark_read();
        let ids: HashSet<u32> = uses.iter().map(|one| one.id).collect();
        let (context, wanted) = (self.context.clone(), ids.clone());
        let task = spawn_blocking(move || walk(&context, slot, generation, &wanted));
        self.walk = Some(Walk {
            generation,
            ids,
            begun,
            task,
        });
        self.generation = Some(generation);
    }

    /// Takes the result of a finished walk. `patient`: waits for the names of a million ranges.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub(crate) async fn finish_walk(&mut self, patient: bool) -> Result<&Found> {
        let Some(mut walk) = self.walk.take() else {
            return Ok(&self.found);
        };
        // A short walk is awaited, so that its result is in this sample.
        let patience = Duration::from_millis(if patient { 60_000 } else { 20 });
        let Ok(found) = tokio::time::timeout(patience, &mut walk.task).await else {
            self.walk = Some(walk);
            return Ok(&self.found);
        };
        let took = walk.begun.elapsed();
        self.not_before = Some(Instant::now() + 9 * took);
        match found.map_err(|_| anyhow!("read policy: the reader died"))?? {
            Some(found) if self.generation == Some(walk.generation) => {
                self.found = found;
                self.requested = walk.ids;
            }
            _ => self.generation = None,
        }
        Ok(&self.found)
    }
}

/// The ranges with the usage keys `ids`; none if `slot` holds another generation by now.
fn walk(
    context: &Context,
    slot: Slot,
    generation: u64,
    ids: &HashSet<u32>,
) -> Result<Option<Found>> {
    let maps = Maps::open(&context.pins.maps())?;
    let prefixes = maps.ranges_of(slot, ids, &Clocks::now()?)?;
    // Without the lists the ranges have no comments, and all else is known.
    let lists = context.lists_in_force(Some(&maps)).ok();
    let found = described(prefixes, lists.map(|read| read.lists).as_ref());
    Ok((maps.record(slot)?.generation == generation).then_some(found))
}

/// The prefixes with what `lists` say of them. A list can have a million entries, of which few are
/// used: only those are kept.
fn described(prefixes: HashMap<u32, Prefix>, lists: Option<&Lists>) -> Found {
    let ranges = prefixes.values().map(|prefix| prefix.range);
    let mut described: HashMap<IpNet, Description> = ranges
        .map(|range| (range, Description::default()))
        .collect();
    let known = lists.filter(|lists| !lists.is_off());
    for (name, file) in known.into_iter().flat_map(Lists::iter) {
        for entry in file.entries() {
            if let Some(description) = described.get_mut(&entry.range) {
                description.add(name, entry);
            }
        }
    }
    let used = |(id, prefix): (u32, Prefix)| {
        let Description { lists, entry } = described.remove(&prefix.range).unwrap_or_default();
        let used = UsedRange {
            lists,
            expires: entry.as_ref().map_or(prefix.expires, |entry| entry.expires),
            comment: entry.and_then(|entry| entry.comment),
            prefix,
        };
        (id, used)
    };
    Found {
        ranges: Arc::new(prefixes.into_iter().map(used).collect()),
        list_size: lists.map(size),
    }
}

/// What the lists say of a range.
#[derive(Default)]
struct Description {
    lists: Vec<ListName>,
    /// Of several entries the one with the latest expiry, since that one counts.
    entry: Option<Entry>,
}

impl Description {
    fn add(&mut self, name: &ListName, entry: &Entry) {
        if self.lists.last() != Some(name) {
            self.lists.push(name.clone());
        }
        let last = |entry: &Entry| entry.expires.unwrap_or(Timestamp::MAX);
        if self
            .entry
            .as_ref()
            .is_none_or(|known| last(known) < last(entry))
        {
            self.entry = Some(entry.clone());
        }
    }
}

/// The number of ranges in all lists.
fn size(lists: &Lists) -> usize {
    if lists.is_off() {
        return 0;
    }
    let entries = lists.iter().flat_map(|(_, file)| file.entries());
    let mut ranges: Vec<IpNet> = entries.map(|entry| entry.range).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges.len()
}

#[cfg(test)]
mod tests {
    use filter_common::layout::Origin;

    use super::*;
    use crate::ranges::RangesFile;

    #[test]
    fn a_range_has_the_lists_and_the_comment_of_its_entries() {
        let file = |text: &str| RangesFile::parse(text).expect("a list");
        let office: ListName = "office".parse().expect("a name");
        let lists = Lists::of(file(
            "192.0.2.0/24 expires=2027-01-31T18:00:00Z # for a while\n",
        ))
        .with(&office, file("192.0.2.0/24 # for good\n198.51.100.1\n"));
        let prefix = |range: &str, origin| Prefix {
            range: range.parse().expect("a range"),
            origins: origin as u8,
            expires: None,
        };
        let prefixes = [
            (7, prefix("192.0.2.0/24", Origin::List)),
            (8, prefix("10.0.0.0/8", Origin::Node)),
        ];
        let found = described(prefixes.into(), Some(&lists));
        assert_eq!(found.list_size, Some(2));
        let both = &found.ranges[&7];
        assert_eq!(both.lists, [ListName::default(), office]);
        assert_eq!(
            (both.comment.as_deref(), both.expires),
            (Some("for good"), None)
        );
        let node = &found.ranges[&8];
        assert!(node.lists.is_empty() && node.comment.is_none());
    }
}
