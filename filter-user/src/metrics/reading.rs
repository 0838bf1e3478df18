//! What the kernel says, read when somebody asks.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result};
use filter_common::{Mode, map::Basis};
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use super::{Health, Turns, exposition::render};
use crate::{
    author::Author,
    clock::Moment,
    datapath::{Census, CounterRow, Counters, Maps, Standing},
    guards::{Guard, guards},
    net::{Interface, Net},
    pins::Pins,
};

/// Answers what monitoring asks. Needs no lock that a change of the list waits for.
pub struct Exporter {
    pins: Pins,
    net: Net,
    health: watch::Receiver<Health>,
    turns: Arc<Turns>,
    /// Held for a look into the kernel: one at a time, however many ask.
    looking: Mutex<()>,
    counted: Arc<Mutex<Counted>>,
}

/// The ranges of the generation that was counted last.
#[derive(Default)]
struct Counted {
    mark: Option<Mark>,
    census: Arc<Census>,
}

/// What tells one generation from every other: its number, and when it was put in force, for numbers begin anew with new pins.
type Mark = (u64, u64);

/// What the kernel says at one moment.
pub(super) struct Reading {
    /// The interfaces that are there and have a pinned link.
    pub(super) guards: Vec<Guard>,
    /// The counters of these interfaces, by name.
    pub(super) counters: Vec<(String, Vec<CounterRow>)>,
    pub(super) policy: Option<PolicyReading>,
    /// What could not be read.
    pub(super) failures: Vec<String>,
}

/// The generation in force.
pub(super) struct PolicyReading {
    /// A [`Mode`] as a number.
    pub(super) mode: u8,
    pub(super) generation: u64,
    /// In nanoseconds since 1970-01-01 UTC.
    pub(super) applied_at: u64,
    /// What it was made from.
    pub(super) basis: Basis,
    /// Nanoseconds until it takes itself back, if it is on trial.
    pub(super) trial_left: Option<u64>,
    /// The command that put it in force, and the user.
    pub(super) by: Option<(String, String)>,
}

impl Exporter {
    /// Reads what is pinned under `pins` and what `health` says; must be called inside a tokio runtime, in the network namespace of
    /// the interfaces.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn new(pins: Pins, health: watch::Receiver<Health>, turns: Arc<Turns>) -> Result<Self> {
        Ok(Self {
            pins,
            net: Net::open()?,
            health,
            turns,
            looking: Mutex::default(),
            counted: Arc::default(),
        })
    }

    /// All metrics, in Prometheus's text format. What cannot be read is left out.
    ///
    /// # Errors
    /// If the text cannot be made.
    pub(super) async fn metrics(&self) -> Result<String> {
        let mut reading = self.read().await;
        let census = self.census().await.unwrap_or_else(|error| {
            reading.failures.push(format!("{error:#}"));
            None
        });
        let health = self.health.borrow().clone();
        render(&reading, census.as_deref(), &health)
    }

    /// Why the node may not be guarded as its files say; empty if it is.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let reading = self.read().await;
        let mut complaints = self.turns.complaints();
        complaints.extend(reading.complaints(&self.health.borrow()));
        complaints
    }

    /// Why the process cannot do its work; `None` if it can. Asks nobody but itself.
    pub(super) fn stands(&self) -> Option<String> {
        self.turns.guard_stands()
    }

    async fn read(&self) -> Reading {
        let pins = self.pins.clone();
        let read = async {
            let _looking = self.looking.lock().await;
            let interfaces = self.net.interfaces().await?;
            let held = self.health.borrow().guarded.clone();
            spawn_blocking(move || Reading::take(&pins, &interfaces, &held))
                .await
                .context("read what is in force")
        };
        read.await.unwrap_or_else(|error| Reading {
            guards: Vec::new(),
            counters: Vec::new(),
            policy: None,
            failures: vec![format!("{error:#}")],
        })
    }

    /// The ranges in force. A long list takes its time, once per generation: that holds up neither who supervises nor who only asks
    /// whether all is well.
    async fn census(&self) -> Result<Option<Arc<Census>>> {
        let pins = self.pins.clone();
        let mut counted = Arc::clone(&self.counted).lock_owned().await;
        spawn_blocking(move || counted.renew(&pins))
            .await
            .context("count ranges")?
    }
}

impl Counted {
    fn renew(&mut self, pins: &Pins) -> Result<Option<Arc<Census>>> {
        let Some(maps) = Maps::in_use(pins)? else {
            return Ok(None);
        };
        let (mark, census) = maps.steadily(|slot| {
            let record = maps.record(slot)?;
            let mark = (record.generation, record.applied_at);
            Ok((
                mark,
                if self.mark == Some(mark) {
                    None
                } else {
                    Some(maps.census(slot)?)
                },
            ))
        })?;
        if let Some(census) = census {
            self.census = Arc::new(census);
            self.mark = Some(mark);
        }
        Ok(Some(Arc::clone(&self.census)))
    }
}

impl Reading {
    /// `held` are the interfaces that this process guards, pinned or not.
    fn take(pins: &Pins, interfaces: &[Interface], held: &BTreeSet<u32>) -> Self {
        let mut failures = Vec::new();
        let mut note = |error: anyhow::Error| failures.push(format!("{error:#}"));
        let mut guards = guards(pins, interfaces).unwrap_or_else(|error| {
            note(error);
            Vec::new()
        });
        // The pins of an interface that is gone wait for `detach`; it has no name to be known by.
        guards.retain(|guard| {
            interfaces
                .iter()
                .any(|interface| interface.ifindex == guard.ifindex)
        });
        let is_pinned = |ifindex: u32| guards.iter().any(|guard| guard.ifindex == ifindex);
        let unpinned: Vec<Guard> = interfaces
            .iter()
            .filter(|found| held.contains(&found.ifindex) && !is_pinned(found.ifindex))
            .map(Guard::held)
            .collect();
        guards.extend(unpinned);
        let mut counters = Vec::new();
        if !guards.is_empty() {
            match read_counters(pins, &guards) {
                Ok(read) => counters = read,
                Err(error) => note(error),
            }
        }
        let policy = Maps::in_use(pins)
            .and_then(|maps| maps.as_ref().map(PolicyReading::take).transpose())
            .unwrap_or_else(|error| {
                note(error);
                None
            });
        Self {
            guards,
            counters,
            policy,
            failures,
        }
    }

    /// Whether packets from unauthorized sources are dropped, on one interface at least.
    pub(super) fn enforces(&self) -> bool {
        let mode = self.policy.as_ref().map(|policy| policy.mode);
        mode == Some(Mode::Enforce as u8) && self.guards.iter().any(|guard| guard.guarded)
    }

    /// Those of the interfaces to be guarded that are not.
    pub(super) fn unguarded<'a>(&self, health: &'a Health) -> impl Iterator<Item = &'a String> {
        health.interfaces.iter().filter(|name| {
            !self
                .guards
                .iter()
                .any(|guard| guard.guarded && guard.interface == **name)
        })
    }

    /// Why the node may not be guarded as its files say; empty if it is.
    pub(super) fn complaints(&self, health: &Health) -> Vec<String> {
        let mut complaints = health.complaints();
        complaints.extend(self.unguarded(health).map(|name| {
            let why = health.refused.get(name);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("`{name}` is not guarded{why}")
        }));
        complaints.extend(self.failures.iter().cloned());
        complaints
    }
}

/// The counters of each of `guards` that has some, by its name.
fn read_counters(pins: &Pins, guards: &[Guard]) -> Result<Vec<(String, Vec<CounterRow>)>> {
    let counters = Counters::open(&pins.maps())?;
    let mut read = Vec::new();
    for guard in guards {
        if let Some(rows) = counters.read(guard.ifindex)? {
            read.push((guard.interface.clone(), rows));
        }
    }
    Ok(read)
}

impl PolicyReading {
    fn take(maps: &Maps) -> Result<Self> {
        let (record, by) = maps.steadily(|slot| Ok((maps.record(slot)?, maps.author(slot)?)))?;
        let now = Moment::now()?;
        let trial_left = match maps.standing()? {
            Standing::Provisional { until, .. } => Some(until.saturating_sub(now.boot)),
            _ => None,
        };
        let user = |by: &Author| match (&by.user, by.uid) {
            (Some(user), _) => user.clone(),
            (None, uid) => uid.map_or_else(String::new, |uid| uid.to_string()),
        };
        Ok(Self {
            trial_left,
            by: by.map(|by| (by.verb(), user(&by))),
            mode: record.mode,
            generation: record.generation,
            applied_at: record.applied_at,
            basis: Basis::of(record.basis),
        })
    }
}
