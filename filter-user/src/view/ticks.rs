//! The moments at which a command shows something again, until it is ended.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

/// An interval that a signal ends.
pub(crate) struct Ticks {
    interval: Interval,
    ends: [Signal; 2],
}

impl Ticks {
    /// The first one is an interval from now.
    pub(crate) fn every(interval: Duration) -> Result<Self> {
        let ends = [SignalKind::terminate(), SignalKind::interrupt()];
        let [terminate, interrupt] = ends.map(signal);
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let context = "wait for signals";
        Ok(Self {
            interval: ticks,
            ends: [terminate.context(context)?, interrupt.context(context)?],
        })
    }

    /// Waits for the next one; false if a signal ends the command.
    pub(crate) async fn next(&mut self) -> bool {
        let [terminate, interrupt] = &mut self.ends;
        tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            _ = self.interval.tick() => true,
        }
    }
}
