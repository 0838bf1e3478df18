//! The state of the follower.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use clap::ArgMatches;
use filter_common::layout::Basis;
use ipnet::IpNet;
use tokio::sync::watch;

use super::{messages, node_state::Report};
use crate::{
    codes::Code,
    context::Context,
    daemon::{WantedInterfaces, alerts::Alerts},
    kernel::{
        bpf::{Maps, PolicyState},
        net::decapsulation,
    },
    metrics::{Health, Heartbeats},
    policy::author::Author,
    store::{FileStamp, PolicyMark, WatchedFile, WatchedLists},
    warnings::node,
};

/// The follower of the files.
pub(crate) struct Follower {
    /// Its settings are those of the config file as last read.
    pub(crate) context: Context,
    pub(crate) matches: Arc<ArgMatches>,
    pub(crate) decapsulation: decapsulation::Subscription,
    pub(crate) wanted: watch::Sender<WantedInterfaces>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) config_file: WatchedFile,
    pub(crate) lists: WatchedLists,
    /// The files of the cluster.
    pub(crate) cluster: WatchedLists,
    /// Whether the config file was ever valid; until then the settings in force stay.
    pub(crate) has_config: bool,
    /// The policy in force, as far as it was examined.
    pub(crate) known: KnownPolicy,
    /// The open maps, and the stamp of their pin.
    pub(crate) open: Option<(FileStamp, Maps)>,
    /// Whether the policy must be compared with the wanted one.
    pub(crate) dirty: bool,
    /// When a policy that could not be put in force is tried again without an event.
    pub(crate) not_before: Option<Instant>,
    /// Since when another writer holds the lock.
    pub(crate) blocked: Option<Instant>,
    /// Whether a trial was rolled back, and the files differ from the policy in force. They are not
    /// applied until the operator changes or reloads them.
    pub(crate) hold_after_rollback: bool,
    /// The files' last version on trial, unless it was confirmed since.
    pub(crate) last_trial: Option<PolicyMark>,
    /// Whether the config file may name other interfaces than the guard knows.
    pub(crate) interfaces_pending: bool,
    /// Whether the operator asked for a reload.
    pub(crate) reload_requested: bool,
    /// Whether the files were reloaded or edited since they were last put in force.
    pub(crate) files_changed: bool,
    pub(crate) alerts: Alerts,
    /// The keys of the warnings that were reported.
    pub(crate) warned: BTreeSet<(Code, BTreeSet<String>)>,
    /// The warnings about the list, cached.
    pub(crate) ranges: node::RangeWarnings,
    pub(crate) acknowledged: WatchedFile,
    /// Whether warnings are gathered before their time.
    pub(crate) warnings_due: bool,
    pub(crate) report: Report,
}

/// The policy in force, and the facts it was made from.
#[derive(Default)]
pub(crate) struct KnownPolicy {
    pub(crate) state: Option<PolicyState>,
    pub(crate) generation: u64,
    pub(crate) basis: Basis,
    /// The node's addresses; none if they are unknown.
    pub(crate) node: Option<Vec<IpNet>>,
    /// The ranges in the files of the cluster; none if they are unknown.
    pub(crate) cluster: Option<BTreeSet<IpNet>>,
    /// Why it is not enforced yet.
    pub(crate) deferral: Option<String>,
    /// The wall clock minus the boot clock in nanoseconds when the policy was compiled: expiries in
    /// the kernel use the boot clock.
    pub(crate) wall_minus_boot: i128,
    /// The policy in force, if it was examined.
    pub(crate) policy: Option<messages::PolicySnapshot>,
}

impl KnownPolicy {
    pub(crate) fn on_trial(&self) -> bool {
        matches!(self.state, Some(PolicyState::Provisional { .. }))
    }

    /// Reports a change by another process: `generation` by the author `by` is in force `now`, and
    /// differs from the last known one.
    pub(crate) fn report_change(
        &self,
        generation: u64,
        by: Option<Author>,
        now: &messages::PolicySnapshot,
    ) {
        if self.state.is_some() && generation != self.generation {
            messages::report_other_author(by, self.policy.as_ref(), now);
        }
    }
}
