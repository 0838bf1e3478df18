//! What other programs are told: `state.json`, and when it was told last.

use std::{collections::BTreeSet, time::Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::seen::SeenList;
use crate::{
    codes::Code, kernel::net::interface::XdpAttachMode, metrics::Health, ranges::ListName,
    store::StateFile,
};

/// The schema of the file. A reader refuses one that it does not know.
pub(super) const SCHEMA: u32 = 1;

/// What is told, and when it was told last.
pub(crate) struct Report {
    pub(super) file: StateFile,
    pub(super) health: watch::Receiver<Health>,
    /// The lists as they were read last.
    pub(super) lists: Vec<SeenList>,
    /// The generation that they were compared with.
    pub(super) generation: u64,
    /// Whether something changed since.
    pub(super) is_due: bool,
    pub(super) written: Option<Instant>,
    /// Whether that failed, and was reported.
    pub(super) has_failed: bool,
}

impl Report {
    /// Nothing is told yet.
    pub(super) const fn new(file: StateFile, health: watch::Receiver<Health>) -> Self {
        Self {
            file,
            health,
            lists: Vec::new(),
            generation: 0,
            is_due: true,
            written: None,
            has_failed: false,
        }
    }
}

/// What `run` tells other programs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NodeState<'a> {
    /// The number of the schema.
    pub(super) schema: u32,
    /// When this was written: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    pub(super) written: Timestamp,
    /// The process id of `run`.
    pub(super) pid: u32,
    /// The version of `run`.
    pub(super) version: &'static str,
    /// `enforcing`, `monitoring`, `off`, `detached` or `unknown`, as in `status`.
    pub(super) state: &'static str,
    /// All protected TCP ports; empty if the settings in force cannot be read.
    pub(super) ports: BTreeSet<u16>,
    /// The interfaces to guard.
    pub(super) interfaces: Vec<InterfaceState>,
    /// When the change on trial reverts: RFC 3339, UTC; null if no change is on trial.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) trial_until: Option<Timestamp>,
    /// The lists.
    pub(super) lists: Vec<ListState<'a>>,
    /// The codes of the warnings that are not acknowledged.
    pub(super) warnings: BTreeSet<Code>,
}

/// An interface to guard.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct InterfaceState {
    /// Its name.
    pub(super) name: String,
    /// Where the program runs; null if it does not run.
    pub(super) hook: Option<XdpAttachMode>,
    /// Whether the filter judges its packets.
    pub(super) guarded: bool,
}

/// A list.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ListState<'a> {
    /// Its name.
    pub(super) name: &'a ListName,
    /// SHA-256 of the bytes of the file that is in force, in hexadecimal digits; null if that file
    /// is gone, or is not in force.
    pub(super) sha256: Option<&'a str>,
    /// Its ranges, expired ones included.
    pub(super) ranges: usize,
    /// The expired ones among them.
    pub(super) expired: usize,
    /// Why its file is not in force, in words; null if it is in force.
    pub(super) fault: Option<&'a str>,
}
