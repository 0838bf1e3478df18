//! Unlisted sources that monitor mode let pass.

use std::{net::IpAddr, path::Path};

use anyhow::Result;
use filter_common::{
    ip_address,
    layout::{MONITORED_SOURCES, MonitoredSource, MonitoredSourceKey},
};
use jiff::Timestamp;

use super::{batch::Batch, slot::open_data};
use crate::{clock::Clocks, ui::explain::explain};

/// A source that enforce mode would drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitoredSourceSeen {
    /// Its address.
    pub source: IpAddr,
    /// Packets that would have been dropped.
    pub packets: u64,
    /// The time of the last one, accurate to some milliseconds.
    pub last_seen: Timestamp,
    /// The destination port of the last one; `None` if it could not be read.
    pub port: Option<u16>,
}

/// All sources in the maps in `directory`, in no order; one that was refused at ports with
/// different lists comes more than once.
///
/// # Errors
/// If the kernel refuses.
pub fn read_monitored_sources(directory: &Path) -> Result<Vec<MonitoredSourceSeen>> {
    let data = open_data(directory, MONITORED_SOURCES)?;
    let now = Clocks::now()?;
    let mut found = Vec::new();
    let read = Batch::of(&data)?.read(|key, value| {
        let key: MonitoredSourceKey = bytemuck::pod_read_unaligned(key);
        let seen: MonitoredSource = bytemuck::pod_read_unaligned(value);
        if let Some(source) = ip_address(key.source, key.family as u8) {
            found.push(MonitoredSourceSeen {
                source,
                packets: seen.packets,
                last_seen: now.wall_at_monotonic(seen.last_seen),
                port: Some(seen.port).filter(|port| *port != 0),
            });
        }
    });
    read.map_err(|error| explain("read unlisted sources", &error))?;
    Ok(found)
}
