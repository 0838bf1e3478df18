//! What the kernel's network side knows: interfaces, their addresses, XDP programs on them, default routes.

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkXdp, Prop, XdpAttached},
    route::RouteAttribute,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    libc::{
        self, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE,
        RTNLGRP_LINK,
    },
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::{NetlinkMessage, NetlinkPayload},
};

use super::{
    interface::{AttachedXdp, Interface, XdpPlace, meant},
    link_type::LinkType,
};
use crate::ui::error::Problem;

/// An open rtnetlink socket. Needs no privilege; works in the network namespace it was opened in.
pub struct Net {
    handle: Handle,
}

impl Net {
    /// Opens the socket; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("open rtnetlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All interfaces of this network namespace.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn interfaces(&self) -> Result<Vec<Interface>> {
        let mut links = self.handle.link().get().execute();
        let mut interfaces = Vec::new();
        while let Some(link) = links.try_next().await.context("list interfaces")? {
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
            interfaces.push(interface);
        }
        Ok(interfaces)
    }

    /// The interfaces named `names`; or, if none is named, those that hold a default route. `verb` is what is to be done to
    /// them, for the error.
    ///
    /// # Errors
    /// If one does not exist, or there is no default route: the error lists what there is.
    pub async fn choose(&self, verb: &str, names: &[String]) -> Result<Vec<Interface>> {
        let all = self.interfaces().await?;
        let known = || {
            let names: Vec<String> = all
                .iter()
                .map(|interface| format!("`{}`", interface.name))
                .collect();
            format!("this host has {}", names.join(", "))
        };
        if names.is_empty() {
            let routes = self.default_route_interfaces().await?;
            let chosen: Vec<Interface> = all
                .iter()
                .filter(|interface| routes.contains(&interface.ifindex))
                .filter(|interface| matches!(interface.link_type, LinkType::Filtered(_)))
                .cloned()
                .collect();
            if chosen.is_empty() {
                return Err(Problem::input(
                    "choose interface: none is named and there is no default route",
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
                    // It was typed, or stands in a file.
                    let meant = meant(name, &all).map_or_else(String::new, |meant| meant + " ");
                    return Err(Problem::input(
                        format!("{verb} `{name}`: no such interface"),
                        format!("{meant}{}", known()),
                    ));
                }
            }
        }
        Ok(chosen)
    }

    /// The interfaces that hold a default route, by number. The kernel cannot be asked for these alone: this reads every route.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn default_route_interfaces(&self) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for message in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle.route().get(message).execute();
            while let Some(route) = routes.try_next().await.context("list routes")? {
                if route.header.destination_prefix_length != 0 {
                    continue;
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
            }
        }
        // The loopback interface carries the kernel's own unreachable routes.
        found.remove(&1);
        Ok(found)
    }

    /// The node's own addresses, each as a range of one: the global ones, and the link-local ones of the interfaces of `guarded`.
    ///
    /// Every other device has a link-local address as well, each pod's veth among them. No packet with such a source comes in
    /// on a guarded interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn node_addresses(&self, guarded: &BTreeSet<u32>) -> Result<Vec<IpNet>> {
        let addresses = self.addresses().await?.into_iter();
        let own: BTreeSet<IpNet> = addresses
            .filter(|(ifindex, address)| guarded.contains(ifindex) || !is_link_local(*address))
            .map(|(_, address)| IpNet::from(address))
            .collect();
        Ok(own.into_iter().collect())
    }

    /// The node's own addresses, loopback left out, each with the number of its interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>> {
        let found = self.addresses_in_networks().await?.into_iter();
        Ok(found.map(|(ifindex, own)| (ifindex, own.addr())).collect())
    }

    /// The same, each with its prefix length, host bits and all.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn addresses_in_networks(&self) -> Result<Vec<(u32, IpNet)>> {
        let mut messages = self.handle.address().get().execute();
        let mut found = Vec::new();
        while let Some(message) = messages.try_next().await.context("list addresses")? {
            let address = own_address(message.attributes);
            let address = address.filter(|address| !address.is_loopback());
            let bits = message.header.prefix_len;
            let own = address.and_then(|address| IpNet::new(address, bits).ok());
            found.extend(own.map(|own| (message.header.index, own)));
        }
        Ok(found)
    }

    /// The number of the interface over which packets from `source`, an own address, to `client` leave; `None` if there is no route, or no answer.
    pub async fn route_to(&self, client: IpAddr, source: Option<IpAddr>) -> Option<u32> {
        let bits = if client.is_ipv4() { 32 } else { 128 };
        let builder = RouteMessageBuilder::<IpAddr>::new();
        let mut message = builder.destination_prefix(client, bits).ok()?.build();
        if let Some(source) = source {
            message.header.source_prefix_length = bits;
            message
                .attributes
                .push(RouteAttribute::Source(source.into()));
        }
        let mut routes = self.handle.route().get(message).execute();
        let attributes = routes.try_next().await.ok()??.attributes.into_iter();
        let mut interfaces = attributes.filter_map(|attribute| match attribute {
            RouteAttribute::Oif(ifindex) => Some(ifindex),
            _ => None,
        });
        interfaces.next()
    }
}

/// Word from the kernel that something changed. No runtime is needed to wait for it: a loop that turns for as long as the process lives
/// costs a system call a turn.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface came, went, or has another name or state.
    Interface {
        /// Its number.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// An interface has an address more or less.
    Address {
        /// The interface's number.
        ifindex: u32,
        /// The address.
        address: IpAddr,
    },
    /// A default route came or went.
    DefaultRoute,
    /// There was more than the kernel had room for: anything may have changed.
    Lost,
}

impl Change {
    /// What a message says; `None` for any other route than a default one, of which there may be very many.
    fn of(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            return None;
        };
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
    /// Asks for changes of interfaces and addresses and, with `routes`, of default routes.
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

    /// Waits until something changed, for `most` at most; returns all that did. The kernel may lose word of a change where there are
    /// very many, and says so.
    pub fn wait(&mut self, most: Duration) -> Vec<Change> {
        // It counts in whole milliseconds: rounded down, the last one would be spent asking again and again.
        let most = most + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        let mut ask = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Interrupted by a signal, it has waited long enough.
        if !matches!(poll(&mut ask, timeout), Ok(1..)) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => changes.extend(parse(&self.buffer)),
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

/// Room for what the kernel says at once (`NLMSG_GOODSIZE`, and links with many attributes).
const MESSAGES: usize = 64 << 10;

/// The changes in a datagram of messages.
fn parse(mut datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
        // Each begins at a multiple of four bytes.
        let length = (message.header.length as usize).next_multiple_of(4);
        changes.extend(Change::of(message));
        match datagram.get(length..) {
            Some(rest) if length > 0 && !rest.is_empty() => datagram = rest,
            _ => break,
        }
    }
    changes
}

/// The node's own address that a message is about. On a point-to-point interface `Address` is the other end; `Local` is ours
/// wherever there is one.
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

/// Whether an address is one of its link alone (RFC 3927, RFC 4291 section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn attached(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let place = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpPlace::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpPlace::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpPlace::Offload),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpPlace::Several),
        _ => None,
    })?;
    let program_id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(AttachedXdp { program_id, place })
}
