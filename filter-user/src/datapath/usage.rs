//! What each range was used for.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use aya::{
    maps::{Map, MapData, MapError, PerCpuHashMap},
    util::nr_cpus,
};
use filter_common::map::{MAX_USAGE, USAGE, Usage};
use ipnet::IpNet;

use super::{
    batch::Batch,
    maps::{Maps, open_data},
    tries::usage_key,
};
use crate::{clock::Moment, explain::explain, ranges::Prefixes};

/// What was counted, by range.
pub struct UsageByRange {
    found: HashMap<u64, Usage>,
}

impl UsageByRange {
    /// What `range` was used for; `None` if that is not counted.
    pub fn of(&self, range: &IpNet) -> Option<Usage> {
        self.found.get(&usage_key(range)).copied()
    }
}

impl Maps {
    /// What each range was used for, all CPUs together.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn usage(&self) -> Result<UsageByRange> {
        let mut found = HashMap::new();
        let read = Batch::of(&self.usage)?.read(|key, values| {
            let of_cpus = values.chunks_exact(size_of::<Usage>());
            let sum = of_cpus.fold(Usage::default(), |sum, value| {
                let usage: Usage = bytemuck::pod_read_unaligned(value);
                Usage {
                    packets: sum.packets + usage.packets,
                    last_seen: sum.last_seen.max(usage.last_seen),
                    since: sum.since.max(usage.since),
                }
            });
            found.insert(bytemuck::pod_read_unaligned(key), sum);
        });
        read.map_err(|error| explain("read usage", &error))?;
        Ok(UsageByRange { found })
    }

    /// Sees to it that the usage of `prefixes`, which are in force, is counted, as far as there is room. What ranges were used for
    /// before is kept until the room is needed: a range that leaves the list and returns has its count again.
    ///
    /// # Errors
    /// If the kernel refuses; some are then not counted.
    pub fn track(&self, prefixes: &Prefixes) -> Result<()> {
        let verb = "count usage";
        let room = MAX_USAGE as usize;
        let mut counted: HashSet<u64> = self.usage()?.found.into_keys().collect();
        let wanted = prefixes.iter().map(|prefix| usage_key(&prefix.range));
        let wanted: HashSet<u64> = wanted.take(room).collect();
        let mut new: Vec<u64> = wanted.difference(&counted).copied().collect();
        if counted.len() + new.len() > room {
            let data = open_data(&self.directory, USAGE)?;
            let mut map: PerCpuHashMap<MapData, u64, [u8; size_of::<Usage>()]> =
                Map::PerCpuHashMap(data)
                    .try_into()
                    .map_err(|error: MapError| explain(verb, &error))?;
            for key in &counted - &wanted {
                map.remove(&key).map_err(|error| explain(verb, &error))?;
                counted.remove(&key);
            }
        }
        new.truncate(room - counted.len());
        let usage = Usage {
            since: Moment::now()?.monotonic,
            ..Usage::default()
        };
        let cpus = nr_cpus().map_err(|(_, error)| explain(verb, &error))?;
        let values = bytemuck::bytes_of(&usage).repeat(cpus);
        Batch::of(&self.usage)?
            .fill(new.iter().map(|key| (key.to_ne_bytes(), &values)), |_| ())
            .map_err(|error| explain(verb, &error))
    }
}

const _: () = assert!(
    size_of::<Usage>().is_multiple_of(8),
    "the values of the CPUs lie side by side"
);
