//! The change of a list, in words.

use filter_common::layout::{Origin, PolicyRecord};
use indicatif::HumanCount;
use ipnet::IpNet;
use jiff::Timestamp;

use super::build::former_lists;
use crate::{
    cli::ChangeArgs,
    clock::to_second,
    context::Context,
    policy::{Difference, Prefix, Prefixes, Sources, compile},
    ranges::{Entry, List, Lists, remarks},
    store::History,
};

/// The verb of errors about an interface.
pub(crate) const VERB: &str = "attach filter to";

/// The warning if the settings drop nothing.
pub(crate) const MONITOR: &str =
    "warning: mode monitor: nothing is dropped; `apifence enforce` starts dropping";

/// The lists as their files say before a change.
pub(crate) struct FoundLists {
    pub(crate) lists: Lists,
    /// Whether they are the wanted ones: the change brings files into force.
    pub(crate) is_wanted: bool,
    /// Whether the file that the change replaces cannot be used.
    pub(crate) is_broken: bool,
}

/// The lists that were in force before a change, as their owners wrote them.
#[derive(Default)]
pub(crate) struct PreviousList {
    list: Option<List>,
    /// Whether a file has an edit that is not in force.
    edited: bool,
    /// Whether the change brings that edit into force.
    takes_edit: bool,
}

impl PreviousList {
    /// The lists in force by `record`: those of the files, or some of the history.
    pub(crate) fn find(
        context: &Context,
        found: Option<FoundLists>,
        record: Option<&PolicyRecord>,
    ) -> Self {
        let Some(found) = found else {
            return Self::default();
        };
        let Some(record) = record else {
            return Self {
                list: Some(found.lists.union()),
                ..Self::default()
            };
        };
        let is_in_force = |lists: &Lists| lists.digest() == record.list;
        let edited = found.is_broken || !is_in_force(&found.lists);
        // Unchanged since they came into force.
        let is_edit = found.is_wanted && is_edited(context, &found.lists);
        if !edited && !is_edit {
            return Self {
                list: Some(found.lists.union()),
                ..Self::default()
            };
        }
        // A file is the edit; the history has the list before it.
        let former = former_lists(context, &found.lists);
        let saved = Some(context.last_good()).filter(|lists| !lists.is_empty());
        let broken = found.is_broken.then(|| found.lists.clone());
        let mut all = former.chain(broken).chain(saved);
        Self {
            list: all.find(is_in_force).map(|lists| lists.union()),
            edited,
            takes_edit: found.is_wanted && !found.is_broken,
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.list.as_ref().map_or(&[], List::entries)
    }

    /// The note about an edit of the ranges file that was not in force.
    const fn edit_note(&self) -> Option<&'static str> {
        match (self.edited, self.takes_edit, &self.list) {
            (false, ..) => None,
            // A first `attach` on trial was rolled back to no filter; no file ever held that.
            (_, true, None) => {
                Some("note: the ranges file was not in force; this change applies it")
            }
            (_, true, Some(_)) => Some(
                "note: the ranges file has an edit that was not in force; this change applies it",
            ),
            (_, false, _) => Some(
                "warning: the ranges file has an edit that was not in force; this change applies the entries that it keeps; the edit is number 1 in `apifence ranges history`",
            ),
        }
    }
}

/// Whether the file of one of the lists differs from what came into force last.
fn is_edited(context: &Context, lists: &Lists) -> bool {
    let files = context.list_files();
    let mut names = lists.iter().map(|(name, _)| name);
    names.any(|name| History::of(&files.file(name)).is_edited())
}

/// The user's ranges among `prefixes`, each with its effective expiry, wider ranges included. All
/// expiries before `now` become the same second: the kernel cannot store a time before its boot.
pub(crate) fn listed<'a>(
    prefixes: impl Iterator<Item = &'a Prefix>,
    now: Timestamp,
) -> impl Iterator<Item = (IpNet, Option<Timestamp>)> {
    let listed = prefixes.filter(|prefix| prefix.origins & Origin::List as u8 != 0);
    // Round down: rounding up would give a second in the future.
    let past = Timestamp::from_second(now.as_second()).unwrap_or(now);
    listed.map(move |prefix| {
        let second = |time| if time <= now { past } else { to_second(time) };
        (prefix.range, prefix.expires.map(second))
    })
}

/// The difference of `sources` from a list with the entries `before`, which is not in the kernel.
pub(crate) fn difference_from(before: &[Entry], sources: &Prefixes, now: Timestamp) -> Difference {
    let have = compile(before, &Sources::default());
    Difference::between(listed(have.iter(), now), listed(sources.iter(), now))
}

/// The lines about a change that is on trial for the time in `change`, until `until`.
pub(crate) fn on_trial(change: &ChangeArgs, until: Timestamp) -> String {
    let time = change.confirm_within.unwrap_or_default().as_secs();
    format!(
        "on trial for {time} s, until {until}: it reverts unless you confirm it\n\
         keep it:  apifence confirm\n\
         undo it:  apifence ranges rollback"
    )
}

/// How many ranges or connections are listed one by one.
pub(crate) const MAX_NAMED: usize = 20;

/// The first lines, and the number of the others.
pub(crate) fn first_lines(lines: impl Iterator<Item = String>, count: usize) -> Vec<String> {
    let mut first: Vec<String> = lines.take(MAX_NAMED).collect();
    if count > MAX_NAMED {
        first.push(format!("and {} more", count - MAX_NAMED));
    }
    first
}

/// The report of a list's change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// The changed entries, one line each.
    pub(crate) entries: Vec<String>,
    /// The number of added, removed and kept entries; none if it is not shown.
    pub(crate) counts: Option<String>,
    pub(crate) notes: Vec<String>,
}

impl Words {
    /// All lines; `would`: the change is not made, and the counts say so.
    pub(crate) fn lines(&self, would: bool) -> impl Iterator<Item = String> {
        let counts = self.counts.iter().map(move |counts| match would {
            true => format!("would be: {counts}"),
            false => counts.clone(),
        });
        let entries = self.entries.iter().cloned();
        entries.chain(counts).chain(self.notes.iter().cloned())
    }
}

/// The change from `before` to `list`, which was compiled to `sources`.
pub(crate) fn in_words(
    difference: &Difference,
    before: &PreviousList,
    list: &List,
    sources: &Prefixes,
    now: Timestamp,
) -> Words {
    let words = difference.in_words(before.entries(), list.entries(), Some(sources), now);
    let entries = first_lines(words, difference.count());
    let changed = difference.changed.len() + difference.edited.len();
    let counts = [
        (difference.added.len(), "added"),
        (difference.removed.len(), "removed"),
        (changed, "changed"),
        (difference.unchanged, "unchanged"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, what)| format!("{} {what}", HumanCount(count as u64)))
        .collect();
    let counts = match counts.is_empty() {
        true => "no entries changed".to_owned(),
        false => counts.join(", "),
    };
    let mut lines = Vec::new();
    let mut outliving: Vec<String> = difference
        .outliving(list.entries(), sources)
        .map(|range| format!("`{range}`"))
        .collect();
    // A range that is listed twice counts once.
    outliving.dedup();
    if let Some((last, others)) = outliving.split_last() {
        let more = match others.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        lines.push(format!(
            "warning: the expiry of {last}{more} has no effect: a wider range allows it for longer"
        ));
    }
    lines.extend(remarks(list.entries(), |range| {
        difference.is_new_or_changed(range)
    }));
    lines.extend(before.edit_note().map(str::to_owned));
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
    fn a_past_expiry_has_passed_at_any_fraction_of_a_second() {
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
