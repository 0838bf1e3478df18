//! The service: whether `apifence run` is up, and since when.

use jiff::{SignedDuration, Timestamp};
use procfs::{process::Process, ticks_per_second};
use serde::Serialize;

use crate::{
    clock::{Clocks, to_second},
    context::{Context, load::load_of_process},
    store::WatchLock,
};

/// The `run` that keeps the filter in step with its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Service {
    /// Whether there is one.
    pub(crate) running: bool,
    /// Its process; none if it is not visible here.
    pub(crate) pid: Option<i32>,
    /// When it started: RFC 3339, UTC; null if that is not visible here.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(crate) since: Option<Timestamp>,
    /// Where it serves metrics, if that is known.
    pub(crate) metrics_listen: Option<String>,
}

impl Service {
    /// The service of this filter.
    pub(super) fn read(context: &Context) -> Self {
        let Ok(Some(watcher)) = WatchLock::watcher(&context.pins.watch()) else {
            return Self::default();
        };
        let process = watcher.process;
        let metrics = process.as_ref().and_then(|process| {
            let (config, _) = load_of_process(process).ok()?;
            Some(config.metrics_listen.to_string())
        });
        Self {
            running: true,
            pid: process.as_ref().map(Process::pid),
            since: process.as_ref().and_then(started).map(to_second),
            metrics_listen: metrics.filter(|listen| listen != "off"),
        }
    }
}

/// When the process started.
fn started(process: &Process) -> Option<Timestamp> {
    let ticks = process.stat().ok()?.starttime;
    let now = Clocks::now().ok()?;
    let age = now.boot / 1_000_000_000;
    let age = age.checked_sub(ticks / ticks_per_second())?;
    let age = SignedDuration::from_secs(i64::try_from(age).ok()?);
    now.wall.saturating_sub(age).ok()
}
