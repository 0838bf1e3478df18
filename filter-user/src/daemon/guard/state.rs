//! What the guard holds.

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
    metrics::{Health, Turns},
    store::WatchLock,
};

/// What is to be guarded, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The interfaces by name; none for those that hold the default routes.
    pub(crate) names: Vec<String>,
    pub(crate) xdp_mode: XdpMode,
}

impl Wanted {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            names: config.interfaces.to_vec(),
            xdp_mode: *config.xdp_mode,
        }
    }
}

/// What the guard shares with the rest of the process.
pub(crate) struct Shared {
    pub(crate) pins: Pins,
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) turns: Arc<Turns>,
    /// Where the log of the program goes, if it has one.
    pub(crate) log: Option<mpsc::Sender<LogLines>>,
    /// Hears of addresses, and that every interface was tried.
    pub(crate) follower: mpsc::Sender<Request>,
    /// Ends the thread once it is true, or gone.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The thread's own.
pub(crate) struct Guard {
    pub(crate) shared: Shared,
    pub(crate) lock: WatchLock,
    /// Verified before any interface comes.
    pub(crate) program: Option<Program>,
    pub(crate) maps: HeldMaps,
    pub(crate) counters: Counters,
    pub(crate) held: BTreeMap<u32, Held>,
    /// The interfaces that hold default routes; `None` if they have to be asked for.
    pub(crate) routes: Option<BTreeSet<u32>>,
    /// Those that were guarded once, by name.
    pub(crate) known: BTreeMap<String, u32>,
    pub(crate) missing: BTreeSet<String>,
    pub(crate) alerts: Alerts,
    /// What is wrong besides interfaces, by what it concerns.
    pub(crate) troubles: BTreeMap<&'static str, String>,
    pub(crate) retry: Option<Instant>,
    /// Whether every interface was tried, and the programs are verified.
    pub(crate) has_started: bool,
    /// When the links were looked at last.
    pub(crate) seen: Instant,
}

/// A guarded interface.
pub(crate) struct Held {
    pub(crate) name: String,
    /// Not where descriptors are scarce: then there is the pin.
    pub(crate) link: Option<Link>,
    pub(crate) is_pinned: bool,
}
