//! What the follower holds.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use clap::ArgMatches;
use filter_common::layout::Basis;
use ipnet::IpNet;
use tokio::sync::watch;

use super::news;
use crate::{
    codes::Code,
    context::Context,
    daemon::{Wanted, alerts::Alerts},
    kernel::{
        bpf::{Maps, PolicyState},
        net::decapsulation,
    },
    metrics::{Health, Turns},
    policy::author::Author,
    store::{FileStamp, PolicyMark, WatchedFile},
    warnings::node,
};

/// The one who follows the files.
pub(crate) struct Follower {
    /// With the settings as the config file says them now.
    pub(crate) context: Context,
    pub(crate) matches: Arc<ArgMatches>,
    pub(crate) decapsulation: decapsulation::Watch,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) config_file: WatchedFile,
    pub(crate) ranges_file: WatchedFile,
    /// Whether the config file could ever be read: until then the settings in force stay.
    pub(crate) has_config: bool,
    /// What the policy in force was made from, as far as it was looked at.
    pub(crate) known: Known,
    /// The maps in use, and where they were found.
    pub(crate) open: Option<(FileStamp, Maps)>,
    /// Whether the policy is to be compared with what is wanted.
    pub(crate) doubt: bool,
    /// When a policy that could not be put in force is tried again, if nothing happens before.
    pub(crate) not_before: Option<Instant>,
    /// Since when another writer has the lock that is needed.
    pub(crate) blocked: Option<Instant>,
    /// Whether a trial was not confirmed, and what the files say is not what returned: it waits for somebody to touch them.
    pub(crate) held: bool,
    /// The files as they were put on trial last, unless they are in force for good since.
    pub(crate) tried: Option<PolicyMark>,
    /// Whether the config file may name other interfaces than the guard knows of.
    pub(crate) offers: bool,
    /// Whether somebody asked for the files.
    pub(crate) asked: bool,
    /// Whether somebody asked for the files, or edited one, since they were put in force last.
    pub(crate) touched: bool,
    pub(crate) alerts: Alerts,
    /// The warnings that were told, by what tells them apart.
    pub(crate) warned: BTreeSet<(Code, BTreeSet<String>)>,
    /// What the list has to be warned of.
    pub(crate) ranges: node::Ranges,
    pub(crate) acknowledged: WatchedFile,
    /// Whether warnings are to be looked for before their time.
    pub(crate) hurry: bool,
}

/// What a policy in force was made from.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) standing: Option<PolicyState>,
    pub(crate) generation: u64,
    pub(crate) basis: Basis,
    /// The node's addresses; none if they are not known.
    pub(crate) node: Option<Vec<IpNet>>,
    /// Why it is not enforced yet.
    pub(crate) first: Option<String>,
    /// By how much the wall clock was ahead: expiries are kept on the other one.
    pub(crate) ahead: i128,
    /// The policy in force, if it was looked at.
    pub(crate) seen: Option<news::PolicySnapshot>,
}

impl Known {
    pub(crate) fn on_trial(&self) -> bool {
        matches!(self.standing, Some(PolicyState::Provisional { .. }))
    }

    /// Says what somebody else must have done, if `generation`, which `by` wanted, is the one in
    /// force `now`, and this is what was known before.
    pub(crate) fn tell_news(
        &self,
        generation: u64,
        by: Option<Author>,
        now: &news::PolicySnapshot,
    ) {
        if self.standing.is_some() && generation != self.generation {
            news::of_others(by, self.seen.as_ref(), now);
        }
    }
}
