//! A small internet: a node, an administrator and an unlisted client, each in a namespace of its
//! own, with a router between them.
//!
//! Every address is a /32 or /128 of its own, so that a client may have any address.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result};

use crate::{
    cli::{Apifence, Background},
    net::{Echo, open, ping, silent, udp},
    netns::{End, Namespace, veth},
    scrape::ready,
};

/// The node's interface, and each client's.
pub const INTERFACE: &str = "eth0";
/// The node's addresses, IPv4 and IPv6.
pub const NODE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// The administrator's addresses: inside `198.51.100.0/24` and `2001:db8:aa::/48`.
pub const ADMIN: [&str; 2] = ["198.51.100.7", "2001:db8:aa::7"];
/// The unlisted client's addresses: outside of both.
pub const UNLISTED: [&str; 2] = ["203.0.113.9", "2001:db8:bb::9"];
/// The ranges that hold the administrator's addresses and not the unlisted client's, as the command
/// line takes them.
pub const ADMIN_RANGES: &str = "198.51.100.0/24,2001:db8:aa::/48";

/// `apifence attach`, for the administrator alone.
pub const ATTACH: [&str; 5] = [
    "attach",
    "--interface",
    INTERFACE,
    "--authorized-ip-ranges",
    ADMIN_RANGES,
];

/// An address family: the index of its address in [`NODE`], [`ADMIN`] and [`UNLISTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// The namespaces.
#[derive(Debug)]
pub struct Site {
    /// The namespace of the API server and the filter.
    pub node: Namespace,
    /// The namespace of the authorized client.
    pub admin: Namespace,
    /// The namespace of the unlisted client.
    pub unlisted: Namespace,
    router: Namespace,
}

impl Site {
    /// Makes the namespaces, with an MTU of 1500.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// Makes the namespaces with another MTU on every link.
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let router = Namespace::new("router")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let [node, admin, unlisted] = [("node", NODE), ("admin", ADMIN), ("unlisted", UNLISTED)]
            .map(|(name, addresses)| connect_to(&router, name, mtu, &addresses));
        Ok(Self {
            node: node?,
            admin: admin?,
            unlisted: unlisted?,
            router,
        })
    }

    /// Makes the namespaces, and `apifence` for commands on the node; no filter is attached.
    pub fn unguarded() -> Result<(Self, Apifence)> {
        let site = Self::new()?;
        let filter = Apifence::new(&site.node)?;
        Ok((site, filter))
    }

    /// The same with a server on `port` of the node.
    pub fn unguarded_server(port: u16) -> Result<(Self, Apifence, Echo)> {
        let (site, filter) = Self::unguarded()?;
        let server = Echo::new(&site.node, port)?;
        Ok((site, filter, server))
    }

    /// Makes the namespaces, and attaches the filter to the node for the administrator alone.
    pub fn guarded() -> Result<(Self, Apifence)> {
        let (site, filter) = Self::unguarded()?;
        filter.ok(&ATTACH)?;
        Ok((site, filter))
    }

    /// The same with a server on `port` of the node.
    pub fn guarded_server(port: u16) -> Result<(Self, Apifence, Echo)> {
        let (site, filter, server) = Self::unguarded_server(port)?;
        filter.ok(&ATTACH)?;
        Ok((site, filter, server))
    }

    /// The same with `run`, which follows the administrator's list in the ranges file.
    pub fn followed(port: u16) -> Result<(Self, Apifence, Background, Echo)> {
        let (site, filter, server) = Self::unguarded_server(port)?;
        filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
        let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
        ready(&site.node, &mut daemon)?;
        Ok((site, filter, daemon, server))
    }

    /// The administrator opens a connection to the node and uses it.
    pub fn admin_gets_in(&self, family: Family, port: u16) -> Result<TcpStream> {
        open(
            &self.admin,
            ip(ADMIN[family as usize]),
            at(NODE[family as usize], port),
        )
    }

    /// The unlisted client opens a connection to the node and uses it.
    pub fn unlisted_gets_in(&self, family: Family, port: u16) -> Result<TcpStream> {
        open(
            &self.unlisted,
            ip(UNLISTED[family as usize]),
            at(NODE[family as usize], port),
        )
    }

    /// In both families the administrator gets in, and the unlisted client gets no answer. Needs no
    /// command of the filter's.
    pub fn is_guarded(&self, port: u16) -> Result<()> {
        for family in Family::BOTH {
            self.admin_gets_in(family, port)?;
            let [source, node] = [UNLISTED, NODE].map(|addresses| addresses[family as usize]);
            silent(&self.unlisted, ip(source), at(node, port))?;
        }
        Ok(())
    }

    /// The unlisted client's attempt gets no answer, and is dropped and counted as unauthorized.
    pub fn unlisted_is_dropped(&self, family: Family, port: u16, filter: &Apifence) -> Result<()> {
        self.is_dropped(
            UNLISTED[family as usize],
            at(NODE[family as usize], port),
            filter,
        )
    }

    /// The same for any address of the unlisted client, and any target.
    pub fn is_dropped(&self, source: &str, target: SocketAddr, filter: &Apifence) -> Result<()> {
        filter
            .drops(|| silent(&self.unlisted, ip(source), target))
            .with_context(|| format!("{source} to {target}"))
    }

    /// UDP and ICMP from the unlisted client to the node, which the filter must not touch.
    pub fn other_protocols_pass(&self, family: Family, port: u16) -> Result<()> {
        let [source, node] = [UNLISTED, NODE].map(|addresses| addresses[family as usize]);
        udp((&self.unlisted, ip(source)), (&self.node, at(node, port)))?;
        ping(&self.unlisted, ip(source), ip(node))
    }

    /// Gives the node one more address.
    pub fn add_node(&self, address: &str) -> Result<()> {
        add(&self.router, "node", &self.node, address)
    }

    /// Routes packets to `address`, which the node does not have, to the node, like the address of
    /// a service.
    pub fn route_to_node(&self, address: &str) -> Result<()> {
        let [via, _] = NODE;
        self.router
            .ip(&format!("route add {address} via {via} dev node onlink"))
            .map(drop)
    }

    /// Gives the unlisted client one more address.
    pub fn add_unlisted(&self, address: &str) -> Result<()> {
        add(&self.router, "unlisted", &self.unlisted, address)
    }
}

fn connect_to(router: &Namespace, name: &str, mtu: u32, addresses: &[&str]) -> Result<Namespace> {
    let host = Namespace::new(name)?;
    veth(
        mtu,
        End::new(&host, INTERFACE, &[]),
        End::new(router, name, &["169.254.0.1/32", "fe80::1/64"]),
    )?;
    for address in addresses {
        add(router, name, &host, address)?;
    }
    host.ip(&format!(
        "route add default via 169.254.0.1 dev {INTERFACE} onlink"
    ))?;
    host.ip(&format!(
        "route add default via fe80::1 dev {INTERFACE} onlink"
    ))?;
    Ok(host)
}

fn add(router: &Namespace, name: &str, host: &Namespace, address: &str) -> Result<()> {
    let bits = if address.contains(':') { 128 } else { 32 };
    crate::netns::add_address(host, INTERFACE, &format!("{address}/{bits}"))?;
    router
        .ip(&format!("route add {address}/{bits} dev {name}"))
        .map(drop)
}

/// An address of this module as a value.
pub fn ip(address: &str) -> IpAddr {
    address.parse().expect("the suite writes addresses right")
}

/// `address` and `port` together.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}
