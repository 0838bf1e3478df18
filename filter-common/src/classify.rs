//! From a frame to what it is: not ours, a segment for a port, or unclassifiable and why.
//!
//! The rule behind every line: a segment that Linux would hand to a listener is never taken for something
//! else, and what cannot be told is said to be so. `wire/` has one file per protocol.

use crate::{
    DropReason, LinkHeader, MAX_OFFSET, PacketBytes, PassReason,
    wire::{ethernet, ipv4, ipv6, mpls},
};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// An IPv4 packet, here.
    Ipv4(Place),
    /// An IPv6 packet, here.
    Ipv6(Place),
    /// Nothing that a listener could get.
    Other(PassReason),
    /// It cannot be told, nor can its source: nobody can be asked to vouch for it.
    Hidden(DropReason),
}

/// Where in the frame an IP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of its first byte.
    pub offset: usize,
    /// Offset behind the packet around it; what lies there is padding, whatever the packet itself says. [`usize::MAX`] if there
    /// is none around it.
    pub end: usize,
    /// Whether the packet around it is the first of several fragments: what is missing here may follow.
    pub first_fragment: bool,
}

impl Place {
    /// The place of a packet right in the frame.
    #[inline(always)]
    pub(crate) const fn in_frame(offset: usize) -> Self {
        Self {
            offset,
            end: usize::MAX,
            first_fragment: false,
        }
    }
}

/// What an IP packet with addresses of type `A` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<A> {
    /// Nothing that a listener on a TCP port could get, whatever the policy.
    Other(PassReason),
    /// A TCP segment, or the first fragment of one.
    Segment {
        /// Where it comes from and goes to.
        flow: Flow<A>,
        /// The destination port, in host order.
        port: u16,
        /// Offset of the TCP header in the frame.
        at: usize,
    },
    /// It may be a segment for any port.
    Doubt {
        /// Where it comes from and goes to.
        flow: Flow<A>,
        /// What hides the port.
        why: Doubt,
    },
    /// It must not pass whoever sends it: what is read is not what Linux will see, the source included.
    Hostile(DropReason),
    /// Another packet, that Linux takes out of this one and starts over with: the addresses there count, and these do not.
    Around(Carried),
}

/// The addresses of a packet, as its fixed IP header has them.
///
/// The header's source decides: a home-address option (RFC 6275 section 6.3) does not change it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// Source address of the IP header.
    pub source: A,
    /// Destination address of the IP header.
    pub destination: A,
    /// Whether an IPv6 routing header with segments left names another destination (RFC 8200 section 4.4,
    /// RFC 8754).
    pub redirected: bool,
    /// The bytes of the frame that hold IPv4 options, which may name another destination (RFC 791 section 3.1, source
    /// routes): offset of the first, and offset behind the last.
    pub options: (usize, usize),
}

impl<A> Flow<A> {
    /// Whether the packet may end at another address than `destination`; options are looked through only now.
    #[inline(always)]
    pub fn may_be_redirected<P: PacketBytes>(&self, packet: &P) -> bool {
        let (start, end) = self.options;
        self.redirected || (start < end && ipv4::has_source_route(packet, start, end))
    }
}

/// What hides the port of a packet that may be TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// An IPv4 header length below five words.
    Malformed,
    /// The packet, or the frame, ends before the port.
    Truncated,
    /// The same in the first fragment of several: the port may be in a later one.
    IncompleteFirstFragment,
    /// The port lies beyond [`MAX_OFFSET`](crate::MAX_OFFSET).
    TooDeep,
}

/// Tells what `packet` carries; `mpls` tells whether MPLS labels are taken off.
#[inline(always)]
pub fn carried<P: PacketBytes>(packet: &P, mpls: impl FnOnce() -> bool) -> Carried {
    match packet.link_header() {
        LinkHeader::Ethernet => carried_by_ethernet(packet, mpls),
        // Two bytes: of a comparison for one the verifier learns nothing.
        LinkHeader::None => match packet.read(0).map(|[first, _]| first >> 4) {
            Some(4) => Carried::Ipv4(Place::in_frame(0)),
            Some(6) => Carried::Ipv6(Place::in_frame(0)),
            Some(_) => Carried::Other(PassReason::NotIp),
            None => Carried::Other(PassReason::ShortHeader),
        },
    }
}

/// The same behind an Ethernet header and any number of VLAN tags, and of MPLS labels behind them.
#[inline(always)]
fn carried_by_ethernet<P: PacketBytes>(packet: &P, mpls: impl FnOnce() -> bool) -> Carried {
    let Some(ether_type) = packet.read::<2>(ethernet::TYPE) else {
        return Carried::Other(PassReason::ShortHeader);
    };
    let mut tags = ethernet::Tags {
        ether_type: u16::from_be_bytes(ether_type),
        readable: true,
    };
    let mut offset = ethernet::HEADER_LEN;
    if ethernet::is_tag(tags.ether_type) {
        offset = packet.walk(offset, &mut tags);
    }
    if tags.ether_type == ethernet::TYPE_MPLS && tags.readable && mpls() {
        let mut labels = mpls::Labels { bottom: false };
        offset = packet.walk(offset, &mut labels);
        match packet.read(offset) {
            Some([first, _]) if labels.bottom => {
                tags.ether_type = ethernet::type_of_version(first >> 4);
            }
            _ => tags.readable = false,
        }
    }
    let (carried, len) = match tags.ether_type {
        ethernet::TYPE_IPV4 => (Carried::Ipv4(Place::in_frame(offset)), ipv4::HEADER_LEN),
        ethernet::TYPE_IPV6 => (Carried::Ipv6(Place::in_frame(offset)), ipv6::HEADER_LEN),
        _ if tags.readable => return Carried::Other(PassReason::NotIp),
        _ => (
            Carried::Hidden(DropReason::HeadersTooDeep),
            ethernet::TAG_LEN,
        ),
    };
    if tags.readable && offset + len <= MAX_OFFSET {
        return carried;
    }
    // Linux takes no packet from a frame that is too short for its tags and fixed IP header. A frame that is long enough, but
    // hides them beyond reach, is another matter.
    if packet.frame_len() < offset + len {
        Carried::Other(PassReason::ShortHeader)
    } else {
        Carried::Hidden(DropReason::HeadersTooDeep)
    }
}
