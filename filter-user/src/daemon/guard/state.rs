//! The state of the guard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    config::{Config, XdpMode},
    daemon::{Request, alerts::Alerts},
    kernel::{
        bpf::{Counters, HeldMaps, Link, LogLines, Program},
        pins::Pins,
    },
    metrics::{Health, Heartbeats},
    store::WatchLock,
};

/// The wanted interfaces and XDP mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedInterfaces {
    /// The interfaces by name; empty for those with the default routes.
    pub(crate) names: Vec<String>,
    pub(crate) xdp_mode: XdpMode,
}

impl WantedInterfaces {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            names: config.interfaces.to_vec(),
            xdp_mode: *config.xdp_mode,
        }
    }
}

/// The part of the state that the guard shares with the process.
pub(crate) struct Shared {
    pub(crate) pins: Pins,
    pub(crate) wanted: watch::Receiver<WantedInterfaces>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    /// The channel for the program's log, if it has one.
    pub(crate) log: Option<mpsc::Sender<LogLines>>,
    /// Receives changes of addresses, and the message that every interface was tried.
    pub(crate) follower: mpsc::Sender<Request>,
    /// Ends the thread once it is true or its sender is gone.
    pub(crate) stop: watch::Receiver<bool>,
}

pub(crate) struct Guard {
    pub(crate) shared: Shared,
    pub(crate) lock: WatchLock,
    /// Verified before any interface comes.
    pub(crate) program: Option<Program>,
    pub(crate) maps: HeldMaps,
    pub(crate) counters: Counters,
    pub(crate) held: BTreeMap<u32, HeldLink>,
    /// The interfaces with default routes; `None` if they must be read.
    pub(crate) routes: Option<BTreeSet<u32>>,
    /// The interfaces that were guarded at some time, by name.
    pub(crate) known: BTreeMap<String, u32>,
    pub(crate) missing: BTreeSet<String>,
    pub(crate) alerts: Alerts,
    /// The faults besides those of interfaces, by matter.
    pub(crate) faults: BTreeMap<&'static str, String>,
    pub(crate) retry: Option<Instant>,
    /// Whether every interface was tried, and the programs are verified.
    pub(crate) has_started: bool,
    /// When the links were last checked.
    pub(crate) last_check: Instant,
}

pub(crate) struct HeldLink {
    pub(crate) name: String,
    /// None if descriptors are scarce: then the pin holds the link.
    pub(crate) link: Option<Link>,
    pub(crate) is_pinned: bool,
}
