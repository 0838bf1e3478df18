//! What becomes of the list, in words.

use std::path::Path;

use filter_common::layout::{Origin, PolicyRecord};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    clock::to_second,
    policy::{Difference, Prefix, Prefixes, Sources, compile},
    ranges::{Entry, List, remarks},
    store::History,
};

/// What is done to an interface.
pub(crate) const VERB: &str = "attach filter to";

/// What there is to say where the settings drop nothing.
pub(crate) const MONITOR: &str =
    "warning: mode monitor: nothing is dropped until the mode is `enforce`";

/// What a ranges file says.
pub(crate) struct SaidList {
    pub(crate) list: List,
    /// That of the list.
    pub(crate) digest: [u8; 32],
}

impl SaidList {
    pub(crate) fn new(list: List) -> Self {
        let digest = list.digest();
        Self { list, digest }
    }
}

/// The list that was in force before a change, as people wrote it.
#[derive(Default)]
pub(crate) struct Before {
    list: Option<List>,
    /// Whether the ranges file was edited, and is not in force.
    edited: bool,
    /// Whether the change brings that edit into force.
    takes_edit: bool,
}

impl Before {
    /// What the ranges file at `path` says, if that is in force by `record`; or what was put in
    /// force last. `said` is what the file says, and whether that is what is wanted.
    pub(crate) fn find(
        path: &Path,
        said: Option<(bool, SaidList)>,
        record: Option<&PolicyRecord>,
    ) -> Self {
        let Some(record) = record else {
            let list = said.map(|(_, said)| said.list);
            return Self {
                list,
                ..Self::default()
            };
        };
        let is_in_force = |list: &List| list.digest() == record.list;
        let edited = match &said {
            Some((_, said)) => said.digest != record.list,
            // It is there, and is not a list.
            None => path.exists(),
        };
        match said {
            Some((false, said)) if !edited => Self {
                list: Some(said.list),
                ..Self::default()
            },
            // Nobody touched it since it was put in force.
            Some((true, said)) if !edited && !History::of(path).is_edited() => Self {
                list: Some(said.list),
                ..Self::default()
            },
            // The file is the edit; what it was made from is kept.
            said => {
                let history = History::of(path);
                let kept = history.before().unwrap_or_default().into_iter();
                let lists = kept.filter_map(|kept| Some(kept.read().ok()?.list()));
                Self {
                    list: lists.into_iter().find(is_in_force),
                    edited,
                    takes_edit: said.is_some_and(|(is_wanted, _)| is_wanted),
                }
            }
        }
    }

    /// The list, if it is known.
    pub(crate) fn list(self) -> Option<List> {
        self.list
    }

    /// Its entries, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.list.as_ref().map_or(&[], List::entries)
    }
}

/// The user's ranges among `prefixes`, each with the time that it lives, those around it included.
/// All that expired before `now` did so then: the kernel does not know a time before it was
/// started.
pub(crate) fn listed<'a>(
    prefixes: impl Iterator<Item = &'a Prefix>,
    now: Timestamp,
) -> impl Iterator<Item = (IpNet, Option<Timestamp>)> {
    let listed = prefixes.filter(|prefix| prefix.origins & Origin::List as u8 != 0);
    // Not a second that is still to come.
    let past = Timestamp::from_second(now.as_second()).unwrap_or(now);
    listed.map(move |prefix| {
        let second = |time| if time <= now { past } else { to_second(time) };
        (prefix.range, prefix.expires.map(second))
    })
}

/// What sets a list of these `sources` apart from one with the entries `before`, which is not in the kernel.
pub(crate) fn difference_from(before: &[Entry], sources: &Prefixes, now: Timestamp) -> Difference {
    let had = compile(before, &Sources::default());
    Difference::between(listed(had.iter(), now), listed(sources.iter(), now))
}

/// How many ranges or connections are named one by one.
pub(crate) const NAMED: usize = 20;

/// The first lines of many.
pub(crate) fn first_lines(lines: impl Iterator<Item = String>, count: usize) -> Vec<String> {
    let mut first: Vec<String> = lines.take(NAMED).collect();
    if count > NAMED {
        first.push(format!("and {} more", count - NAMED));
    }
    first
}

/// What is said of a list that changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// What becomes of which entry, a line each.
    pub(crate) entries: Vec<String>,
    /// How many entries come, go, and stay; none if that is of no interest.
    pub(crate) counts: Option<String>,
    /// Warnings and notes.
    pub(crate) notes: Vec<String>,
}

impl Words {
    /// All of it; of a change that `would` be made the counts say so.
    pub(crate) fn lines(&self, would: bool) -> impl Iterator<Item = String> {
        let counts = self.counts.iter().map(move |counts| match would {
            true => format!("would be: {counts}"),
            false => counts.clone(),
        });
        let entries = self.entries.iter().cloned();
        entries.chain(counts).chain(self.notes.iter().cloned())
    }
}

/// What becomes of which entry of the list `before` with `list`, which was compiled to `sources`.
pub(crate) fn in_words(
    difference: &Difference,
    before: &Before,
    list: &List,
    sources: &Prefixes,
    now: Timestamp,
) -> Words {
    let words = difference.in_words(before.entries(), list.entries(), Some(sources), now);
    let entries = first_lines(words, difference.count());
    let changed = difference.changed.len() + difference.edited.len();
    let counts = format!(
        "{} added, {} removed, {} unchanged{}",
        difference.added.len(),
        difference.removed.len(),
        difference.unchanged,
        match changed {
            0 => String::new(),
            changed => format!(", {changed} changed"),
        }
    );
    let mut lines = Vec::new();
    let mut outliving: Vec<String> = difference
        .outliving(list.entries(), sources)
        .map(|range| format!("`{range}`"))
        .collect();
    // One that is listed twice counts once.
    outliving.dedup();
    if let Some((last, others)) = outliving.split_last() {
        let more = match others.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        lines.push(format!(
            "warning: the expiry of {last}{more} has no effect: a wider range lets it in for longer"
        ));
    }
    lines.extend(remarks(list.entries(), |range| difference.brings(range)));
    match before {
        Before { edited: false, .. } => {}
        // A first `attach` on trial went back to no filter, and no file ever said that.
        Before {
            takes_edit: true,
            list: None,
            ..
        } => lines.push(
            "note: the ranges file was not in force; this brings it into force".to_owned(),
        ),
        Before {
            takes_edit: true, ..
        } => lines.push(
            "note: the ranges file was edited before, and was not in force; this brings the edit into force".to_owned(),
        ),
        _ => lines.push(
            "warning: the ranges file was edited before, and was not in force; what this list keeps of the edit comes into force with it; the edit is number 1 in `apifence ranges history`".to_owned(),
        ),
    }
    Words {
        entries,
        counts: Some(counts),
        notes: lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_has_expired_whatever_the_fraction_of_the_second() {
        for (millisecond, expires) in [(10_200, 5_000), (10_700, 5_000), (10_700, 10_600)] {
            let time = |millisecond| Timestamp::from_millisecond(millisecond).expect("a time");
            let prefix = Prefix {
                range: "192.0.2.20/32".parse().expect("a range"),
                origins: Origin::List as u8,
                expires: Some(time(expires)),
            };
            let now = time(millisecond);
            let (_, expired) = listed([&prefix].into_iter(), now)
                .next()
                .expect("it is listed");
            assert!(
                expired.is_some_and(|time| time <= now),
                "{expired:?} at {now}"
            );
        }
    }
}
