//! Interfaces, their addresses and programs, and default routes of the calling thread's network
//! namespace. Reading them needs no privilege.

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, Prop, XdpAttached},
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    libc::{
        self, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE,
        RTNLGRP_LINK,
    },
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    interface::{AttachedXdp, Interface, XdpAttachMode, meant},
    link_type::LinkType,
    netlink,
};
use crate::ui::error::UserError;

/// Dumps everything of a kind. An answer that cannot be parsed is skipped: one odd device must not
/// hide the others.
pub(super) fn dump(
    request: &RouteNetlinkMessage,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> Result<()> {
    netlink::dump_messages(NETLINK_ROUTE, request, |answer| {
        if let Ok(answer) = answer {
            each(answer);
        }
        Ok(())
    })
}

/// All interfaces of this network namespace.
///
/// # Errors
/// If the kernel does not answer.
pub fn interfaces() -> Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    dump(&request, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            interfaces.push(interface(link));
        }
    })
    .context("list interfaces")?;
    Ok(interfaces)
}

fn interface(link: LinkMessage) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        other_names: Vec::new(),
        ifindex: link.header.index,
        xdp: None,
        up: link.header.flags.contains(LinkFlags::Up),
        link_type: LinkType::new(link.header.link_layer_type.into(), None),
        kind: None,
        lower: None,
        master: None,
    };
    let arphrd = link.header.link_layer_type.into();
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(value) => interface.name = value,
            LinkAttribute::PropList(values) => {
                interface.other_names = values
                    .into_iter()
                    .filter_map(|value| match value {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    })
                    .collect();
            }
            LinkAttribute::Xdp(values) => interface.xdp = attached(&values),
            LinkAttribute::Link(ifindex) => interface.lower = Some(ifindex),
            LinkAttribute::Controller(ifindex) => interface.master = Some(ifindex),
            LinkAttribute::LinkInfo(values) => {
                interface.kind = values.into_iter().find_map(|value| match value {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface.link_type = LinkType::new(arphrd, interface.kind.as_ref());
    interface
}

/// The interfaces named `names`; without a name, those that hold a default route. `verb` is the
/// operation, for the error.
///
/// # Errors
/// If one does not exist, or there is no default route: the error lists the interfaces that exist.
pub fn choose(verb: &str, names: &[String]) -> Result<Vec<Interface>> {
    let all = interfaces()?;
    let known = || {
        let names: Vec<String> = all
            .iter()
            .map(|interface| format!("`{}`", interface.name))
            .collect();
        format!("this host has {}", names.join(", "))
    };
    if names.is_empty() {
        let routes = default_route_interfaces()?;
        let chosen: Vec<Interface> = all
            .iter()
            .filter(|interface| routes.contains(&interface.ifindex))
            .filter(|interface| matches!(interface.link_type, LinkType::Filtered(_)))
            .cloned()
            .collect();
        if chosen.is_empty() {
            return Err(UserError::input(
                "choose interface: no interface is named, and there is no default route",
                format!("name one with `--interface`; {}", known()),
            ));
        }
        return Ok(chosen);
    }
    let mut chosen: Vec<Interface> = Vec::new();
    for name in names {
        match all.iter().find(|interface| interface.name == *name) {
            Some(interface)
                if chosen
                    .iter()
                    .any(|other| other.ifindex == interface.ifindex) => {}
            Some(interface) => chosen.push(interface.clone()),
            None => {
                // The name was typed, or comes from a file.
                let meant = meant(name, &all).map_or_else(String::new, |meant| meant + " ");
                return Err(UserError::input(
                    format!("{verb} `{name}`: no such interface"),
                    format!("{meant}{}", known()),
                ));
            }
        }
    }
    Ok(chosen)
}

/// The interfaces that hold a default route, by ifindex. The kernel cannot filter for them, so this
/// reads every route.
///
/// # Errors
/// If the kernel does not answer.
pub fn default_route_interfaces() -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        dump(&RouteNetlinkMessage::GetRoute(request), |answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else {
                return;
            };
            if route.header.destination_prefix_length != 0 {
                return;
            }
            for attribute in route.attributes {
                match attribute {
                    RouteAttribute::Oif(ifindex) => {
                        found.insert(ifindex);
                    }
                    RouteAttribute::MultiPath(hops) => {
                        found.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
        })
        .context("list routes")?;
    }
    // The loopback interface carries the kernel's own unreachable routes.
    found.remove(&1);
    Ok(found)
}

/// The node's own addresses, each as a range of one: the global ones, and the link-local ones of
/// the interfaces of `guarded`.
///
/// Every other device has a link-local address as well, each pod's veth among them. No packet from
/// such a source arrives on a guarded interface.
///
/// # Errors
/// If the kernel does not answer.
pub fn node_addresses(guarded: &BTreeSet<u32>) -> Result<Vec<IpNet>> {
    let addresses = addresses()?.into_iter();
    let own: BTreeSet<IpNet> = addresses
        .filter(|(ifindex, address)| guarded.contains(ifindex) || !is_link_local(*address))
        .map(|(_, address)| IpNet::from(address))
        .collect();
    Ok(own.into_iter().collect())
}

/// The node's own addresses without loopback, each with its ifindex.
///
/// # Errors
/// If the kernel does not answer.
pub fn addresses() -> Result<Vec<(u32, IpAddr)>> {
    let found = addresses_in_networks()?.into_iter();
    Ok(found.map(|(ifindex, own)| (ifindex, own.addr())).collect())
}

/// Like [`addresses`], each with its prefix length; host bits are kept.
///
/// # Errors
/// If the kernel does not answer.
pub fn addresses_in_networks() -> Result<Vec<(u32, IpNet)>> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    dump(&request, |answer| {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            let bits = message.header.prefix_len;
            let ifindex = message.header.index;
            let address = own_address(message.attributes);
            let address = address.filter(|address| !address.is_loopback());
            let own = address.and_then(|address| IpNet::new(address, bits).ok());
            found.extend(own.map(|own| (ifindex, own)));
        }
    })
    .context("list addresses")?;
    Ok(found)
}

/// The ifindex of the route from `source`, an own address, to `client`; `None` without a route or
/// an answer.
pub fn route_to(client: IpAddr, source: Option<IpAddr>) -> Option<u32> {
    let bits = if client.is_ipv4() { 32 } else { 128 };
    let mut request = RouteMessage::default();
    request.header.address_family = if client.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    request.header.destination_prefix_length = bits;
    let destination = RouteAttribute::Destination(client.into());
    request.attributes.push(destination);
    if let Some(source) = source {
        request.header.source_prefix_length = bits;
        let source = RouteAttribute::Source(source.into());
        request.attributes.push(source);
    }
    let mut found = None;
    let request = RouteNetlinkMessage::GetRoute(request);
    netlink::get_message(NETLINK_ROUTE, &request, |answer| {
        if let Ok(RouteNetlinkMessage::NewRoute(route)) = answer {
            found = route
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Oif(ifindex) => Some(ifindex),
                    _ => None,
                });
        }
        Ok(())
    })
    .ok()?;
    found
}

/// A subscription to changes. It waits without an async runtime: an event loop would cost a system
/// call per turn.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface appeared, disappeared, or changed its name or state.
    Interface {
        /// Its ifindex.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// An interface gained or lost an address.
    Address {
        /// The interface's ifindex.
        ifindex: u32,
        /// The address.
        address: IpAddr,
    },
    /// A default route was added or removed.
    DefaultRoute,
    /// The kernel's buffer overflowed: anything may have changed.
    Lost,
}

impl Change {
    /// The change in a message; `None` for other routes than default ones, which may be very many.
    fn of(message: RouteNetlinkMessage) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let ifindex = link.header.index;
                let mut names = link.attributes.into_iter();
                let name = names.find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })?;
                Some(Self::Interface { ifindex, name })
            }
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
                let ifindex = message.header.index;
                let address = own_address(message.attributes)?;
                Some(Self::Address { ifindex, address })
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                (route.header.destination_prefix_length == 0).then_some(Self::DefaultRoute)
            }
            _ => None,
        }
    }
}

impl Changes {
    /// Subscribes to changes of interfaces and addresses and, with `routes`, of default routes.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn open(routes: bool) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            let groups = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR];
            let of_routes = [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE];
            let of_routes = of_routes.iter().filter(|_| routes);
            for group in groups.iter().chain(of_routes) {
                socket.add_membership(*group)?;
            }
            Ok(socket)
        };
        let socket = open()
            .map_err(|error: io::Error| error)
            .context("open rtnetlink socket")?;
        let buffer = Vec::with_capacity(MESSAGES);
        Ok(Self { socket, buffer })
    }

    /// Waits for changes, `most` at most; returns all of them. The kernel may lose notifications
    /// where there are very many, and reports that.
    pub fn wait(&mut self, most: Duration) -> Vec<Change> {
        // poll(2) counts whole milliseconds: rounded down, the last one would be a busy loop.
        let most = most + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        let mut ask = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // A signal ends the wait, too.
        if !matches!(poll(&mut ask, timeout), Ok(1..)) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    let messages = netlink::messages(&self.buffer).filter_map(Result::ok);
                    let known = messages.filter_map(|(kind, body)| netlink::parse(kind, body).ok());
                    changes.extend(known.filter_map(Change::of));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changes,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.push(Change::Lost);
                }
                Err(_) => {
                    changes.push(Change::Lost);
                    return changes;
                }
            }
        }
    }
}

/// Buffer size for one read (`NLMSG_GOODSIZE`, and links with many attributes).
const MESSAGES: usize = 64 << 10;

/// The node's own address in a message. On a point-to-point interface `Address` is the other end;
/// `Local`, where present, is ours.
fn own_address(attributes: Vec<AddressAttribute>) -> Option<IpAddr> {
    let mut address = None;
    for attribute in attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(local),
            AddressAttribute::Address(value) => address = address.or(Some(value)),
            _ => {}
        }
    }
    address
}

/// Whether an address is link-local (RFC 3927, RFC 4291 section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn attached(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let place = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpAttachMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpAttachMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpAttachMode::Offload),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpAttachMode::Several),
        _ => None,
    })?;
    let program_id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(AttachedXdp { program_id, place })
}
