//! The interface over which a client's packets arrive, and whether a filter judges them there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use netlink_packet_route::link::InfoKind;

use super::{
    nat::Ingress,
    net::{interface::Interface, rtnetlink},
};

/// The interfaces of this node, and the routes over them.
pub struct Paths {
    interfaces: Vec<Interface>,
    own: BTreeSet<IpAddr>,
    /// Cache: the interface of the route to a client from an address of this node; `None` if it is
    /// not known.
    cache: BTreeMap<(IpAddr, Option<IpAddr>), Option<u32>>,
}

impl Paths {
    /// Reads the interfaces and addresses.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub fn new() -> Result<Self> {
        let own = rtnetlink::addresses()?.into_iter();
        Ok(Self {
            interfaces: rtnetlink::interfaces()?,
            own: own.map(|(_, address)| address).collect(),
            cache: BTreeMap::new(),
        })
    }

    /// Whether `address` is this node's own: packets from it reach no filter.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address)
    }

    /// This node's addresses.
    pub const fn own(&self) -> &BTreeSet<IpAddr> {
        &self.own
    }

    /// The interfaces over which packets arrive that passed a filter on one of `guarded`. Where
    /// none is guarded yet, all but the loopback.
    pub fn ingresses(&self, guarded: &BTreeSet<u32>) -> Vec<Ingress> {
        const LOOPBACK: u32 = 1;
        let ingresses = self.interfaces.iter().filter(|interface| {
            if guarded.is_empty() {
                interface.ifindex != LOOPBACK
            } else {
                self.is_guarded(Some(interface.ifindex), guarded)
            }
        });
        let ingresses = ingresses.map(|interface| Ingress {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
        });
        ingresses.collect()
    }

    /// The interface over which packets of `client` to `local` arrive, taken from the route back.
    /// `None` if it is not known.
    pub fn to(&mut self, client: IpAddr, local: Option<IpAddr>) -> Option<u32> {
        // The kernel refuses a route lookup from an address that is not its own.
        let local = local.filter(|local| self.own.contains(local));
        if let Some(known) = self.cache.get(&(client, local)) {
            return *known;
        }
        let found = rtnetlink::route_to(client, local);
        self.cache.insert((client, local), found);
        found
    }

    /// Whether packets from the interface pass a filter on one of `guarded`: its own, that of its
    /// lower interface, or that of one of its ports. `true` if that is not known.
    pub fn is_guarded(&self, ifindex: Option<u32>, guarded: &BTreeSet<u32>) -> bool {
        let Some(ifindex) = ifindex else {
            return !guarded.is_empty();
        };
        let mut seen = BTreeSet::new();
        self.reaches(ifindex, guarded, &mut seen)
    }

    fn reaches(&self, ifindex: u32, guarded: &BTreeSet<u32>, seen: &mut BTreeSet<u32>) -> bool {
        if guarded.contains(&ifindex) {
            return true;
        }
        let found = self
            .interfaces
            .iter()
            .find(|found| found.ifindex == ifindex);
        // The interface appeared after the list was read; its kind is unknown.
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
        if ports.any(|port| self.reaches(port.ifindex, guarded, seen)) {
            return true;
        }
        let is_on_top = matches!(
            interface.kind,
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan)
        );
        is_on_top
            && interface
                .lower
                .is_some_and(|lower| self.reaches(lower, guarded, seen))
    }
}
