//! Compiles a list and the implicit sources to the prefixes of a generation.

use std::net::IpAddr;

use filter_common::layout::Origin;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::ranges::Entry;

/// A prefix that authorizes sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The range, its host bits zero.
    pub range: IpNet,
    /// Its origins, as bits of [`Origin`].
    pub origins: u8,
    /// The time when it no longer authorizes: the latest of its own expiry and those of the ranges
    /// around it.
    pub expires: Option<Timestamp>,
}

impl Prefix {
    /// Whether it authorizes its sources at `now`.
    pub fn lives(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|time| now < time)
    }
}

/// The prefixes of one generation, in the order of their ranges, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    sorted: Vec<Prefix>,
}

impl Prefixes {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.sorted.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The prefix with exactly this range.
    pub fn get(&self, range: &IpNet) -> Option<&Prefix> {
        let found = self
            .sorted
            .binary_search_by(|prefix| prefix.range.cmp(range));
        found.ok().map(|index| &self.sorted[index])
    }

    /// Whether `source` is in one of them at `now`.
    pub fn authorize(&self, source: IpAddr, now: Timestamp) -> bool {
        self.cover(&IpNet::from(source), now)
    }

    /// Whether all of `range` is in one of them at `now`.
    pub fn cover(&self, range: &IpNet, now: Timestamp) -> bool {
        (0..=range.prefix_len()).any(|len| {
            let around = IpNet::new_assert(range.addr(), len).trunc();
            self.get(&around).is_some_and(|prefix| prefix.lives(now))
        })
    }
}

/// Sorts and merges, whatever the order. A range that comes twice gets both origins and the later
/// expiry.
impl FromIterator<Prefix> for Prefixes {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut sorted: Vec<Prefix> = prefixes.into_iter().collect();
        // Most of them are sorted already, which makes this sort fast.
        sorted.sort_by_key(|prefix| prefix.range);
        sorted.dedup_by(|next, kept| {
            let same = next.range == kept.range;
            if same {
                kept.origins |= next.origins;
                kept.expires = later(kept.expires, next.expires);
            }
            same
        });
        // In this order a range follows those around it: the innermost of them is on top of the
        // stack.
        let mut around: Vec<Prefix> = Vec::new();
        for prefix in &mut sorted {
            while around
                .last()
                .is_some_and(|outer| !outer.range.contains(&prefix.range))
            {
                around.pop();
            }
            if let Some(outer) = around.last() {
                prefix.expires = later(prefix.expires, outer.expires);
            }
            around.push(*prefix);
        }
        Self { sorted }
    }
}

/// The prefixes whose sources are in each of `all`, with the earliest of their expiries; none if
/// `all` is empty.
///
/// A longest match there gives the same answer as one in each of `all`: the longest prefix around a
/// source in any of them is in the result, if it is in a prefix of each.
pub fn common(all: &[Prefixes]) -> Prefixes {
    let numbered = all.iter().enumerate();
    let mut prefixes: Vec<(Prefix, usize)> = numbered
        .flat_map(|(number, prefixes)| prefixes.iter().map(move |prefix| (*prefix, number)))
        .collect();
    prefixes.sort_by_key(|(prefix, _)| prefix.range);
    // As in `from_iter`: the prefixes around the present one, the innermost on top.
    let mut around: Vec<Vec<Prefix>> = vec![Vec::new(); all.len()];
    let mut sorted = Vec::new();
    for same in prefixes.chunk_by(|(one, _), (other, _)| one.range == other.range) {
        let range = same[0].0.range;
        for stack in &mut around {
            while stack
                .last()
                .is_some_and(|outer| !outer.range.contains(&range))
            {
                stack.pop();
            }
        }
        for (prefix, number) in same {
            around[*number].push(*prefix);
        }
        let innermost = around.iter().map(|stack| stack.last());
        if let Some(innermost) = innermost.collect::<Option<Vec<_>>>() {
            let expires = innermost.iter().filter_map(|prefix| prefix.expires).min();
            let origins = same
                .iter()
                .fold(0, |bits, (prefix, _)| bits | prefix.origins);
            sorted.push(Prefix {
                range,
                origins,
                expires,
            });
        }
    }
    Prefixes { sorted }
}

/// The later of two expiries; `None` is never.
fn later(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// The implicit sources: authorized without being listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The node's own addresses.
    pub node: Vec<IpNet>,
    /// The cluster's egress addresses.
    pub outbound: Vec<IpNet>,
    /// The cluster's CIDRs.
    pub cluster: Vec<IpNet>,
}

/// The prefixes that authorize a source.
pub fn compile(entries: &[Entry], implicit: &Sources) -> Prefixes {
    let listed = entries.iter().map(|entry| Prefix {
        range: entry.range,
        origins: Origin::List as u8,
        expires: entry.expires,
    });
    let implicit = [
        (&implicit.node, Origin::Node),
        (&implicit.outbound, Origin::Outbound),
        (&implicit.cluster, Origin::Cluster),
    ];
    let implicit = implicit.into_iter().flat_map(|(ranges, origin)| {
        ranges.iter().map(move |range| Prefix {
            range: *range,
            origins: origin as u8,
            expires: None,
        })
    });
    listed.chain(implicit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn entry(range: &str, expires: Option<i64>) -> Entry {
        Entry {
            range: range.parse().expect("a range"),
            expires: expires.map(time),
            comment: None,
        }
    }

    #[test]
    fn a_range_of_two_origins_is_one_prefix() {
        let implicit = Sources {
            cluster: vec!["198.51.100.0/24".parse().expect("a range")],
            ..Sources::default()
        };
        let prefixes = compile(&[entry("198.51.100.0/24", Some(5))], &implicit);
        let have: Vec<_> = prefixes
            .iter()
            .map(|prefix| (prefix.origins, prefix.expires))
            .collect();
        assert_eq!(have, [(Origin::List as u8 | Origin::Cluster as u8, None)]);
    }

    #[test]
    fn the_longest_lived_cover_wins() {
        let entries = [
            entry("10.1.2.0/24", Some(10)),
            entry("10.1.0.0/16", Some(30)),
            entry("10.0.0.0/8", Some(20)),
            entry("10.1.2.3/32", Some(40)),
            entry("10.1.2.3/32", Some(15)),
            entry("11.0.0.0/8", Some(5)),
            entry("2001:db8::/32", None),
            entry("2001:db8:aa::/48", Some(1)),
        ];
        let prefixes = compile(&entries, &Sources::default());
        let have: Vec<_> = prefixes
            .iter()
            .map(|prefix| {
                (
                    prefix.range.to_string(),
                    prefix.expires.map(Timestamp::as_second),
                )
            })
            .collect();
        let want = [
            ("10.0.0.0/8", Some(20)),
            ("10.1.0.0/16", Some(30)),
            ("10.1.2.0/24", Some(30)),
            ("10.1.2.3/32", Some(40)),
            ("11.0.0.0/8", Some(5)),
            ("2001:db8::/32", None),
            ("2001:db8:aa::/48", None),
        ];
        assert_eq!(
            have,
            want.map(|(range, expires)| (range.to_owned(), expires))
        );
    }

    /// The longest match of the kernel gives the same answer as a scan of all entries.
    #[test]
    fn the_longest_match_agrees_with_a_scan_of_all_entries() {
        let entries: Vec<Entry> = (0..64)
            .map(|n: u32| {
                entry(
                    &format!("10.{}.0.0/{}", (n * 37) & 7, 8 + n % 9),
                    (!n.is_multiple_of(5)).then_some(i64::from(n * 29 % 17)),
                )
            })
            .map(|entry| Entry {
                range: entry.range.trunc(),
                ..entry
            })
            .collect();
        let prefixes = compile(&entries, &Sources::default());
        for second in 0..18 {
            for third in 0..16 {
                let source: IpAddr = format!("10.{third}.0.1").parse().expect("an address");
                let all = entries.iter().any(|entry| {
                    entry.range.contains(&source)
                        && entry.expires.is_none_or(|at| time(second) < at)
                });
                let longest = prefixes
                    .iter()
                    .filter(|prefix| prefix.range.contains(&source))
                    .max_by_key(|prefix| prefix.range.prefix_len())
                    .is_some_and(|prefix| prefix.expires.is_none_or(|at| time(second) < at));
                assert_eq!(longest, all, "{source} at {second}");
                assert_eq!(
                    prefixes.authorize(source, time(second)),
                    all,
                    "{source} at {second}"
                );
            }
        }
    }

    /// A longest match in the common prefixes gives the same answer as a scan of the entries of
    /// each list.
    #[test]
    fn the_common_sources_are_those_that_a_scan_finds_in_every_list() {
        let mut rng = fastrand::Rng::with_seed(6443);
        let mut both = [0; 2];
        for _ in 0..200 {
            let lists: Vec<Vec<Entry>> = (0..rng.usize(1..4))
                .map(|_| (0..rng.usize(0..12)).map(|_| any_entry(&mut rng)).collect())
                .collect();
            let all: Vec<Prefixes> = lists
                .iter()
                .map(|list| compile(list, &Sources::default()))
                .collect();
            let common = common(&all);
            for _ in 0..100 {
                let (source, at) = (any_address(&mut rng), time(rng.i64(0..8)));
                let is_in = |entry: &Entry| {
                    entry.range.contains(&source) && entry.expires.is_none_or(|time| at < time)
                };
                let want = lists.iter().all(|list| list.iter().any(is_in));
                let longest = common
                    .iter()
                    .filter(|prefix| prefix.range.contains(&source))
                    .max_by_key(|prefix| prefix.range.prefix_len());
                let have = longest.is_some_and(|prefix| prefix.lives(at));
                assert_eq!(have, want, "{source} at {at}: {lists:?}");
                both[usize::from(want)] += 1;
            }
        }
        assert!(both[0] > 1_000 && both[1] > 1_000, "{both:?}");
        assert!(common(&[]).is_empty());
    }

    /// One of few, so that entries are often inside others.
    fn any_address(rng: &mut fastrand::Rng) -> IpAddr {
        match rng.bool() {
            true => [10, rng.u8(0..4) << 6, 0, rng.u8(0..4)].into(),
            false => [0x2001, rng.u16(0..4) << 14, 0, 0, 0, 0, 0, rng.u16(0..4)].into(),
        }
    }

    fn any_entry(rng: &mut fastrand::Rng) -> Entry {
        let address = any_address(rng);
        let most = if address.is_ipv4() { 32 } else { 128 };
        let lens = [0, 8, 9, 10, 16, 17, 18, 31, 32, 127, 128];
        let lens: Vec<u8> = lens.into_iter().filter(|len| *len <= most).collect();
        let len = *rng.choice(&lens).expect("there are some");
        Entry {
            range: IpNet::new_assert(address, len).trunc(),
            expires: rng.bool().then(|| time(rng.i64(0..8))),
            comment: None,
        }
    }
}
