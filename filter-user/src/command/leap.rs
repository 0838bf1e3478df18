//! See before you leap: which established connections a change of the policy would cut.

use std::{net::IpAddr, panic::resume_unwind, thread};

use anyhow::{Context as _, Result};
use filter_common::Mode;
use serde::Serialize;

use super::told::first_lines;
use crate::{
    clients::{Connection, established, origin},
    clock::Moment,
    datapath::{Maps, Policy},
    net::Net,
    problem::Problem,
};

/// What a change would do to those who are connected.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Leap {
    /// Established connections to the protected ports that stop at their next packet.
    cut: Vec<Connection>,
    /// How many stay.
    kept: usize,
    /// The address that this shell came in from, if it is shut out.
    shuts_out: Option<IpAddr>,
    /// Why nobody can tell.
    unknown: Option<String>,
}

/// Looks at the connections of this node, and at the address that this shell came in from.
pub(super) async fn look(net: &Net, maps: Option<&Maps>, policy: &Policy) -> Result<Leap> {
    let now = Moment::now()?;
    // It takes as long as all the rest.
    let origin = thread::Builder::new()
        .spawn(origin)
        .context("start thread")?;
    let (before, slot) = match maps {
        Some(maps) => {
            let slot = maps.in_force()?;
            (Some((maps, maps.record(slot)?)), Some(slot))
        }
        None => (None, None),
    };
    let had = |source: IpAddr| -> Result<bool> {
        let (Some((maps, record)), Some(slot)) = (&before, slot) else {
            return Ok(true);
        };
        if record.mode != Mode::Enforce as u8 {
            return Ok(true);
        }
        let around = maps.around(slot, source, &now)?;
        Ok(around.first().is_some_and(|prefix| prefix.lives(now.wall)))
    };
    let has = |source: IpAddr| {
        policy.mode() != Mode::Enforce || policy.sources().authorize(source, now.wall)
    };
    let mut leap = Leap::default();
    match established(&policy.settings.ports) {
        Ok(connections) => {
            // What the node says to itself never passes the filter.
            let own = if connections.is_empty() {
                Vec::new()
            } else {
                net.addresses().await?
            };
            let clients = connections.into_iter().filter(|connection| {
                let remote = connection.remote.ip();
                !remote.is_loopback() && !own.iter().any(|(_, own)| *own == remote)
            });
            for connection in clients {
                let guarded = policy.settings.destinations.is_empty()
                    || policy
                        .settings
                        .destinations
                        .iter()
                        .any(|range| range.contains(&connection.local.ip()));
                let source = connection.remote.ip();
                if !guarded || has(source) {
                    leap.kept += 1;
                } else if had(source)? {
                    leap.cut.push(connection);
                }
            }
        }
        Err(error) => leap.unknown = Some(format!("{error:#}")),
    }
    if let Some(client) = origin.join().unwrap_or_else(|panic| resume_unwind(panic))
        && had(client)?
        && !has(client)
    {
        leap.shuts_out = Some(client);
    }
    Ok(leap)
}

impl Leap {
    /// What is to be said of it; in place of a change that `would` do it.
    pub(super) fn lines(&self, would: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(why) = &self.unknown {
            lines.push(format!(
                "warning: which connections this cuts is unknown: {why}"
            ));
        }
        if !self.cut.is_empty() {
            let named = self
                .cut
                .iter()
                .map(|connection| format!("  {} -> {}", connection.remote, connection.local));
            lines.push(format!(
                "warning: {} of {} established connections {} cut at their next packet:",
                self.cut.len(),
                self.cut.len() + self.kept,
                if would { "would be" } else { "are" }
            ));
            lines.extend(first_lines(named, self.cut.len()));
        }
        if let Some(client) = self.shuts_out {
            lines.push(format!(
                "warning: {client}, where this shell came in from, {} shut out from the protected ports",
                if would { "would be" } else { "is" }
            ));
        }
        lines
    }

    /// Why `run` must not make it for good by itself: it cuts nodes of the cluster, or administrators of this node.
    pub(super) fn serious(&self) -> Option<String> {
        None
    }

    /// Refuses what would lock the operator out, unless he insists.
    pub(super) fn insist(&self, force: bool) -> Result<()> {
        let cause = match (self.shuts_out, self.cut.len(), self.kept) {
            _ if force => return Ok(()),
            (Some(client), ..) => {
                format!("change policy: it shuts out {client}, where this shell came in from")
            }
            (None, cut @ 1.., 0) => {
                format!("change policy: it cuts every established client (connections: {cut})")
            }
            _ => return Ok(()),
        };
        Err(Problem::refused(
            cause,
            "add `--force` if that is meant, and `--confirm-within 60s` so that it takes itself back; nothing changed",
            Vec::new(),
        ))
    }
}
