//! The files of the cluster are followed as the node's addresses are: what they authorize is no
//! change that an operator made. Both are followed under the policy in force, too, while the files
//! of the lists or the settings cannot be put in force.

use std::collections::BTreeSet;

use anyhow::Result;
use filter_common::layout::{Basis, Origin};
use ipnet::IpNet;

use super::{drift::InForce, messages, state::Follower};
use crate::{
    change::{
        build::{is_saved, known_lists, policy},
        impact::assess,
        transaction::{Transaction, clean_up},
    },
    config::Settings,
    kernel::bpf::{Maps, Slot},
    policy::author::Author,
    ranges::Lists,
    store::ReadLists,
    ui::{error::UserError, output::eprint, progress::Progress},
};

/// The matter of alerts about files that wait for the end of a trial.
pub(super) const WAITING: &str = "files of the cluster";

impl Follower {
    /// Reports that files of the cluster changed during the trial in `slot`. The other slot has the
    /// policy to go back to, so that no third one can be made now.
    pub(super) fn report_waiting(&mut self, maps: &Maps, slot: Slot, read: &ReadLists) {
        let Ok(settings) = maps.settings(slot) else {
            return;
        };
        let now = read.lists.only(&settings.cluster_files()).ranges();
        if let Some(words) = messages::describe_cluster(self.known.cluster.as_ref(), &now) {
            let error = UserError::failed(
                format!("{words}: not in force until the trial ends"),
                "`apifence confirm` or `apifence ranges rollback` ends the trial",
            );
            self.alerts.raise(WAITING, &error);
        }
    }

    /// Whether the node's addresses, or the files of the cluster, differ from those that the policy
    /// in force was compiled from, under its `settings`.
    fn implicit_differs(
        &mut self,
        maps: &Maps,
        have: &InForce,
        settings: &Settings,
        (node, cluster): (&[IpNet], &Lists),
    ) -> Result<bool> {
        let now = cluster.ranges();
        let (Some(known_node), Some(known_cluster)) = (&self.known.node, &self.known.cluster)
        else {
            // Another process compiled the policy: only the kernel knows from what.
            let sources = maps.sources(have.slot, &have.now)?;
            let of = |origin: Origin| -> BTreeSet<IpNet> {
                let found = sources.iter().filter(|one| one.origins & origin as u8 != 0);
                found.map(|one| one.range).collect()
            };
            let want_node = if settings.node_addresses { node } else { &[] };
            let want: BTreeSet<IpNet> = settings.cluster_ranges(cluster).into_iter().collect();
            let differs = of(Origin::Node) != want_node.iter().copied().collect()
                || of(Origin::Cluster) != want;
            (self.known.node, self.known.cluster) = (Some(node.to_vec()), Some(now));
            return Ok(differs);
        };
        let is_other_node = settings.node_addresses && known_node != node;
        Ok(is_other_node || *known_cluster != now)
    }

    /// Follows the node's addresses and the files of the cluster, `read`, under the policy in
    /// force, while the files of the lists or the settings cannot be put in force.
    pub(super) fn follow_implicit(&mut self, maps: &mut Maps, read: &ReadLists) -> Result<()> {
        let have = InForce::read(maps)?;
        let Some(settings) = have.settings.clone() else {
            return Ok(());
        };
        self.report_cluster(read, &settings);
        let (node, cluster) = (self.node()?, read.lists.only(&settings.cluster_files()));
        let before = self.known.cluster.clone();
        if !self.implicit_differs(maps, &have, &settings, (&node, &cluster))? {
            return Ok(());
        }
        let lists = match have.basis() {
            Basis::ImplicitSources | Basis::Fresh => Some(Lists::default()),
            _ => known_lists(&self.context, have.record.list),
        };
        let Some(lists) = lists.filter(|lists| lists.digest() == have.record.list) else {
            return Ok(());
        };
        let guarded = self.health.borrow().guarded.clone();
        let mut policy = policy(&lists, &settings, &cluster, &guarded)?;
        policy.basis = have.basis();
        policy.by = maps
            .author(have.slot)?
            .unwrap_or_else(Author::of_this_process);
        let impact = assess(&self.context, Some(maps), &policy, &guarded)?;
        impact.lines(false).iter().for_each(eprint);
        let change = Transaction {
            saves: is_saved(have.basis()).then_some(&lists),
            ..Transaction::begin(&self.context, maps, &policy)?
        };
        change.put_in_force(maps, &Progress::start())?;
        clean_up(maps);
        let now = cluster.ranges();
        match messages::describe_cluster(before.as_ref(), &now) {
            Some(words) => eprint(format_args!("note: {words}")),
            None => eprint("note: the node's addresses changed"),
        }
        (self.known.node, self.known.cluster) = (Some(node), Some(now));
        self.note_generation(maps, maps.active_slot()?)
    }
}
