//! A sample: the kernel's state at one moment, as `top` reads it.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use nix::sys::utsname::uname;

use super::lookup::{Found, RangeLookup};
use crate::{
    clock::Clocks,
    config::{Guard, join},
    context::Context,
    kernel::{
        bpf::{Counters, Maps, ReportBatch, ReportReader, StartAt, Use},
        links::protected::{ProtectedInterface, protected_interfaces},
        net::rtnetlink,
    },
    view::{
        policy::{self, Provisional},
        stats::{self, Row},
    },
};

/// The state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The monotonic time, which no clock change affects.
    pub(crate) at: Duration,
    /// The wall-clock time, for display.
    pub(crate) time: Timestamp,
    /// The state, as in `status`.
    pub(crate) state: &'static str,
    /// The protected ports, as a list.
    pub(crate) ports: String,
    /// The ports with lists of their own.
    pub(crate) guards: Vec<Guard>,
    /// The name of this node.
    pub(crate) host: String,
    pub(crate) provisional: Option<Provisional>,
    pub(crate) interfaces: Vec<(ProtectedInterface, Vec<Row>)>,
    /// Whether reports and uses are counted from zero: in the first sample, and after a new attach.
    pub(crate) restarted: bool,
    pub(crate) batch: ReportBatch,
    pub(crate) uses: Vec<Use>,
    pub(crate) found: Found,
}

pub(crate) struct Sampler<'a> {
    context: &'a Context,
    host: String,
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
            host: host().unwrap_or_default(),
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
                known: RangeLookup::new(self.context),
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
            ports: String::new(),
            guards: Vec::new(),
            host: self.host.clone(),
            provisional: None,
            interfaces: Vec::new(),
            restarted: false,
            batch: ReportBatch::default(),
            uses: Vec::new(),
            found: Found::default(),
        };
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
            sample.ports = join(settings.protected());
            sample.guards = settings.guards;
            if is_guarded {
                sample.state = policy::state(&record);
                sample.provisional = Provisional::of(standing, &now);
            }
            sample.uses = attached.maps.uses(&now)?;
            let known = &mut attached.known;
            known.start_walk(&sample.uses, record.generation, slot);
            sample.found = known.finish_walk(patient).await?.clone();
            // This comes last: reports can be read only once.
            sample.batch = attached.reports.poll()?;
            sample.restarted = std::mem::take(&mut attached.restarted);
        }
        Ok(sample)
    }
}

/// The name of this node.
fn host() -> Option<String> {
    let names = uname().ok()?;
    Some(names.nodename().to_string_lossy().into_owned())
}
