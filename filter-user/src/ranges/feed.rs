//! Lists that programs fetch: how much a list lets in, and whether it changed too much to be true.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Entry, List, RangesFile};

impl RangesFile {
    /// The same sources until the same times in as few ranges as possible. Comments stay on ranges
    /// that stay.
    #[must_use]
    pub fn joined(&self) -> Self {
        let list = self.list();
        if list == List::Off {
            return self.clone();
        }
        let mut by_expiry: BTreeMap<Option<Timestamp>, Vec<IpNet>> = BTreeMap::new();
        let mut comments = BTreeMap::new();
        for entry in list.entries() {
            by_expiry
                .entry(entry.expires)
                .or_default()
                .push(entry.range);
            comments.insert((entry.range, entry.expires), entry.comment.clone());
        }
        let joined = by_expiry.into_iter().flat_map(|(expires, ranges)| {
            let ranges = IpNet::aggregate(&ranges).into_iter();
            ranges.map(move |range| (range, expires))
        });
        let entries = joined.map(|(range, expires)| Entry {
            range,
            expires,
            comment: comments.remove(&(range, expires)).flatten(),
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by_key(|entry| (entry.range, entry.expires));
        Self::new(&List::Ranges(entries))
    }
}

/// How much a list lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Ranges, after joining.
    ranges: u128,
    /// IPv4 addresses.
    ipv4: u128,
    /// IPv6 networks of /64, the smallest that a site gets; smaller ranges count as one.
    ipv6: u128,
}

impl Size {
    /// The size of a list with these entries.
    pub fn of(entries: &[Entry]) -> Self {
        let ranges: Vec<IpNet> = entries.iter().map(|entry| entry.range).collect();
        let joined = IpNet::aggregate(&ranges);
        let mut size = Self {
            ranges: joined.len() as u128,
            ..Self::default()
        };
        for range in joined {
            match range {
                IpNet::V4(range) => size.ipv4 += 1 << (32 - range.prefix_len()),
                IpNet::V6(range) => size.ipv6 += 1 << 64_u8.saturating_sub(range.prefix_len()),
            }
        }
        size
    }

    /// How this differs from the size `before` by more than `most` percent; `None` if it does not,
    /// or there was nothing before.
    pub fn changed_too_much(self, before: Self, most: u32) -> Option<String> {
        if before.ranges == 0 {
            return None;
        }
        let pairs = [
            ("ranges", before.ranges, self.ranges),
            ("IPv4 addresses", before.ipv4, self.ipv4),
            ("IPv6 networks of /64", before.ipv6, self.ipv6),
        ];
        pairs.into_iter().find_map(|(what, before, now)| {
            let change = now.abs_diff(before).saturating_mul(100);
            (change > before.saturating_mul(u128::from(most))).then(|| {
                format!("it has {now} {what} instead of {before}, a change of more than {most} %")
            })
        })
    }

    /// A remark on a list that allows so many addresses that anyone may have one of them.
    pub fn remark(self) -> Option<String> {
        /// A /12: the largest networks of single organisations are about as large.
        const MANY: u128 = 1 << 20;
        (self.ipv4 >= MANY).then(|| {
            format!(
                "note: the list allows {} IPv4 addresses, {:.1} % of all: if a provider rents them out, anyone can get one",
                Millions(self.ipv4),
                self.ipv4 as f64 * 100.0 / 2_f64.powi(32)
            )
        })
    }
}

struct Millions(u128);

impl fmt::Display for Millions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} million", self.0 as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RangesFile {
        RangesFile::parse(text).expect(text)
    }

    fn size(text: &str) -> Size {
        Size::of(file(text).list().entries())
    }

    #[test]
    fn joining_merges_neighbours_that_expire_together() {
        let until = "expires=2099-01-01T00:00:00Z";
        let joined = file(&format!(
            "192.0.2.128/25\n192.0.2.0/25\n192.0.2.7 # inside\n203.0.113.0/25 {until}\n203.0.113.128/25\n2001:db8::/33\n2001:db8:8000::/33\n198.51.100.0/24 # kept\n"
        ))
        .joined();
        assert_eq!(
            joined.to_string(),
            format!(
                "192.0.2.0/24\n198.51.100.0/24 # kept\n203.0.113.0/25 {until}\n203.0.113.128/25\n2001:db8::/32\n"
            )
        );
        for text in ["disabled\n", "empty\n"] {
            assert_eq!(file(text).joined().list(), file(text).list());
        }
    }

    #[test]
    fn a_list_that_changes_too_much_is_told_by_what_changed() {
        let before = size("192.0.2.0/24\n198.51.100.0/24\n2001:db8::/48\n");
        assert_eq!(before.changed_too_much(before, 0), None);
        for (text, most, want) in [
            ("192.0.2.0/24\n2001:db8::/48\n", 20, "2 ranges instead of 3"),
            (
                "192.0.2.0/24\n198.51.100.0/23\n2001:db8::/48\n",
                20,
                "768 IPv4 addresses instead of 512",
            ),
            (
                "192.0.2.0/24\n198.51.100.0/24\n2001:db8::/47\n",
                99,
                "131072 IPv6 networks of /64",
            ),
        ] {
            let cause = size(text).changed_too_much(before, most).expect(text);
            assert!(cause.contains(want), "{cause}");
        }
        assert_eq!(
            size("192.0.2.0/24\n").changed_too_much(size("empty\n"), 0),
            None
        );
    }

    #[test]
    fn a_list_that_admits_millions_is_remarked_on() {
        let remark = size("10.0.0.0/8\n10.1.0.0/16\n")
            .remark()
            .expect("a remark");
        assert!(
            remark.contains("16.8 million IPv4 addresses, 0.4 %"),
            "{remark}"
        );
        assert_eq!(size("192.0.2.0/24\n2001:db8::/32\n").remark(), None);
        assert_eq!(size("0.0.0.0/0\n::/0\n").ipv6, 1 << 64);
    }
}
