//! The difference between two lists.

use std::{cmp::Ordering, fmt};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::compile::{Prefix, Prefixes};
use crate::ranges::Entry;

/// The difference between the list in force and the wanted list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// New ranges.
    pub added: Vec<IpNet>,
    /// Removed ranges.
    pub removed: Vec<IpNet>,
    /// Kept ranges with another expiry.
    pub changed: Vec<IpNet>,
    /// Ranges that authorize as before, but whose entry differs: in its comment, or in an expiry
    /// that a wider range overrides.
    pub edited: Vec<IpNet>,
    /// The number of ranges without a change.
    pub unchanged: usize,
    /// The expiry of each of `changed` before and after; `None` is never.
    #[serde(skip)]
    lives: Vec<(Option<Timestamp>, Option<Timestamp>)>,
}

/// The number of ranges that a line names.
const MAX_NAMED: usize = 4;

impl Difference {
    /// Compares the entries of two lists.
    pub fn new(have: &[Entry], want: &[Entry]) -> Self {
        let of = |entry: &Entry| (entry.range, entry.expires);
        let mut difference = Self::between(have.iter().map(of), want.iter().map(of));
        difference.note_edits(have, want);
        difference
    }

    /// No difference between two lists of `unchanged` ranges.
    pub fn none(unchanged: usize) -> Self {
        Self {
            unchanged,
            ..Self::default()
        }
    }

    /// Compares ranges with their expiries. A range that comes twice counts once.
    pub fn between(
        have: impl Iterator<Item = (IpNet, Option<Timestamp>)>,
        want: impl Iterator<Item = (IpNet, Option<Timestamp>)>,
    ) -> Self {
        let (have, want) = (sorted(have), sorted(want));
        let (mut have, mut want) = (have.iter().peekable(), want.iter().peekable());
        let mut difference = Self::default();
        loop {
            let order = match (have.peek(), want.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return difference,
            };
            let old = have.next_if(|_| order.is_le());
            let new = want.next_if(|_| order.is_ge());
            match (old, new) {
                (Some((range, _)), None) => difference.removed.push(*range),
                (None, Some((range, _))) => difference.added.push(*range),
                (Some((_, had)), Some((range, has))) if had != has => {
                    difference.changed.push(*range);
                    difference.lives.push((*had, *has));
                }
                _ => difference.unchanged += 1,
            }
        }
    }

    /// Moves unchanged ranges whose entries differ to the edited ones. Both lists are sorted, as
    /// [`super::RangesFile::list`] returns them.
    pub fn note_edits(&mut self, have: &[Entry], want: &[Entry]) {
        let (mut have, mut want) = (have, want);
        while let (Some(old), Some(new)) = (have.first(), want.first()) {
            let range = old.range.min(new.range);
            let one = take_range(&mut have, range);
            let other = take_range(&mut want, range);
            let counted = |ranges: &[IpNet]| ranges.binary_search(&range).is_ok();
            if !one.is_empty()
                && !other.is_empty()
                && one != other
                && !counted(&self.changed)
                && !counted(&self.added)
                && !counted(&self.edited)
            {
                self.edited.push(range);
                self.unchanged = self.unchanged.saturating_sub(1);
            }
        }
    }

    /// Whether the lists are the same.
    pub fn is_none(&self) -> bool {
        self.count() == 0
    }

    /// The number of ranges with a difference.
    pub fn count(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len() + self.edited.len()
    }

    /// Whether the range is new, or has another expiry.
    pub fn is_new_or_changed(&self, range: &IpNet) -> bool {
        [&self.added, &self.changed]
            .iter()
            .any(|ranges| ranges.binary_search(range).is_ok())
    }

    /// Each range with a difference, with its sign.
    pub fn signed(&self) -> impl Iterator<Item = String> {
        let sign = |sign: char| move |range: &IpNet| format!("{sign}{range}");
        let added = self.added.iter().map(sign('+'));
        let removed = self.removed.iter().map(sign('-'));
        added
            .chain(removed)
            .chain(self.changed.iter().map(sign('~')))
            .chain(self.edited.iter().map(sign('~')))
    }

    /// Each range with a difference, and the change of its entry in words. `before` and `after` are
    /// the sorted entries of both lists; `sources` is the compiled second list, if there is one.
    pub fn in_words<'a>(
        &'a self,
        before: &'a [Entry],
        after: &'a [Entry],
        sources: Option<&'a Prefixes>,
        now: Timestamp,
    ) -> impl Iterator<Item = String> + 'a {
        let around = move |range: &IpNet, own: Timestamp| outlives(sources?, range, own);
        let added = self.added.iter().map(move |range| {
            let new = entry(after, range);
            let until = match new.and_then(|entry| entry.expires) {
                None => String::new(),
                Some(time) => match around(range, time) {
                    Some(outer) => overridden(time, &outer),
                    None if time <= now => format!(", expired {time}: allows no source"),
                    None => format!(", until {time}"),
                },
            };
            format!("+{}{until}", named(range, new))
        });
        let removed = self.removed.iter().map(move |range| {
            let old = entry(before, range);
            let expired = old
                .and_then(|entry| entry.expires)
                .filter(|time| *time <= now);
            let expired = expired.map_or_else(String::new, |time| format!(", expired {time}"));
            format!("-{}{expired}", named(range, old))
        });
        let changed = self
            .changed
            .iter()
            .zip(&self.lives)
            .map(move |(range, lives)| {
                let (old, new) = (entry(before, range), entry(after, range));
                let own = new.and_then(|entry| entry.expires);
                let outer = own.and_then(|time| Some((time, around(range, time)?)));
                let life = match outer {
                    Some((time, outer)) => overridden(time, &outer),
                    None => life(*lives, now),
                };
                match comment(old, new) {
                    Some(comment) => format!("~{range}{life}, {comment}"),
                    None => format!("~{}{life}", named(range, new)),
                }
            });
        let edited = self.edited.iter().map(move |range| {
            let (old, new) = (entry(before, range), entry(after, range));
            edited(range, old, new, |time| around(range, time))
        });
        added.chain(removed).chain(changed).chain(edited)
    }

    /// The new or changed ranges whose own expiry in `after` has no effect, since a wider range
    /// authorizes them for longer.
    pub fn outliving<'a>(
        &'a self,
        after: &'a [Entry],
        sources: &'a Prefixes,
    ) -> impl Iterator<Item = IpNet> + 'a {
        // Few entries expire.
        let expiring = after.iter().filter(|entry| entry.expires.is_some());
        let ranges = expiring.map(|entry| entry.range);
        ranges.filter(move |range| {
            let is_told = self.is_new_or_changed(range) || self.edited.binary_search(range).is_ok();
            let own = entry(after, range).and_then(|entry| entry.expires);
            is_told && own.is_some_and(|time| outlives(sources, range, time).is_some())
        })
    }
}

/// Text for an edited entry; `around` finds the range that outlives an expiry.
fn edited(
    range: &IpNet,
    old: Option<&Entry>,
    new: Option<&Entry>,
    around: impl Fn(Timestamp) -> Option<Prefix>,
) -> String {
    let expiry = |entry: Option<&Entry>| entry.and_then(|entry| entry.expires);
    let life = match (expiry(old), expiry(new)) {
        (old, new) if old == new => String::new(),
        (_, None) => ", expiry removed".to_owned(),
        (_, Some(time)) => match around(time) {
            Some(outer) => overridden(time, &outer),
            None => format!(", until {time}"),
        },
    };
    let comment = comment(old, new).map_or_else(String::new, |text| format!(", {text}"));
    format!("~{range}{life}{comment}")
}

/// The range with its comment.
fn named(range: &IpNet, entry: Option<&Entry>) -> String {
    match entry.and_then(|entry| entry.comment.as_ref()) {
        Some(comment) => format!("{range} ({comment})"),
        None => range.to_string(),
    }
}

/// The entry of `range` among the sorted `entries`; of several the one with the latest expiry,
/// since that one counts.
pub fn entry<'a>(entries: &'a [Entry], range: &IpNet) -> Option<&'a Entry> {
    let start = entries.partition_point(|entry| entry.range < *range);
    let same = entries[start..]
        .iter()
        .take_while(|entry| entry.range == *range);
    same.max_by_key(|entry| entry.expires.unwrap_or(Timestamp::MAX))
}

/// Removes all entries of `range` from the front of `entries`.
fn take_range<'a>(entries: &mut &'a [Entry], range: IpNet) -> &'a [Entry] {
    let len = entries
        .iter()
        .take_while(|entry| entry.range == range)
        .count();
    let (taken, rest) = entries.split_at(len);
    *entries = rest;
    taken
}

/// The range around `range` that authorizes it beyond `own`, its entry's expiry.
fn outlives(sources: &Prefixes, range: &IpNet, own: Timestamp) -> Option<Prefix> {
    let life = sources.get(range)?.expires;
    if life.is_some_and(|time| time <= own) {
        return None;
    }
    let mut around = *range;
    while let Some(outer) = around.supernet() {
        around = outer;
        // A prefix lives as long as the longest-lived one around it: the outermost of those sets
        // that time.
        if let Some(found) = sources.get(&around)
            && found.expires == life
        {
            return Some(*found);
        }
    }
    None
}

/// Text for an entry whose own expiry is `time`, inside `outer`.
fn overridden(time: Timestamp, outer: &Prefix) -> String {
    let until = match outer.expires {
        None => "which does not expire".to_owned(),
        Some(until) => format!("until {until}"),
    };
    format!(
        ", stays in force after {time}: inside {}, {until}",
        outer.range
    )
}

/// Text for a range with another expiry.
fn life((had, has): (Option<Timestamp>, Option<Timestamp>), now: Timestamp) -> String {
    let expired = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    match (had, has) {
        (_, Some(time)) if time <= now => format!(", expired {time}: allows no source"),
        (had, None) if expired(had) => {
            ", in force again, and does not expire (it had expired)".to_owned()
        }
        (had, Some(time)) if expired(had) => {
            format!(", in force again, until {time} (it had expired)")
        }
        (Some(time), None) => format!(", does not expire (was until {time})"),
        (None, Some(time)) => format!(", until {time} (did not expire)"),
        (Some(before), Some(time)) => format!(", until {time} (was until {before})"),
        (None, None) => String::new(),
    }
}

/// Text for a changed comment; `None` without a change.
fn comment(old: Option<&Entry>, new: Option<&Entry>) -> Option<String> {
    let of = |entry: Option<&Entry>| entry.and_then(|entry| entry.comment.clone());
    match (of(old), of(new)) {
        (before, now) if before == now => None,
        (None, Some(now)) => Some(format!("comment `{now}`")),
        (Some(before), Some(now)) => Some(format!("comment `{now}` (was `{before}`)")),
        (Some(before), None) => Some(format!("no comment (was `{before}`)")),
        (None, None) => None,
    }
}

/// Each range once, with its expiry; of several the latest; `None` is never.
fn sorted(
    ranges: impl Iterator<Item = (IpNet, Option<Timestamp>)>,
) -> Vec<(IpNet, Option<Timestamp>)> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.zip(next.1).map(|(one, other)| one.max(other));
        }
        same
    });
    ranges
}

/// One line, however long the lists are.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.count();
        if all == 0 {
            return f.write_str("no difference");
        }
        let named: Vec<String> = self.signed().take(MAX_NAMED).collect();
        f.write_str(&named.join(" "))?;
        if all > MAX_NAMED {
            write!(f, " and {} more", all - MAX_NAMED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile::{Sources, compile};

    fn list(ranges: &[(&str, Option<i64>)]) -> Vec<Entry> {
        ranges
            .iter()
            .map(|(range, expires)| Entry {
                range: range.parse().expect("a range"),
                expires: expires.map(|second| Timestamp::from_second(second).expect("a time")),
                comment: None,
            })
            .collect()
    }

    #[test]
    fn each_range_is_on_one_side() {
        let have = list(&[
            ("10.0.0.0/8", None),
            ("192.0.2.0/24", Some(5)),
            ("198.51.100.0/24", None),
        ]);
        let want = list(&[
            ("10.0.0.0/8", None),
            ("192.0.2.0/24", Some(9)),
            ("2001:db8::/32", None),
            ("2001:db8::/32", Some(3)),
        ]);
        let difference = Difference::new(&have, &want);
        assert_eq!(
            difference.to_string(),
            "+2001:db8::/32 -198.51.100.0/24 ~192.0.2.0/24"
        );
        assert_eq!(difference.unchanged, 1);
        assert!(Difference::new(&want, &want).is_none());
    }

    fn with_comment(mut list: Vec<Entry>, comment: &str) -> Vec<Entry> {
        list[0].comment = Some(comment.to_owned());
        list
    }

    /// The text of the difference between two lists, at second 10.
    fn words(before: &[Entry], after: &[Entry]) -> Vec<String> {
        let now = Timestamp::from_second(10).expect("a time");
        let sources = |entries: &[Entry]| compile(entries, &Sources::default());
        let (have, want) = (sources(before), sources(after));
        let lives = |prefixes: &Prefixes| -> Vec<_> {
            let lives = prefixes.iter();
            lives
                .map(|prefix| (prefix.range, prefix.expires.map(|time| time.max(now))))
                .collect()
        };
        let mut difference =
            Difference::between(lives(&have).into_iter(), lives(&want).into_iter());
        difference.note_edits(before, after);
        difference
            .in_words(before, after, Some(&want), now)
            .collect()
    }

    #[test]
    fn the_text_names_the_change_of_an_entry() {
        let (none, at) = (None, |second| Some(second));
        let one = |expires| list(&[("192.0.2.20/32", expires)]);
        for (before, after, want) in [
            (
                one(at(5)),
                one(none),
                "~192.0.2.20/32, in force again, and does not expire (it had expired)",
            ),
            (
                one(at(5)),
                one(at(99)),
                "~192.0.2.20/32, in force again, until 1970-01-01T00:01:39Z (it had expired)",
            ),
            (
                one(at(50)),
                one(none),
                "~192.0.2.20/32, does not expire (was until 1970-01-01T00:00:50Z)",
            ),
            (
                one(none),
                one(at(50)),
                "~192.0.2.20/32, until 1970-01-01T00:00:50Z (did not expire)",
            ),
            (
                one(at(50)),
                one(at(5)),
                "~192.0.2.20/32, expired 1970-01-01T00:00:10Z: allows no source",
            ),
            (
                one(none),
                with_comment(one(none), "x"),
                "~192.0.2.20/32, comment `x`",
            ),
            (
                with_comment(one(none), "x"),
                one(none),
                "~192.0.2.20/32, no comment (was `x`)",
            ),
            (
                Vec::new(),
                with_comment(one(at(50)), "x"),
                "+192.0.2.20/32 (x), until 1970-01-01T00:00:50Z",
            ),
            (
                one(at(5)),
                Vec::new(),
                "-192.0.2.20/32, expired 1970-01-01T00:00:05Z",
            ),
        ] {
            assert_eq!(words(&before, &after), [want]);
        }
        assert_eq!(words(&one(at(50)), &one(at(50))), [""; 0]);
    }

    #[test]
    fn a_wider_range_that_lives_longer_is_named() {
        let contractor = ("192.0.2.20/32", Some(50));
        let before = with_comment(list(&[contractor]), "contractor");
        let mut after = list(&[("192.0.2.0/24", None), contractor]);
        after[1].comment = Some("contractor".to_owned());
        assert_eq!(
            words(&before, &after),
            [
                "+192.0.2.0/24",
                "~192.0.2.20/32 (contractor), stays in force after 1970-01-01T00:00:50Z: inside 192.0.2.0/24, which does not expire",
            ]
        );
        // The expiry has no effect if the wider range lives longer.
        let same = list(&[("192.0.2.0/24", Some(50)), contractor]);
        assert_eq!(
            words(&list(&[contractor]), &same),
            ["+192.0.2.0/24, until 1970-01-01T00:00:50Z"]
        );
        // An expiry without effect on packets is shown, too.
        let edited = list(&[("192.0.2.0/24", None), ("192.0.2.20/32", Some(90))]);
        assert_eq!(
            words(&list(&[("192.0.2.0/24", None), contractor]), &edited),
            [
                "~192.0.2.20/32, stays in force after 1970-01-01T00:01:30Z: inside 192.0.2.0/24, which does not expire"
            ]
        );
    }
}
