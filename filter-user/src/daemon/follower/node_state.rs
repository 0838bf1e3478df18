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

#[derive(Serialize)]
pub(super) struct NodeState<'a> {
    pub(super) schema: u32,
    pub(super) written: Timestamp,
    pub(super) pid: u32,
    pub(super) version: &'static str,
    /// As in `status`.
    pub(super) state: &'static str,
    /// All protected ports.
    pub(super) ports: BTreeSet<u16>,
    pub(super) interfaces: Vec<InterfaceState>,
    /// When the change on trial takes itself back.
    pub(super) trial_until: Option<Timestamp>,
    pub(super) lists: Vec<ListState<'a>>,
    /// The codes of the warnings that are not acknowledged.
    pub(super) warnings: BTreeSet<Code>,
}

#[derive(Serialize)]
pub(super) struct InterfaceState {
    pub(super) name: String,
    pub(super) hook: Option<XdpAttachMode>,
    pub(super) guarded: bool,
}

#[derive(Serialize)]
pub(super) struct ListState<'a> {
    pub(super) name: &'a ListName,
    /// SHA-256 of the bytes of the file that is in force; none if that file is not there any more,
    /// or is not in force.
    pub(super) sha256: Option<&'a str>,
    pub(super) ranges: usize,
    pub(super) expired: usize,
    /// Why the file that is there is not in force.
    pub(super) fault: Option<&'a str>,
}
