//! From a frame to what it is: not ours, a segment for a port, or unclassifiable and why.
//!
//! The rule behind every line: a segment that Linux would hand to a listener is never taken for something
//! else, and what cannot be told is said to be so.
//!
//! Not supported, on purpose: IP in IEEE 802.2 LLC or SNAP frames (Linux has no handler that would deliver it), tag
//! types other than 802.1Q and 802.1ad (Linux does not strip them), the inside of
//! tunnels that need a device of their own.

pub(crate) mod extension;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod link;

use crate::verdict::{DropReason, PassReason};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// An IPv4 packet, here.
    Ipv4(PacketBounds),
    /// An IPv6 packet, here.
    Ipv6(PacketBounds),
    /// Nothing that a listener could get.
    Other(PassReason),
    /// It cannot be told, nor can its source: nobody can be asked to vouch for it.
    Unreadable(DropReason),
}

/// Where in the frame an IP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketBounds {
    /// Offset of its first byte.
    pub offset: usize,
    /// Offset behind the packet around it; what lies there is padding, whatever the packet itself says. [`usize::MAX`] if there
    /// is none around it.
    pub end: usize,
    /// Whether the packet around it is the first of several fragments: what is missing here may follow.
    pub first_fragment: bool,
}

impl PacketBounds {
    /// The bounds of a packet right in the frame.
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
pub(crate) enum Class<A> {
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
    Unclassifiable {
        /// Where it comes from and goes to.
        flow: Flow<A>,
        /// What hides the port.
        why: Unclassifiable,
    },
    /// It must not pass whoever sends it: what is read is not what Linux will see, the source included.
    AlwaysDrop(DropReason),
    /// Another packet, that Linux takes out of this one and starts over with: the addresses there count, and these do not.
    Encapsulated(Payload),
}

/// The addresses of a packet, as its fixed IP header has them.
///
/// The header's source decides: a home-address option (RFC 6275 section 6.3) does not change it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow<A> {
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

/// What hides the port of a packet that may be TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclassifiable {
    /// An IPv4 header length below five words.
    Malformed,
    /// The packet, or the frame, ends before the port.
    Truncated,
    /// The same in the first fragment of several: the port may be in a later one.
    IncompleteFirstFragment,
    /// The port lies beyond [`MAX_OFFSET`](crate::MAX_OFFSET).
    TooDeep,
}
