//! The policy before the change.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use filter_common::Mode;

use crate::{
    clock::Clocks,
    config::Settings,
    context::Context,
    kernel::{
        bpf::{Group, Maps, Slot},
        net::sock_diag::Connection,
    },
    policy::Policy,
};
use ipnet::IpNet;

/// Whether a filter for these destinations judges packets to `local`.
pub(crate) fn guards(destinations: &[IpNet], local: IpAddr) -> bool {
    destinations.is_empty() || destinations.iter().any(|range| range.contains(&local))
}

/// The policy in force, and its slot.
pub(crate) struct PreviousPolicy<'a> {
    /// None if no policy drops packets: every source passes.
    judge: Option<(&'a Maps, Slot)>,
    /// Its settings; none if they cannot be read.
    pub(crate) settings: Option<Settings>,
    /// The interfaces that have a filter.
    pub(crate) guarded: BTreeSet<u32>,
    now: Clocks,
}

impl<'a> PreviousPolicy<'a> {
    pub(crate) fn new(context: &Context, maps: Option<&'a Maps>, now: Clocks) -> Result<Self> {
        let mut before = Self {
            judge: None,
            settings: None,
            guarded: BTreeSet::new(),
            now,
        };
        if let Some(maps) = maps {
            let slot = maps.active_slot()?;
            before.settings = maps.settings(slot).ok();
            before.guarded = context.pins.interfaces()?.into_iter().collect();
            let enforces = maps.record(slot)?.mode == Mode::Enforce as u8;
            before.judge = enforces.then_some((maps, slot));
        }
        Ok(before)
    }

    /// The ports that it drops packets to; `None` if it drops nothing. Empty if the settings are
    /// unreadable.
    pub(crate) fn enforced(&self) -> Option<BTreeSet<u16>> {
        self.judge?;
        let settings = self.settings.as_ref();
        Some(settings.map_or_else(BTreeSet::new, Settings::protected))
    }

    /// Whether it passes packets of `connection` over an interface with or without a filter.
    pub(crate) fn passes(&self, connection: &Connection, has_filter: bool) -> Result<bool> {
        // Without a filter or readable settings the connection counts as open.
        let (Some(settings), true) = (&self.settings, has_filter) else {
            return Ok(true);
        };
        let local = connection.local;
        let judged = settings.protects(local.port()) && guards(&settings.destinations, local.ip());
        Ok(
            !judged
                || self.authorizes(connection.remote.ip(), Group::of(settings, local.port()))?,
        )
    }

    /// Whether it passes `client`, over a filter, to `port` of a destination that `policy` guards.
    pub(crate) fn passes_anywhere(
        &self,
        client: IpAddr,
        port: u16,
        policy: &Policy,
    ) -> Result<bool> {
        let Some(settings) = &self.settings else {
            return Ok(true);
        };
        let now = &policy.settings;
        // A destination inside one of the old ones was guarded before.
        let wider = !settings.destinations.is_empty()
            && (now.destinations.is_empty()
                || now.destinations.iter().any(|range| {
                    !settings
                        .destinations
                        .iter()
                        .any(|before| before.contains(range))
                }));
        let judged = settings.protects(port) && !wider;
        Ok(!judged || self.authorizes(client, Group::of(settings, port))?)
    }

    fn authorizes(&self, client: IpAddr, group: Group) -> Result<bool> {
        let Some((maps, slot)) = self.judge else {
            return Ok(true);
        };
        maps.authorizes(slot, group, client, &self.now)
    }
}
