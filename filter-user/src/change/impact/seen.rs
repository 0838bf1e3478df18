//! The connections of this node, as the filter sees them.

use std::{collections::BTreeMap, fs};

use filter_common::Mode;

use crate::{
    kernel::{
        nat::rewriters,
        net::{
            conntrack::{ConntrackEntry, tracked},
            sock_diag::{CLOSED, Connection, TcpSocket},
        },
        routes::Paths,
    },
    policy::Policy,
};

/// Further facts about a connection.
pub(super) struct SocketFacts {
    /// The ifindex that it is bound to, or 0.
    pub(super) bound: u32,
    /// Why the client may be gone.
    pub(super) doubt: Option<&'static str>,
}

/// The connections as the filter sees them, in order. For forwarded and for translated connections
/// the packet's addresses are those in connection tracking, not those of the socket.
pub(super) fn filtered_connections(
    sockets: &[TcpSocket],
    policy: &Policy,
    paths: &Paths,
    unseen: &mut Option<String>,
) -> BTreeMap<Connection, SocketFacts> {
    let forwards = || {
        let files = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        let on = |file| fs::read_to_string(format!("/proc/sys/net/{file}"));
        files
            .iter()
            .any(|file| on(file).is_ok_and(|on| on.trim() != "0"))
    };
    // The table may be very long, so it is read only if connections can be cut.
    let wanted = policy.mode() == Mode::Enforce && (forwards() || !rewriters().is_empty());
    let tracked = match wanted.then(tracked) {
        None => Vec::new(),
        Some(Ok(tracked)) => tracked,
        Some(Err(_)) => {
            *unseen = Some(
                "the count leaves out forwarded connections (to pods, containers, guests): the kernel does not list them"
                    .to_owned(),
            );
            Vec::new()
        }
    };
    let rewritten = |tracked: &&ConntrackEntry| tracked.original != tracked.rewritten;
    let originals: BTreeMap<Connection, Connection> = tracked
        .iter()
        .filter(rewritten)
        .map(|tracked| (tracked.rewritten, tracked.original))
        .collect();
    let mut seen: BTreeMap<Connection, SocketFacts> = sockets
        .iter()
        .map(|socket| {
            let connection = socket.connection;
            let original = originals.get(&connection).copied();
            let found = SocketFacts {
                bound: socket.interface,
                doubt: socket.doubt(),
            };
            (original.unwrap_or(connection), found)
        })
        .collect();
    for tracked in tracked {
        // For a connection that ends on this node the sockets say more.
        if !paths.is_own(tracked.rewritten.local.ip()) {
            let doubt = tracked.is_half_closed.then_some(CLOSED);
            seen.entry(tracked.original)
                .or_insert(SocketFacts { bound: 0, doubt });
        }
    }
    seen
}
