//! Packets that were judged, of all guarded interfaces together.

use std::time::Duration;

use serde::Serialize;

use crate::{
    context::Context,
    ui::number::{count, rate},
    view::stats::{self, rounded},
};

/// The numbers of packets since the filter was attached.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Traffic {
    /// Dropped packets.
    pub(crate) dropped: u64,
    /// Packets that enforce mode would drop.
    pub(crate) would_drop: u64,
    /// Packets from authorized sources to protected ports.
    pub(crate) authorized: u64,
    /// The time of the rates; none if these are totals.
    #[serde(skip)]
    seconds: Option<f64>,
}

impl Traffic {
    /// The counters; none if they cannot be read.
    pub(super) fn read(context: &Context) -> Option<Self> {
        let stats = stats::read(context).ok()?;
        let packets = |verdict: &str| {
            let all = stats.interfaces.iter();
            all.map(|interface| interface.packets(verdict)).sum()
        };
        let rows = stats.interfaces.iter().flat_map(|one| &one.counters);
        let authorized = rows.filter(|row| (row.verdict, row.reason) == ("pass", "authorized"));
        Some(Self {
            dropped: packets("drop"),
            would_drop: packets("would_drop"),
            authorized: authorized.map(|row| row.packets).sum(),
            seconds: None,
        })
    }

    /// Makes these the packets since `before`, if there is one; its time is how long ago it was.
    pub(super) fn rate_since(&mut self, before: Option<(&Self, Duration)>) {
        let Some((before, took)) = before else { return };
        self.dropped = self.dropped.saturating_sub(before.dropped);
        self.would_drop = self.would_drop.saturating_sub(before.would_drop);
        self.authorized = self.authorized.saturating_sub(before.authorized);
        self.seconds = Some(took.as_secs_f64());
    }

    /// `113 dropped`, or `12.4 dropped/s`.
    pub(super) fn words(&self, packets: u64, what: &str) -> String {
        match self.seconds {
            None => format!("{} {what}", count(packets)),
            Some(seconds) => format!("{} {what}/s", rate(rounded(packets as f64 / seconds))),
        }
    }
}
