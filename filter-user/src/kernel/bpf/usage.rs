//! Usage counters of each range.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use aya::maps::{Map, MapData, MapError, PerCpuHashMap};
use filter_common::layout::{MAX_USAGE, USAGE, Usage};
use jiff::Timestamp;

use super::{
    batch::Batch,
    maps::Maps,
    slot::{PerSlot, Slot, open_data},
    tries::{self, RangeId},
};
use crate::{
    clock::Clocks,
    policy::{Prefix, Prefixes},
    ui::explain::explain,
};

/// The prefixes of a generation, each with its identity, in the order of their ranges.
pub(super) type Known = Vec<(Prefix, RangeId)>;

/// Reads the prefixes in `slot` with their ids.
pub(super) fn known(v4: &PerSlot, v6: &PerSlot, slot: Slot, now: &Clocks) -> Result<Known> {
    let mut known = tries::all::<4>(v4, slot, now)?;
    known.extend(tries::all::<16>(v6, slot, now)?);
    known.sort_unstable_by_key(|(prefix, _)| prefix.range);
    Ok(known)
}

/// Assigns an id to each prefix: the existing one if `known` holds its range, otherwise a new one,
/// added at `now`.
pub(super) fn assign_ids(
    prefixes: &Prefixes,
    known: &Known,
    next_id: &mut u32,
    now: &Clocks,
) -> Vec<RangeId> {
    let since = (now.boot / NANOSECONDS) as u32;
    let mut known = known.iter().peekable();
    let ids = prefixes.iter().map(|prefix| {
        while known.next_if(|(had, _)| had.range < prefix.range).is_some() {}
        match known.next_if(|(had, _)| had.range == prefix.range) {
            Some((_, identity)) => *identity,
            None => {
                let id = *next_id;
                *next_id = next_id.wrapping_add(1);
                RangeId { id, since }
            }
        }
    });
    ids.collect()
}

const NANOSECONDS: u64 = 1_000_000_000;

/// An active prefix and its usage.
pub struct Used {
    /// The prefix.
    pub prefix: Prefix,
    /// Packets that it authorized; `None` if there was no room to count them.
    pub packets: Option<u64>,
    /// The time of the last one.
    pub last_seen: Option<Timestamp>,
    /// Start of the counting: when the range was added.
    pub counted_since: Timestamp,
}

/// The usage of a range by its key: finding the range itself needs a walk over all of them.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The key; constant from one generation to the next as long as the range stays.
    pub id: u32,
    /// Packets that it authorized.
    pub packets: u64,
    /// The time of the last one.
    pub last_seen: Timestamp,
}

impl Maps {
    /// Every usage entry, including those of removed ranges, in no order. The cost depends on the
    /// used ranges, not on the length of the list.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn uses(&self, now: &Clocks) -> Result<Vec<Use>> {
        let uses = self.read_usage()?.into_iter().map(|(id, usage)| Use {
            id,
            packets: usage.packets,
            last_seen: now.wall_at_monotonic(usage.last_seen),
        });
        Ok(uses.collect())
    }

    /// The ranges in `slot` with the usage keys `ids`: a walk over all of them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ranges_of(
        &self,
        slot: Slot,
        ids: &HashSet<u32>,
        now: &Clocks,
    ) -> Result<HashMap<u32, Prefix>> {
        let wanted = |id: u32| ids.contains(&id);
        let mut found = tries::with_ids::<4>(&self.sources_v4, slot, now, wanted)?;
        found.extend(tries::with_ids::<16>(&self.sources_v6, slot, now, wanted)?);
        let ranges = found.into_iter();
        Ok(ranges
            .map(|(prefix, identity)| (identity.id, prefix))
            .collect())
    }

    fn read_usage(&self) -> Result<HashMap<u32, Usage>> {
        let mut found: HashMap<u32, Usage> = HashMap::new();
        let read = Batch::of(&self.usage)?.read(|key, values| {
            let sum = found.entry(bytemuck::pod_read_unaligned(key)).or_default();
            for value in values.chunks_exact(size_of::<Usage>()) {
                let usage: Usage = bytemuck::pod_read_unaligned(value);
                sum.packets += usage.packets;
                sum.last_seen = sum.last_seen.max(usage.last_seen);
            }
        });
        read.map_err(|error| explain("read usage", &error))?;
        Ok(found)
    }

    /// The usage of each range in `slot`, summed over the CPUs, in the order of the ranges.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn used(&self, slot: Slot, now: &Clocks) -> Result<Vec<Used>> {
        let found = self.read_usage()?;
        let full = found.len() >= MAX_USAGE as usize;
        let mut prefixes = tries::all::<4>(&self.sources_v4, slot, now)?;
        prefixes.extend(tries::all::<16>(&self.sources_v6, slot, now)?);
        prefixes.sort_unstable_by_key(|(prefix, _)| prefix.range);
        let used = prefixes.into_iter().map(|(prefix, identity)| {
            let usage = found.get(&identity.id);
            Used {
                prefix,
                packets: match usage {
                    Some(usage) => Some(usage.packets),
                    None => (!full).then_some(0),
                },
                last_seen: usage.map(|usage| now.wall_at_monotonic(usage.last_seen)),
                counted_since: now.wall_at_boot(u64::from(identity.since) * NANOSECONDS),
            }
        });
        Ok(used.collect())
    }

    /// Once the usage map is half full, removes entries of ranges that neither generation holds.
    ///
    /// # Errors
    /// If the kernel refuses; new ranges may then find no room, and are not counted.
    pub fn make_room_for_usage(&self) -> Result<()> {
        let verb = "make room to count usage";
        let mut counted: HashSet<u32> = HashSet::new();
        Batch::of(&self.usage)?
            .read(|key, _| {
                counted.insert(bytemuck::pod_read_unaligned(key));
            })
            .map_err(|error| explain(verb, &error))?;
        if counted.len() <= MAX_USAGE as usize / 2 {
            return Ok(());
        }
        let now = Clocks::now()?;
        let current = self.active_slot()?;
        for slot in [current, current.other()] {
            for (_, identity) in known(&self.sources_v4, &self.sources_v6, slot, &now)? {
                counted.remove(&identity.id);
            }
        }
        let data = open_data(&self.directory, USAGE)?;
        let mut map: PerCpuHashMap<MapData, u32, [u8; size_of::<Usage>()]> =
            Map::PerCpuHashMap(data)
                .try_into()
                .map_err(|error: MapError| explain(verb, &error))?;
        for id in counted {
            map.remove(&id).map_err(|error| explain(verb, &error))?;
        }
        Ok(())
    }
}

const _: () = assert!(
    size_of::<Usage>().is_multiple_of(8),
    "the values of the CPUs lie side by side"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(ranges: &[&str]) -> Prefixes {
        let prefix = |range: &&str| Prefix {
            range: range.parse().expect("a range"),
            origins: 1,
            expires: None,
        };
        ranges.iter().map(prefix).collect()
    }

    fn known(prefixes: &Prefixes, ids: &[RangeId]) -> Known {
        let prefixes = prefixes.iter().copied();
        prefixes.zip(ids.iter().copied()).collect()
    }

    #[test]
    fn a_kept_range_keeps_its_id_and_a_new_one_gets_a_new_id() {
        let mut next = 7;
        let early = Clocks::now().expect("clocks");
        let late = Clocks {
            boot: early.boot + 90 * NANOSECONDS,
            ..early
        };
        let before = prefixes(&["10.0.0.0/8", "10.0.0.0/16", "2001:db8::/32"]);
        let first = assign_ids(&before, &Known::new(), &mut next, &early);
        assert_eq!(next, 10);
        let after = prefixes(&[
            "10.0.0.0/9",
            "10.0.0.0/16",
            "2001:db8::/32",
            "2001:db8::/48",
        ]);
        let second = assign_ids(&after, &known(&before, &first), &mut next, &late);
        assert_eq!(next, 12);
        let ids: Vec<u32> = second.iter().map(|identity| identity.id).collect();
        assert_eq!(ids, [10, first[1].id, first[2].id, 11]);
        assert_eq!(second[1].since, first[1].since);
        assert_eq!(second[0].since, first[0].since + 90);
    }
}
