//! Over which interface the packets of a client come in, and whether they meet a filter on their way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use netlink_packet_route::link::InfoKind;

use super::{
    nat::Way,
    net::{interface::Interface, rtnetlink},
};

/// The interfaces of this node, and which ways lead over them.
pub struct Paths {
    interfaces: Vec<Interface>,
    own: BTreeSet<IpAddr>,
    /// The interface that leads to a client from an address of this node, as far as it was asked
    /// for; `None` if nobody knows.
    asked: BTreeMap<(IpAddr, Option<IpAddr>), Option<u32>>,
}

impl Paths {
    /// Asks which interfaces and addresses there are.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub fn new() -> Result<Self> {
        let own = rtnetlink::addresses()?.into_iter();
        Ok(Self {
            interfaces: rtnetlink::interfaces()?,
            own: own.map(|(_, address)| address).collect(),
            asked: BTreeMap::new(),
        })
    }

    /// Whether `address` is one of this node's own: what comes from there meets no filter.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address)
    }

    /// This node's addresses.
    pub const fn own(&self) -> &BTreeSet<IpAddr> {
        &self.own
    }

    /// The interfaces over which packets come in that have met a filter on one of `guarded`; where
    /// none is guarded yet, all but the loopback.
    pub fn ways(&self, guarded: &BTreeSet<u32>) -> Vec<Way> {
        const LOOPBACK: u32 = 1;
        let ways = self.interfaces.iter().filter(|interface| {
            if guarded.is_empty() {
                interface.ifindex != LOOPBACK
            } else {
                self.meets(Some(interface.ifindex), guarded)
            }
        });
        let ways = ways.map(|interface| Way {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
        });
        ways.collect()
    }

    /// The interface over which packets of `client` to `local` come in: the one that leads back.
    /// `None` if nobody knows.
    pub fn to(&mut self, client: IpAddr, local: Option<IpAddr>) -> Option<u32> {
        // Another address is no source that a route could be asked for with.
        let local = local.filter(|local| self.own.contains(local));
        if let Some(known) = self.asked.get(&(client, local)) {
            return *known;
        }
        let found = rtnetlink::route_to(client, local);
        self.asked.insert((client, local), found);
        found
    }

    /// Whether what comes in over the interface meets a filter on one of `guarded`: its own, that
    /// of the interface that it is on top of, or that of one of its ports. In doubt it does.
    pub fn meets(&self, ifindex: Option<u32>, guarded: &BTreeSet<u32>) -> bool {
        let Some(ifindex) = ifindex else {
            return !guarded.is_empty();
        };
        let mut seen = BTreeSet::new();
        self.leads_to(ifindex, guarded, &mut seen)
    }

    fn leads_to(&self, ifindex: u32, guarded: &BTreeSet<u32>, seen: &mut BTreeSet<u32>) -> bool {
        if guarded.contains(&ifindex) {
            return true;
        }
        let found = self
            .interfaces
            .iter()
            .find(|found| found.ifindex == ifindex);
        // One that came a moment ago may be anything.
        let Some(interface) = found else {
            return !guarded.is_empty();
        };
        if !seen.insert(ifindex) {
            return false;
        }
        let mut ports = self
            .interfaces
            .iter()
            .filter(|port| port.master == Some(ifindex));
        if ports.any(|port| self.leads_to(port.ifindex, guarded, seen)) {
            return true;
        }
        let is_on_top = matches!(
            interface.kind,
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan)
        );
        is_on_top
            && interface
                .lower
                .is_some_and(|lower| self.leads_to(lower, guarded, seen))
    }
}
