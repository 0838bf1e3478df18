//! The wanted policy, and how the policy in force differs from it.

use anyhow::Result;
use filter_common::{
    Mode,
    layout::{Basis, PolicyRecord},
};
use ipnet::IpNet;

use super::state::Follower;
use crate::{
    change::{build::policy, first::obstacle},
    clock::Clocks,
    config::{PolicyMode, SettingChange, Settings},
    kernel::{
        bpf::{Maps, Slot},
        net::rtnetlink,
    },
    ranges::{List, Lists},
    store::{PolicyMark, PolicyStore},
    ui::output::eprint,
};

/// The drift between the clocks from which on an operator must have set one, in nanoseconds.
pub(super) const SET_BY_HAND: i128 = 1_000_000_000;

/// Reasons that have messages of their own.
pub(super) const LIST: &str = "the list";
pub(super) const SETTINGS: &str = "the settings";
pub(super) const ADDRESSES: &str = "the node's addresses";
pub(super) const CLUSTER: &str = "the cluster's addresses";
pub(super) const ENFORCED: &str = "the mode";

/// The policy in force, as it is compared with the files.
pub(super) struct InForce {
    pub(super) slot: Slot,
    pub(super) record: PolicyRecord,
    /// `None` if they cannot be read.
    pub(super) settings: Option<Settings>,
    pub(super) now: Clocks,
}

impl InForce {
    pub(super) fn read(maps: &Maps) -> Result<Self> {
        let (slot, now) = (maps.active_slot()?, Clocks::now()?);
        Ok(Self {
            slot,
            record: maps.record(slot)?,
            settings: maps.settings(slot).ok(),
            now,
        })
    }

    pub(super) fn basis(&self) -> Basis {
        Basis::of(self.record.basis)
    }
}

/// The policy that the files ask for.
pub(super) struct WantedPolicy {
    pub(super) lists: Lists,
    /// Their union.
    pub(super) list: List,
    pub(super) settings: Settings,
    pub(super) mark: PolicyMark,
    /// The node's addresses.
    pub(super) node: Vec<IpNet>,
    /// The files of the cluster that the settings name.
    pub(super) cluster: Lists,
    /// Why it is not enforced yet.
    pub(super) deferral: Option<String>,
}

impl WantedPolicy {
    pub(super) fn expires(&self) -> bool {
        let mut entries = self.list.entries().iter();
        entries.any(|entry| entry.expires.is_some())
    }
}

/// The differences between the policy in force and the wanted one.
pub(super) struct Drift {
    /// Why the policy is replaced; empty if it is not.
    pub(super) reasons: Vec<&'static str>,
    /// The settings that change.
    pub(super) changes: Vec<SettingChange>,
    pub(super) is_other_list: bool,
    /// Whether an operator chose another policy, in contrast to a change of the node.
    pub(super) is_other_policy: bool,
    /// Whether the new policy keeps the basis of the one in force.
    pub(super) keeps_basis: bool,
}

impl Drift {
    /// The reasons in words, without those that are reported already. On the first comparison the
    /// node's addresses are not news.
    pub(super) fn other_reasons(&self, is_first: bool) -> Option<String> {
        let mut reasons = self.reasons.clone();
        reasons.retain(|reason| match *reason {
            LIST | SETTINGS | CLUSTER => false,
            ADDRESSES => !is_first,
            ENFORCED => !self.is_other_list,
            _ => true,
        });
        match (reasons.as_slice(), is_first) {
            ([], false) => None,
            ([], true) => Some("read the files and the node's addresses".to_owned()),
            (reasons, _) => Some(format!("{} changed", reasons.join(" and "))),
        }
    }
}

impl Follower {
    /// The policy that the config file, the `lists` and the files of the `cluster` ask for.
    pub(super) fn want(
        &self,
        lists: Lists,
        cluster: &Lists,
        have: &InForce,
    ) -> Result<WantedPolicy> {
        let context = &self.context;
        let list = lists.union();
        let mut settings = match (&have.settings, have.basis()) {
            (Some(have), _) if !self.has_config => context.config.over(have, false),
            (have, Basis::Files | Basis::LastInForce | Basis::DefaultSettings) => {
                context.settings(have.as_ref())
            }
            // Settings that no operator chose do not stay.
            _ => context.config.settings(),
        };
        let cluster = cluster.only(&settings.cluster_files());
        let enforces = have.record.mode == Mode::Enforce as u8;
        let deferral = self.deferral((&lists, &settings, &cluster), enforces)?;
        if let Some(deferral) = &deferral {
            if self.health.borrow().fallback.as_ref() != Some(deferral) {
                eprint(format_args!("warning: {deferral}"));
            }
            (settings.mode, settings.mode_waits) = (PolicyMode::Monitor, true);
        }
        Ok(WantedPolicy {
            mark: PolicyMark::new(lists.digest(), &settings),
            node: self.node()?,
            cluster,
            lists,
            list,
            settings,
            deferral,
        })
    }

    /// The differences between the policy in force and the wanted one.
    /// `is_broken` says that the ranges file cannot be used, and its list is the last good one.
    pub(super) fn drift(
        &mut self,
        have: &InForce,
        want: &WantedPolicy,
        is_broken: bool,
    ) -> Result<Drift> {
        let record = &have.record;
        let settings = have.settings.as_ref();
        let changes = settings.map(|have| want.settings.changes_from(have));
        let differ = changes.as_ref().is_none_or(|changes| !changes.is_empty());
        let is_other_list = record.list != want.lists.digest();
        let was_off = record.mode == Mode::Off as u8;
        let waited = settings.is_some_and(|have| have.mode_waits);
        // An operator has to see that settings were lost, and then asks for the files.
        let keeps_basis =
            is_broken || have.basis() == Basis::DefaultSettings && !self.reload_requested;
        let is_of_files = keeps_basis || have.basis() == Basis::Files;
        let wall_minus_boot = have.now.wall_minus_boot() - self.known.wall_minus_boot;

        let mut reasons = Vec::new();
        if is_other_list {
            reasons.push(LIST);
        }
        if differ || waited != want.settings.mode_waits {
            reasons.push(SETTINGS);
        }
        if self.has_config && !is_of_files && reasons.is_empty() {
            reasons.push("the source of the policy");
        }
        if was_off != (want.list == List::Off) {
            reasons.push(ENFORCED);
        }
        if want.settings.node_addresses && self.known.node.as_ref() != Some(&want.node) {
            reasons.push(ADDRESSES);
        }
        let in_files = want.cluster.ranges();
        let is_other_cluster = self.known.cluster.as_ref() != Some(&in_files);
        if is_other_cluster && !want.settings.cluster_files().is_empty() {
            reasons.push(CLUSTER);
        }
        if record.decapsulates != self.decapsulation.read()?.bits() {
            reasons.push("the node's decapsulation");
        }
        if wall_minus_boot.abs() > SET_BY_HAND && want.expires() {
            reasons.push("the clock and all expiries");
        }
        Ok(Drift {
            reasons,
            changes: changes.unwrap_or_default(),
            is_other_list,
            is_other_policy: is_other_list || was_off || differ,
            keeps_basis,
        })
    }

    /// The reason not to enforce `lists` under the settings `want` and the files of the cluster, if
    /// it would be the first enforced policy. `enforces` tells whether the policy in force is
    /// enforced.
    fn deferral(
        &self,
        (lists, want, cluster): (&Lists, &Settings, &Lists),
        enforces: bool,
    ) -> Result<Option<String>> {
        let store = PolicyStore::new(&self.context.config.state_dir);
        if enforces || want.mode != PolicyMode::Enforce || store.has_enforced() {
            return Ok(None);
        }
        let guarded = self.health.borrow().guarded.clone();
        let policy = policy(lists, want, cluster, &guarded)?;
        let obstacle = obstacle(&self.context, &policy, &guarded, None)?;
        Ok(obstacle.map(|obstacle| obstacle.fallback()))
    }

    /// The node's own addresses, as far as they are authorized.
    pub(super) fn node(&self) -> Result<Vec<IpNet>> {
        let guarded = self.health.borrow().guarded.clone();
        rtnetlink::node_addresses(&guarded)
    }
}
