//! A sample: the kernel's state at one moment, as `top` reads it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::{
    clock::Clocks,
    config::join,
    context::Context,
    kernel::{
        bpf::{Counters, Maps, ReportBatch, ReportReader, Slot, StartAt, Use},
        links::protected::{ProtectedInterface, protected_interfaces},
        net::rtnetlink,
    },
    policy::Prefix,
    view::{
        policy::{self, Provisional},
        stats::{self, Row},
    },
};

/// The ranges by the ids of their use.
pub(crate) type Ranges = Arc<HashMap<u32, Prefix>>;

/// The state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The monotonic time, which no clock change affects.
    pub(crate) at: Duration,
    /// The wall-clock time, for display.
    pub(crate) time: Timestamp,
    /// The state, as in `status`.
    pub(crate) state: &'static str,
    /// The first line of `status`.
    pub(crate) headline: String,
    pub(crate) provisional: Option<Provisional>,
    pub(crate) interfaces: Vec<(ProtectedInterface, Vec<Row>)>,
    /// Whether reports and uses are counted from zero: in the first sample, and after a new attach.
    pub(crate) restarted: bool,
    pub(crate) batch: ReportBatch,
    pub(crate) uses: Vec<Use>,
    pub(crate) ranges: Ranges,
}

pub(crate) struct Sampler<'a> {
    context: &'a Context,
    attached: Option<Attached>,
}

/// The open maps of an attached filter.
struct Attached {
    maps: Maps,
    reports: ReportReader,
    known: RangeLookup,
    restarted: bool,
}

impl<'a> Sampler<'a> {
    /// Opens the maps.
    ///
    /// # Errors
    /// If no filter is attached, or its maps cannot be read.
    pub(crate) fn open(context: &'a Context) -> Result<Self> {
        // Refuses pins of another layout, and names what is missing.
        if context.pins.interfaces()?.is_empty() {
            return Err(context.nothing_attached());
        }
        let mut sampler = Self {
            context,
            attached: None,
        };
        sampler.follow()?;
        Ok(sampler)
    }

    /// Reopens the maps if other ones are in use now.
    fn follow(&mut self) -> Result<()> {
        if self
            .attached
            .as_ref()
            .is_some_and(|attached| attached.reports.is_current())
        {
            return Ok(());
        }
        self.attached = match self.context.maps()? {
            None => None,
            Some(maps) => Some(Attached {
                maps,
                reports: ReportReader::open(&self.context.pins.maps(), StartAt::Oldest)?,
                known: RangeLookup::default(),
                restarted: true,
            }),
        };
        Ok(())
    }

    /// Reads the kernel's state. `patient`: waits for the names of ranges, even for a million.
    ///
    /// # Errors
    /// If it cannot be read, also because the filter is being removed.
    pub(crate) async fn sample(&mut self, patient: bool) -> Result<Sample> {
        let now = Clocks::now()?;
        let guards = protected_interfaces(&self.context.pins, &rtnetlink::interfaces()?)?;
        let mut sample = Sample {
            at: Duration::from_nanos(now.monotonic),
            time: now.wall,
            state: "detached",
            headline: String::new(),
            provisional: None,
            interfaces: Vec::new(),
            restarted: false,
            batch: ReportBatch::default(),
            uses: Vec::new(),
            ranges: Ranges::default(),
        };
        let mut ports = String::new();
        let is_guarded = guards.iter().any(|guard| guard.guarded);
        if !guards.is_empty() {
            let open = Counters::open(&self.context.pins.maps())?;
            for guard in guards {
                if let Some(counters) = stats::counters(&open, guard.ifindex)? {
                    sample.interfaces.push((guard, counters));
                }
            }
        }
        self.follow()?;
        if let Some(attached) = &mut self.attached {
            let maps = &attached.maps;
            let standing = maps.standing()?;
            let (slot, record, settings) =
                maps.read_consistent(|slot| Ok((slot, maps.record(slot)?, maps.settings(slot)?)))?;
            ports = join(settings.protected());
            if is_guarded {
                sample.state = policy::state(&record);
                sample.provisional = Provisional::of(standing, &now);
            }
            sample.uses = attached.maps.uses(&now)?;
            let known = &mut attached.known;
            let directory = self.context.pins.maps();
            let generation = record.generation;
            known.start_walk(&sample.uses, generation, slot, move || {
                Maps::open(&directory)
            });
            known.finish_walk(patient).await?;
            sample.ranges = known.ranges.clone();
            // This comes last: reports can be read only once.
            sample.batch = attached.reports.poll()?;
            sample.restarted = std::mem::take(&mut attached.restarted);
        }
        sample.headline = policy::headline(sample.state, &ports);
        Ok(sample)
    }
}

/// The range of each use. A lookup walks over all ranges. It runs in the background, only when a
/// new range is used, and for at most a tenth of the time.
#[derive(Default)]
struct RangeLookup {
    generation: u64,
    /// The requested ranges that are in the generation.
    ranges: Ranges,
    requested: HashSet<u32>,
    walk: Option<Walk>,
    not_before: Option<Instant>,
}

struct Walk {
    generation: u64,
    ids: HashSet<u32>,
    begun: Instant,
    task: JoinHandle<Result<Option<HashMap<u32, Prefix>>>>,
}

impl RangeLookup {
    /// Starts a walk if one is needed and its pause is over.
    fn start_walk(
        &mut self,
        uses: &[Use],
        generation: u64,
        slot: Slot,
        open: impl FnOnce() -> Result<Maps> + Send + 'static,
    ) {
        if self.generation != generation {
            self.generation = generation;
            self.ranges = Ranges::default();
            self.requested.clear();
        }
        let begun = Instant::now();
        let all_known = uses.iter().all(|one| self.requested.contains(&one.id));
        if all_known || self.walk.is_some() || self.not_before.is_some_and(|time| begun < time) {
            return;
        }
        let ids: HashSet<u32> = uses.iter().map(|one| one.id).collect();
        let wanted = ids.clone();
        let task = spawn_blocking(move || {
            let maps = open()?;
            let ranges = maps.ranges_of(slot, &wanted, &Clocks::now()?)?;
            // The slot may hold another generation by now.
            let same = maps.record(slot)?.generation == generation;
            Ok(same.then_some(ranges))
        });
        self.walk = Some(Walk {
            generation,
            ids,
            begun,
            task,
        });
    }

    /// Takes the result of a finished walk.
    async fn finish_walk(&mut self, patient: bool) -> Result<()> {
        let Some(mut walk) = self.walk.take() else {
            return Ok(());
        };
        // A short walk is awaited, so that its result is in this sample.
        let patience = Duration::from_millis(if patient { 60_000 } else { 20 });
        let Ok(found) = tokio::time::timeout(patience, &mut walk.task).await else {
            self.walk = Some(walk);
            return Ok(());
        };
        let took = walk.begun.elapsed();
        self.not_before = Some(Instant::now() + 9 * took);
        let found = found.map_err(|_| anyhow!("read policy: the reader died"))??;
        if let Some(ranges) = found
            && walk.generation == self.generation
        {
            self.ranges = Arc::new(ranges);
            self.requested = walk.ids;
        }
        Ok(())
    }
}
