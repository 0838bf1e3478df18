//! What sets two lists apart.

use std::{cmp::Ordering, fmt};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::Entry;

/// The difference between the list that is there and the one that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Ranges that come.
    pub added: Vec<IpNet>,
    /// Ranges that go.
    pub removed: Vec<IpNet>,
    /// Ranges that stay, with another expiry.
    pub changed: Vec<IpNet>,
    /// How many ranges stay as they are.
    pub unchanged: usize,
}

/// How many ranges a line names.
const NAMED: usize = 4;

impl Difference {
    /// From the entries of a list to those of another one.
    pub fn new(have: &[Entry], want: &[Entry]) -> Self {
        let of = |entry: &Entry| (entry.range, entry.expires);
        Self::between(have.iter().map(of), want.iter().map(of))
    }

    /// From `have` to `want`, ranges with their expiries. A range that comes twice counts once.
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
                }
                _ => difference.unchanged += 1,
            }
        }
    }

    /// Whether the lists are the same.
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Each range that makes a difference, with its sign.
    pub fn signed(&self) -> impl Iterator<Item = String> {
        let sign = |sign: char| move |range: &IpNet| format!("{sign}{range}");
        let added = self.added.iter().map(sign('+'));
        let removed = self.removed.iter().map(sign('-'));
        added
            .chain(removed)
            .chain(self.changed.iter().map(sign('~')))
    }
}

/// Each range once, with its expiry; of several the latest, of which none is never.
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
        let all = self.added.len() + self.removed.len() + self.changed.len();
        if all == 0 {
            return f.write_str("no difference");
        }
        let named: Vec<String> = self.signed().take(NAMED).collect();
        f.write_str(&named.join(" "))?;
        if all > NAMED {
            write!(f, " and {} more", all - NAMED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
