//! Decapsulation without a tunnel device: the filter of an interface sees such packets only from
//! the outside, so it must read the inner packet, too.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::netlink::{self, messages};
use crate::policy::Decapsulation;

/// Reads the decapsulations of the calling thread's network namespace. Reads all IPv6 routes: the
/// kernel cannot select routes by their action.
///
/// # Errors
/// If the kernel does not answer.
pub fn of_this_node() -> Result<Decapsulation> {
    let labels = pops_labels().context("read settings of MPLS")?;
    Ok(Decapsulation::of(routes_decapsulate()?, labels))
}

/// A subscription to route changes, which avoids listing all routes again and again.
pub struct Subscription {
    socket: Socket,
    /// Whether a route decapsulates; `None` if the routes must be listed.
    routes: Option<bool>,
    /// Whether MPLS labels are popped, and the time of that reading.
    labels: Option<(Instant, bool)>,
}

impl Subscription {
    /// Subscribes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(RTNLGRP_IPV6_ROUTE)?;
            socket.add_membership(RTNLGRP_NEXTHOP)?;
            socket.set_non_blocking(true)?;
            io::Result::Ok(socket)
        };
        Ok(Self {
            socket: open().context("open rtnetlink socket")?,
            routes: None,
            labels: None,
        })
    }

    /// What this node decapsulates now. Routes are listed only if one that matters changed, or a
    /// notification was lost.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read(&mut self) -> Result<Decapsulation> {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => {
                    if decapsulation_may_change(&datagram) {
                        self.routes = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Notifications were lost (ENOBUFS), or another error: list the routes.
                Err(_) => {
                    self.routes = None;
                    break;
                }
            }
        }
        let routes = match self.routes {
            Some(routes) => routes,
            None => *self.routes.insert(routes_decapsulate()?),
        };
        // The kernel sends no notification of these settings.
        let (at, labels) = match self.labels {
            Some((at, labels)) if at.elapsed() < LABELS => (at, labels),
            _ => (
                Instant::now(),
                pops_labels().context("read settings of MPLS")?,
            ),
        };
        self.labels = Some((at, labels));
        Ok(Decapsulation::of(routes, labels))
    }
}

/// How long a reading of the MPLS settings is reused.
const LABELS: Duration = Duration::from_secs(5);

/// Whether a datagram is about a route or a next hop that decapsulates.
fn decapsulation_may_change(datagram: &[u8]) -> bool {
    messages(datagram).any(|message| match message {
        Ok((RTM_NEWROUTE | RTM_DELROUTE, message)) => ROUTES.message_decapsulates(message),
        // Its routes may have gone with it, without a notification of their own.
        Ok((RTM_NEWNEXTHOP | RTM_DELNEXTHOP, _)) | Err(_) => true,
        Ok(_) => false,
    })
}

/// Whether this kernel accepts MPLS labels on an interface. It pops the explicit null label without
/// any route (`resize_platform_label_table` in `net/mpls/af_mpls.c`).
fn pops_labels() -> io::Result<bool> {
    let number = |path: &str| -> io::Result<u32> {
        let text = fs::read_to_string(path)?;
        text.trim().parse().map_err(io::Error::other)
    };
    const SETTINGS: &str = "/proc/sys/net/mpls";
    let labels = match number(&format!("{SETTINGS}/platform_labels")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        labels => labels?,
    };
    if labels == 0 {
        return Ok(false);
    }
    for interface in fs::read_dir(format!("{SETTINGS}/conf"))? {
        let name = interface?.file_name();
        match number(&format!("{SETTINGS}/conf/{}/input", name.display())) {
            // The interface is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(0) => {}
            Ok(_) => return Ok(true),
        }
    }
    Ok(false)
}

// Numbers of `include/uapi/linux/rtnetlink.h`, `nexthop.h`, `lwtunnel.h` and `seg6_local.h`.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_NEXTHOP: u32 = 32;
const RTA_MULTIPATH: u16 = 9;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const LWTUNNEL_ENCAP_SEG6_LOCAL: u16 = 7;
const SEG6_LOCAL_ACTION: u16 = 1;
const AF_INET6: u8 = 10;

/// Objects to dump: routes, or the next hops that routes refer to by their id.
struct Dump {
    request: u16,
    answer: u16,
    /// Length of the fixed part of a message after its header.
    fixed: usize,
    encap_type: u16,
    encap: u16,
}

const ROUTES: Dump = Dump {
    request: RTM_GETROUTE,
    answer: RTM_NEWROUTE,
    fixed: 12,
    encap_type: RTA_ENCAP_TYPE,
    encap: RTA_ENCAP,
};
const NEXT_HOPS: Dump = Dump {
    request: RTM_GETNEXTHOP,
    answer: RTM_NEWNEXTHOP,
    fixed: 8,
    encap_type: NHA_ENCAP_TYPE,
    encap: NHA_ENCAP,
};

fn routes_decapsulate() -> Result<bool> {
    let routes = ROUTES.decapsulates().context("list routes")?;
    Ok(routes || NEXT_HOPS.decapsulates().context("list next hops")?)
}

impl Dump {
    /// Whether one of them decapsulates. They are parsed by hand: there may be hundreds of
    /// thousands, and two attributes of each matter.
    fn decapsulates(&self) -> Result<bool> {
        let mut request = vec![0; self.fixed];
        request[0] = AF_INET6;
        let mut found = false;
        netlink::dump(NETLINK_ROUTE, self.request, &request, |kind, message| {
            found |= kind == self.answer && self.message_decapsulates(message);
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether a message about a route or a next hop is about one that decapsulates.
    fn message_decapsulates(&self, message: &[u8]) -> bool {
        let attributes = message.get(self.fixed..);
        attributes.is_some_and(|attributes| self.encap_decapsulates(attributes))
    }

    /// Whether these attributes, of a route or a next hop, decapsulate.
    fn encap_decapsulates(&self, attributes: &[u8]) -> bool {
        let (mut seg6_local, mut action) = (false, None);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            let attribute: NlaBuffer<&[u8]> = attribute;
            let value = attribute.value();
            if attribute.kind() == self.encap_type {
                seg6_local = value == LWTUNNEL_ENCAP_SEG6_LOCAL.to_ne_bytes();
            } else if attribute.kind() == self.encap {
                action = action_of(value);
            } else if attribute.kind() == RTA_MULTIPATH && self.answer == RTM_NEWROUTE {
                let mut hops = value;
                // `struct rtnexthop`: its length with its attributes, then six bytes.
                while let Some(len) = hops.first_chunk().map(|len| u16::from_ne_bytes(*len)) {
                    let len = usize::from(len);
                    let Some(hop) = hops.get(8..len) else { break };
                    if self.encap_decapsulates(hop) {
                        return true;
                    }
                    hops = hops.get(len.next_multiple_of(4)..).unwrap_or_default();
                }
            }
        }
        seg6_local && action.is_none_or(decapsulates_locally)
    }
}

/// The action of a `seg6local` encapsulation.
fn action_of(attributes: &[u8]) -> Option<u32> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == SEG6_LOCAL_ACTION)
        .and_then(|attribute| Some(u32::from_ne_bytes(*attribute.value().first_chunk()?)))
}

/// Whether an action decapsulates a packet and delivers the inner one to this node
/// (`SEG6_LOCAL_ACTION_*`). An action by a BPF program may do so, and so may an unknown action.
const fn decapsulates_locally(action: u32) -> bool {
    !matches!(
        action,
        // End, End.X, End.T.
        1..=3
        // End.DX2: a frame, which leaves through another interface.
        | 4
        // End.B6, End.B6.Encaps, End.BM, End.S, End.AS, End.AM.
        | 9..=14
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn encap(encap_type: u16, action: u32) -> Vec<u8> {
        let action = attribute(SEG6_LOCAL_ACTION, &action.to_ne_bytes());
        [
            attribute(RTA_ENCAP | 1 << 15, &action),
            attribute(RTA_ENCAP_TYPE, &encap_type.to_ne_bytes()),
        ]
        .concat()
    }

    #[test]
    fn routes_that_end_a_segment_and_take_a_packet_out_are_found() {
        for (action, want) in [
            (1, false),
            (4, false),
            (5, true),
            (6, true),
            (7, true),
            (8, true),
        ] {
            assert_eq!(
                ROUTES.encap_decapsulates(&encap(7, action)),
                want,
                "{action}"
            );
        }
        for (action, want) in [(10, false), (15, true), (16, true), (17, true)] {
            assert_eq!(
                ROUTES.encap_decapsulates(&encap(7, action)),
                want,
                "{action}"
            );
        }
        // `encap seg6`, whose numbers mean something else.
        assert!(!ROUTES.encap_decapsulates(&encap(5, 7)));
        assert!(!ROUTES.encap_decapsulates(&attribute(4, &[1, 0, 0, 0])));
        let hop = |attributes: &[u8]| {
            let len = 8 + attributes.len() as u16;
            [&len.to_ne_bytes()[..], &[0; 6], attributes].concat()
        };
        let hops = [hop(&encap(7, 1)), hop(&encap(7, 7))].concat();
        assert!(ROUTES.encap_decapsulates(&attribute(RTA_MULTIPATH, &hops)));
    }

    #[test]
    fn the_kernel_answers() {
        // The answer depends on this machine; it only has to be understood.
        assert!(of_this_node().is_ok());
    }
}
