//! The number of active ranges.

use anyhow::Result;
use filter_common::layout::{Origin, PrefixValue};

use super::{maps::Maps, slot::Slot, tries::for_each};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The name that users see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// The ranges of one generation, counted. Only expiries change the numbers, so one count answers
/// for any time.
#[derive(Clone, Debug, Default)]
pub struct RangeCounts {
    /// By family, and by origin in the order of [`Origin::ALL`].
    counts: [[Count; Origin::ALL.len()]; Family::BOTH.len()],
}

#[derive(Clone, Debug, Default)]
struct Count {
    /// Ranges without an expiry.
    lasting: usize,
    /// The expiries of the others, on the boot clock, sorted.
    expiries: Vec<u64>,
}

impl RangeCounts {
    /// How many ranges of `family` from `origin` authorize their sources at `boot` on the boot
    /// clock. A range may have several origins.
    pub fn count(&self, family: Family, origin: Origin, boot: u64) -> usize {
        let column = Origin::ALL
            .iter()
            .position(|other| *other == origin)
            .expect("`ALL` holds every origin");
        let count = &self.counts[family as usize][column];
        let expired = count.expiries.partition_point(|expiry| *expiry <= boot);
        count.lasting + count.expiries.len() - expired
    }

    fn add(&mut self, family: Family, value: PrefixValue) {
        for (count, origin) in self.counts[family as usize].iter_mut().zip(Origin::ALL) {
            if value.origins() & origin as u8 == 0 {
                continue;
            }
            match value.expires_at() {
                Some(expiry) => count.expiries.push(expiry),
                None => count.lasting += 1,
            }
        }
    }

    fn sort(&mut self) {
        for count in self.counts.as_flattened_mut() {
            count.expiries.sort_unstable();
        }
    }
}

impl Maps {
    /// Counts the ranges in `slot`: a walk over all of them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn range_counts(&self, slot: Slot) -> Result<RangeCounts> {
        let mut range_counts = RangeCounts::default();
        for_each(&self.sources_v4, slot, |_, value| {
            range_counts.add(Family::V4, value);
        })?;
        for_each(&self.sources_v6, slot, |_, value| {
            range_counts.add(Family::V6, value);
        })?;
        range_counts.sort();
        Ok(range_counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_for_each_origin_until_it_expires() {
        let mut range_counts = RangeCounts::default();
        let (list, node) = (Origin::List as u8, Origin::Node as u8);
        let hour = Some(3_600_000_000_000);
        range_counts.add(Family::V4, PrefixValue::new(24, list, None, 1, 0));
        range_counts.add(Family::V4, PrefixValue::new(32, list | node, hour, 2, 0));
        range_counts.add(Family::V6, PrefixValue::new(128, node, None, 3, 0));
        range_counts.sort();
        let expiry = PrefixValue::new(32, list, hour, 2, 0).expires_at();
        let expiry = expiry.expect("an hour is some time");
        let counts = |boot| {
            Family::BOTH
                .map(|family| Origin::ALL.map(|origin| range_counts.count(family, origin, boot)))
        };
        assert_eq!(counts(expiry - 1), [[2, 1, 0, 0], [0, 1, 0, 0]]);
        assert_eq!(counts(expiry), [[1, 0, 0, 0], [0, 1, 0, 0]]);
    }
}
