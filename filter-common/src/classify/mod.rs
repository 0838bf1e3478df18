//! What a frame carries: a segment for a port, a packet that no TCP listener gets, or one that
//! cannot be classified, with the cause.
//!
//! The safety rule of this module: a segment that Linux would hand to a listener is never
//! classified as something else. A packet that cannot be classified is reported as such.
//!
//! Not supported, on purpose: IP in IEEE 802.2 LLC or SNAP frames (Linux has no handler that
//! delivers it), tag types other than 802.1Q and 802.1ad (Linux does not strip them), and packets
//! in tunnels that need a device of their own.

pub(crate) mod extension;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod link;

use crate::verdict::{DropReason, PassReason};

/// What a frame carries behind its link header, or what a packet carries inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// An IPv4 packet, with its bounds.
    Ipv4(PacketBounds),
    /// An IPv6 packet, with its bounds.
    Ipv6(PacketBounds),
    /// A payload that no TCP listener gets, whatever the policy.
    Other(PassReason),
    /// An IP packet, perhaps, but neither it nor its source can be read. No authorization is
    /// possible.
    Unreadable(DropReason),
}

/// Where an IP packet lies in the frame. Offsets are in bytes, from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketBounds {
    /// Offset of the first byte of the IP header.
    pub offset: usize,
    /// Offset of the end of the outer packet, or [`usize::MAX`] without one. Bytes from there on
    /// are padding, whatever length the inner header states.
    pub end: usize,
    /// Whether the outer packet is the first of several fragments. Bytes that are missing here may
    /// follow in a later fragment.
    pub first_fragment: bool,
}

impl PacketBounds {
    /// The bounds of a packet without an outer packet.
    #[inline(always)]
    pub(crate) const fn in_frame(offset: usize) -> Self {
        Self {
            offset,
            end: usize::MAX,
            first_fragment: false,
        }
    }
}

/// The class of an IP packet whose addresses have the type `A`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class<A> {
    /// A packet that no TCP listener gets, whatever the policy.
    Other(PassReason),
    /// A TCP segment, or the first fragment of one.
    Segment {
        /// Source and destination.
        flow: Flow<A>,
        /// The destination port, in host order.
        port: u16,
        /// Offset of the TCP header in the frame.
        at: usize,
    },
    /// A packet that may be a segment for any port. The policy decides by its source.
    Unclassifiable {
        /// Source and destination.
        flow: Flow<A>,
        /// Why the port cannot be read.
        why: Unclassifiable,
    },
    /// A packet that is dropped whatever its source. Linux would see other bytes than those read
    /// here, possibly another source.
    AlwaysDrop(DropReason),
    /// A packet that Linux takes out of this one and receives again. The inner addresses count, the
    /// outer ones do not.
    Encapsulated(Payload),
}

/// The addresses of a packet, from its fixed IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow<A> {
    /// Source address of the IP header.
    pub source: A,
    /// Destination address of the IP header.
    pub destination: A,
    /// Whether an IPv6 routing header with segments left names another destination (RFC 8200
    /// section 4.4, RFC 8754).
    pub redirected: bool,
    /// Where the IPv4 options lie in the frame: offset of the first byte, and of the first byte
    /// after them. A source route in them names another destination (RFC 791 section 3.1).
    pub options: (usize, usize),
}

/// Why the port of a possible segment cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclassifiable {
    /// An IPv4 header length below five words.
    Malformed,
    /// The packet, or the frame, ends before the port.
    Truncated,
    /// The first of several fragments ends before the port. The port may be in a later one.
    IncompleteFirstFragment,
    /// The port lies beyond [`MAX_OFFSET`](crate::MAX_OFFSET).
    TooDeep,
}
