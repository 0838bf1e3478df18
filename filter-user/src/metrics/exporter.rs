//! Answers to monitoring, from the kernel and from the state of the process.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use super::{Health, Heartbeats, exposition::render, reading::Reading};
use crate::kernel::{
    bpf::{Maps, RangeCounts},
    net::rtnetlink,
    pins::Pins,
};

/// Answers monitoring. It takes no lock that a change of the list waits for.
pub struct Exporter {
    pins: Pins,
    health: watch::Receiver<Health>,
    heartbeats: Arc<Heartbeats>,
    /// Held while the kernel is read: one reader at a time, for any number of clients.
    reader: Mutex<()>,
    counted: Arc<Mutex<CountedRanges>>,
}

/// The ranges of the generation that was counted last.
#[derive(Default)]
struct CountedRanges {
    mark: Option<GenerationId>,
    range_counts: Arc<RangeCounts>,
}

/// Identifies a generation by number and start, since numbers restart with new pins.
type GenerationId = (u64, u64);

impl Exporter {
    /// Reads the pins under `pins` and the state in `health`. The caller must be in a tokio
    /// runtime, in the network namespace of the interfaces.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn new(
        pins: Pins,
        health: watch::Receiver<Health>,
        heartbeats: Arc<Heartbeats>,
    ) -> Result<Self> {
        Ok(Self {
            pins,
            health,
            heartbeats,
            reader: Mutex::default(),
            counted: Arc::default(),
        })
    }

    /// All metrics in Prometheus's text format, without those that cannot be read.
    ///
    /// # Errors
    /// If the text cannot be encoded.
    pub(super) async fn metrics(&self) -> Result<String> {
        let mut reading = self.read().await;
        let range_counts = self.range_counts().await.unwrap_or_else(|error| {
            reading.failures.push(format!("{error:#}"));
            None
        });
        let health = self.health.borrow().clone();
        render(&reading, range_counts.as_deref(), &health)
    }

    /// Why the node may not be guarded as its files say; empty if it is.
    pub(super) async fn problems(&self) -> Vec<String> {
        let reading = self.read().await;
        let mut problems = self.heartbeats.problems();
        problems.extend(reading.problems(&self.health.borrow()));
        problems
    }

    /// Why the process cannot do its work; `None` if it can. It reads only the process's own state.
    pub(super) fn failure(&self) -> Option<String> {
        self.heartbeats.guard_stall()
    }

    async fn read(&self) -> Reading {
        let pins = self.pins.clone();
        let read = async {
            let _guard = self.reader.lock().await;
            let held = self.health.borrow().guarded.clone();
            spawn_blocking(move || {
                anyhow::Ok(Reading::read(&pins, &rtnetlink::interfaces()?, &held))
            })
            .await
            .context("read what is in force")?
        };
        read.await.unwrap_or_else(|error| Reading {
            guards: Vec::new(),
            counters: Vec::new(),
            suppressed_reports: None,
            policy: None,
            failures: vec![format!("{error:#}")],
        })
    }

    /// The ranges in force. Counting a long list takes seconds, once per generation. Neither a
    /// liveness probe nor a readiness probe waits for it.
    async fn range_counts(&self) -> Result<Option<Arc<RangeCounts>>> {
        let pins = self.pins.clone();
        let mut counted = Arc::clone(&self.counted).lock_owned().await;
        spawn_blocking(move || counted.renew(&pins))
            .await
            .context("count ranges")?
    }
}

impl CountedRanges {
    fn renew(&mut self, pins: &Pins) -> Result<Option<Arc<RangeCounts>>> {
        let Some(maps) = Maps::in_use(pins)? else {
            return Ok(None);
        };
        let (mark, range_counts) = maps.read_consistent(|slot| {
            let record = maps.record(slot)?;
            let mark = (record.generation, record.applied_at);
            Ok((
                mark,
                if self.mark == Some(mark) {
                    None
                } else {
                    Some(maps.range_counts(slot)?)
                },
            ))
        })?;
        if let Some(range_counts) = range_counts {
            self.range_counts = Arc::new(range_counts);
            self.mark = Some(mark);
        }
        Ok(Some(Arc::clone(&self.range_counts)))
    }
}
