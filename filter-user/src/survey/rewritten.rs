//! Ports of this node that lead to a protected one after the filter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{cluster::Cidr, kernel::net::conntrack::tracked};

/// The other ports at which connections come in that are rewritten to one of `ports`, a sentence
/// each. `own` are the addresses of the node. A service's address is the cluster's own way.
pub(super) fn rewritten(
    own: &BTreeSet<IpAddr>,
    services: &[Cidr],
    ports: &BTreeSet<u16>,
) -> Vec<String> {
    let mut found: BTreeMap<u16, SocketAddr> = BTreeMap::new();
    // Without connection tracking nothing is rewritten.
    for connection in tracked().unwrap_or_default() {
        let (came, went) = (connection.original, connection.rewritten.local);
        let (client, local) = (came.remote.ip(), came.local.ip());
        let is_service = services
            .iter()
            .any(|service| service.range.contains(&local));
        let is_from_here = client.is_loopback() || own.contains(&client);
        if own.contains(&local) && !is_service && !is_from_here {
            let port = came.local.port();
            if !ports.contains(&port) && ports.contains(&went.port()) {
                found.insert(port, went);
            }
        }
    }
    let found = found.into_iter();
    found
        .map(|(port, went)| {
            format!(
                "this node redirects port {port} to {went} after the filter: protect port {port}, too"
            )
        })
        .collect()
}
