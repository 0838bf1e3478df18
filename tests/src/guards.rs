//! A node with a port for all lists, and one with a list of its own.

use anyhow::Result;

use crate::{
    cli::Apifence,
    net::{Echo, silent},
    site::{ADMIN, ATTACH, Family, NODE, Site, at, ip},
};

/// The port of the API server, open to all lists.
pub const API: u16 = 6443;
/// A port that is open to the list `control-plane` alone.
pub const ETCD: u16 = 2379;
/// The config file that says so.
pub const GUARD: &str = "[[guard]]\nports = [2379, 2380]\nlists = ['control-plane']\n";
/// The unlisted client, which is the control plane here; the administrator is the office.
pub const CONTROL_PLANE: &str = "203.0.113.9\n2001:db8:bb::9\n";

/// A node with both ports, and a filter for the office and the control plane.
pub fn guarded() -> Result<(Site, Apifence, [Echo; 2])> {
    let (site, filter) = Site::unguarded()?;
    let servers = [Echo::new(&site.node, API)?, Echo::new(&site.node, ETCD)?];
    filter.write_list_of("control-plane", CONTROL_PLANE)?;
    filter.write_config(GUARD)?;
    filter.ok(&ATTACH)?;
    Ok((site, filter, servers))
}

/// The administrator's attempt gets no answer, and is dropped.
pub fn office_is_dropped(site: &Site, filter: &Apifence, family: Family, port: u16) -> Result<()> {
    let [source, node] = [ADMIN, NODE].map(|addresses| addresses[family as usize]);
    filter.drops(|| silent(&site.admin, ip(source), at(node, port)))
}

/// The office reaches the API server alone, and the control plane both.
pub fn each_reaches_its_own(site: &Site, filter: &Apifence) -> Result<()> {
    for family in Family::BOTH {
        site.admin_gets_in(family, API)?;
        office_is_dropped(site, filter, family, ETCD)?;
        site.unlisted_gets_in(family, API)?;
        site.unlisted_gets_in(family, ETCD)?;
    }
    Ok(())
}

/// Whether `check` lets `source` in at `port`.
pub fn is_in(filter: &Apifence, source: &str, port: u16) -> Result<bool> {
    let port = port.to_string();
    Ok(filter.run(&["check", "--port", &port, source])?.code == Some(0))
}
