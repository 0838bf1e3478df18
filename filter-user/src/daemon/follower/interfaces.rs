//! Interfaces that the config file adds. They are guarded at once, unless that would cut cluster
//! nodes or administrators of this node. An interface cannot be on trial.

use anyhow::Result;

use super::state::Follower;
use crate::{
    change::{
        build::{known_lists, policy},
        impact::assess,
    },
    config::OnCut,
    daemon::{WantedInterfaces, alerts::sentence},
    kernel::net::rtnetlink,
    ui::error::UserError,
};

/// The matter of alerts about interfaces.
pub(crate) const INTERFACES: &str = "interfaces";

impl Follower {
    /// Passes the config file's interfaces to the guard, unless that cuts nodes or administrators.
    pub(crate) fn offer_interfaces(&mut self) {
        let wanted = WantedInterfaces::of(&self.context.config);
        // If the impact is unknown, the interfaces are guarded: an open port is worse.
        if let Ok(Some(reason)) = self.would_cut(&wanted) {
            let error = UserError::failed(
                format!("guard the interfaces in the config file: {reason}"),
                "add those sources to the list or to `cluster_cidrs`; or set `on_cut = \"apply\"`",
            );
            self.alerts.raise(INTERFACES, &error);
            self.health
                .send_modify(|health| health.reloaded(Some(sentence(&error))));
            return;
        }
        self.interfaces_pending = false;
        // The state of the files must be reported again.
        self.dirty |= self.alerts.has(INTERFACES);
        self.alerts.clear(INTERFACES, "the interfaces are guarded");
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            *before = wanted;
            differs
        });
    }

    /// The cluster nodes or administrators that would be cut on unguarded interfaces of `wanted`.
    fn would_cut(&mut self, wanted: &WantedInterfaces) -> Result<Option<String>> {
        let guarded = self.health.borrow().guarded.clone();
        let mut all = guarded.clone();
        let interfaces = rtnetlink::interfaces()?;
        let named = interfaces
            .iter()
            .filter(|found| wanted.names.contains(&found.name));
        all.extend(named.map(|found| found.ifindex));
        if wanted.names.is_empty() {
            all.extend(rtnetlink::default_route_interfaces()?);
        }
        if all == guarded || *self.context.config.on_cut == OnCut::Apply {
            return Ok(None);
        }
        let Some(maps) = self.open_maps() else {
            return Ok(None);
        };
        let (record, settings) =
            maps.read_consistent(|slot| Ok((maps.record(slot)?, maps.settings(slot)?)))?;
        let Some(lists) = known_lists(&self.context, record.list) else {
            return Ok(None);
        };
        let cluster = self.context.read_cluster(settings.cluster_files()).lists;
        let policy = policy(&lists, &settings, &cluster, &all)?;
        let maps = self.open.as_ref().map(|(_, maps)| maps);
        let impact = assess(&self.context, maps, &policy, &all)?;
        Ok(impact.lockout())
    }
}
