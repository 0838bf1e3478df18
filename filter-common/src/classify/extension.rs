//! The chain of extension headers between an IP header and its segment (RFC 8200 section 4).

use crate::{
    classify::{Class, Flow, PacketBounds, Payload, Unclassifiable},
    packet::{MAX_OFFSET, PacketBytes, Step, Walk},
    verdict::{DropReason, PassReason},
    wire::{ipv4, ipv6, protocol, tcp},
};

/// Whether the walk continues after a header of this number.
///
/// Linux stops at mobility, HIP and shim6 headers. After them the walk can only find a segment that
/// Linux would not deliver. ESP and no-next-header end the walk because nothing readable follows.
#[inline(always)]
pub(crate) const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Whether this number announces an inner IP packet.
#[inline(always)]
pub(crate) const fn is_packet(next_header: u8) -> bool {
    matches!(next_header, protocol::IPV4 | protocol::IPV6)
}

/// The class of a packet whose chain starts at `offset`: follows the chain to the segment at its
/// end.
#[inline(always)]
pub(crate) fn classify_chain<P: PacketBytes, A>(
    packet: &P,
    mut flow: Flow<A>,
    mut offset: usize,
    mut chain: Chain,
) -> Class<A> {
    if is_extension(chain.next_header()) {
        offset = packet.walk(offset, &mut chain);
        flow.redirected = chain.has(flag::REDIRECTED);
        match chain.state() {
            ChainState::Complete => {}
            ChainState::Inner => return chain.encapsulated(packet, offset),
            ChainState::Incomplete => {
                // The missing bytes may come in a later fragment, and a routing header among them.
                flow.redirected |= chain.has(flag::FIRST_FRAGMENT) || offset > MAX_OFFSET;
                return chain.unclassifiable(flow, offset);
            }
            ChainState::LaterFragment => return Class::Other(PassReason::LaterFragment),
            ChainState::MisplacedFragment => {
                return Class::AlwaysDrop(DropReason::MisplacedFragment);
            }
        }
    }
    if chain.next_header() != protocol::TCP {
        return if chain.has(flag::DECAPSULATES) && is_packet(chain.next_header()) {
            chain.encapsulated(packet, offset)
        } else {
            Class::Other(PassReason::NotTcp)
        };
    }
    match packet.read::<{ tcp::PORTS_LEN }>(offset) {
        Some(ports) if offset + tcp::PORTS_LEN <= chain.end() => Class::Segment {
            flow,
            port: u16::from_be_bytes([
                ports[tcp::DESTINATION_PORT],
                ports[tcp::DESTINATION_PORT + 1],
            ]),
            at: offset,
        },
        _ => chain.unclassifiable(flow, offset),
    }
}

/// A walk along a chain of extension headers.
///
/// Both of its numbers are in the upper half of a stack slot. The verifier does not track a number
/// there, so it checks a step once, and not once for each state and each range of an end.
#[repr(C)]
pub(crate) struct Chain {
    unused_before_end: u32,
    /// Offset of the end of the packet, from its length field. Bytes from there on are padding.
    end: u32,
    unused_before_word: u32,
    /// The number of the header at the current offset in the lowest byte, and above it the
    /// [flags](flag), the state, and the length of the header read last.
    word: u32,
}

const _: () = assert!(core::mem::offset_of!(Chain, end) % 8 == 4);
const _: () = assert!(core::mem::offset_of!(Chain, word) % 8 == 4);

/// Bits of a [`Chain`] above the header number.
mod flag {
    /// The packet is the first of several fragments.
    pub(super) const FIRST_FRAGMENT: u32 = 1 << 8;
    /// A fragment header is allowed here: at the start, or after a single hop-by-hop header at the
    /// start.
    pub(super) const FRAGMENT_ALLOWED: u32 = 1 << 9;
    /// No header has been read yet.
    pub(super) const START: u32 = 1 << 10;
    /// A routing header with segments left was read.
    pub(super) const REDIRECTED: u32 = 1 << 11;
    /// Linux takes an inner packet out of this one, whatever headers precede it.
    pub(super) const DECAPSULATES: u32 = 1 << 12;
    /// The chain follows an IPv4 header: only the authentication header continues it.
    pub(super) const V4: u32 = 1 << 13;
    /// The header read last is a routing header behind which Linux takes an inner packet out.
    pub(super) const ENDS_SEGMENT: u32 = 1 << 14;
    /// Position of the [state](super::ChainState).
    pub(super) const STATE_SHIFT: u32 = 16;
    /// Position of the length of the header read last, in bytes.
    pub(super) const LEN_SHIFT: u32 = 19;
    /// The bits of that length, which is 2,048 at most.
    pub(super) const LEN: u32 = 0xfff << LEN_SHIFT;
    /// Always set. The verifier would track a number that it knows to be zero.
    pub(super) const ALWAYS: u32 = 1 << 31;
}

/// How a walk along a chain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum ChainState {
    /// Before the end of an extension header: at the end of the packet, of the frame, or at
    /// [`MAX_OFFSET`].
    Incomplete = 0,
    /// At a header that is not an extension header.
    Complete = 1,
    /// At the header of an inner packet that Linux takes out of this one.
    Inner = 2,
    /// At the fragment header of a fragment that is not the first.
    LaterFragment = 3,
    /// At a fragment header where Linux allows none.
    MisplacedFragment = 4,
}

impl Chain {
    /// The chain of an IPv6 packet that ends at `end`, below 4 GiB, and whose header names
    /// `next_header`. With `first_fragment` the packet is already known to be the first of several.
    #[inline(always)]
    pub(crate) const fn new(next_header: u8, end: usize, first_fragment: bool) -> Self {
        let mut chain = Self {
            unused_before_end: 0,
            end: end as u32,
            unused_before_word: 0,
            // The state is zero, `Incomplete`, until the walk finds the end.
            word: next_header as u32 | flag::FRAGMENT_ALLOWED | flag::START | flag::ALWAYS,
        };
        chain.set(flag::FIRST_FRAGMENT, first_fragment);
        chain
    }

    /// The same chain after an IPv4 header.
    #[inline(always)]
    pub(crate) const fn in_ipv4(mut self) -> Self {
        self.set(flag::V4, true);
        self
    }

    /// The same chain where Linux takes inner packets out after any chain.
    #[inline(always)]
    pub(crate) const fn decapsulating(mut self, decapsulates: bool) -> Self {
        self.set(flag::DECAPSULATES, decapsulates);
        self
    }

    #[inline(always)]
    const fn end(&self) -> usize {
        self.end as usize
    }

    #[inline(always)]
    const fn next_header(&self) -> u8 {
        self.word as u8
    }

    #[inline(always)]
    const fn has(&self, flag: u32) -> bool {
        self.word & flag != 0
    }

    #[inline(always)]
    const fn set(&mut self, flag: u32, on: bool) {
        self.word = self.word & !flag | if on { flag } else { 0 };
    }

    #[inline(always)]
    const fn state(&self) -> ChainState {
        match self.word >> flag::STATE_SHIFT & 7 {
            1 => ChainState::Complete,
            2 => ChainState::Inner,
            3 => ChainState::LaterFragment,
            4 => ChainState::MisplacedFragment,
            _ => ChainState::Incomplete,
        }
    }

    /// The class of a packet whose chain ends at `offset`, before the port.
    #[inline(always)]
    fn unclassifiable<A>(&self, flow: Flow<A>, offset: usize) -> Class<A> {
        let why = if self.has(flag::FIRST_FRAGMENT) {
            Unclassifiable::IncompleteFirstFragment
        } else if offset > MAX_OFFSET && offset < self.end() {
            Unclassifiable::TooDeep
        } else {
            Unclassifiable::Truncated
        };
        Class::Unclassifiable { flow, why }
    }

    /// The class of a packet with an inner packet, whose header is at `offset`.
    #[inline(always)]
    fn encapsulated<P: PacketBytes, A>(&self, packet: &P, offset: usize) -> Class<A> {
        let first_fragment = self.has(flag::FIRST_FRAGMENT);
        let bounds = PacketBounds {
            offset,
            end: self.end(),
            first_fragment,
        };
        let (inner, len) = match self.next_header() {
            protocol::IPV4 => (Payload::Ipv4(bounds), ipv4::HEADER_LEN),
            _ => (Payload::Ipv6(bounds), ipv6::HEADER_LEN),
        };
        if offset + len <= self.end().min(MAX_OFFSET) {
            return Class::Encapsulated(inner);
        }
        // The inner source cannot be read. It may still be in a later fragment, or beyond the
        // readable range.
        if first_fragment {
            Class::AlwaysDrop(DropReason::IncompleteFirstFragment)
        } else if offset + len <= self.end().min(packet.frame_len()) {
            Class::AlwaysDrop(DropReason::HeadersTooDeep)
        } else {
            Class::Other(PassReason::ShortHeader)
        }
    }

    #[inline(always)]
    fn finish(&mut self, state: ChainState, len: usize) -> Step {
        self.word |= (state as u32) << flag::STATE_SHIFT;
        Step::Done(len)
    }
}

impl Walk for Chain {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        let number = self.next_header();
        // A misplaced fragment header is an error even if none of its bytes can be read.
        if number == protocol::FRAGMENT && !self.has(flag::FRAGMENT_ALLOWED) {
            return self.finish(ChainState::MisplacedFragment, 0);
        }
        let header = match packet.read::<{ ipv6::EXTENSION_READ }>(offset) {
            Some(header) if offset + ipv6::EXTENSION_READ <= self.end() => header,
            _ => return self.finish(ChainState::Incomplete, 0),
        };
        let len = usize::from(header[ipv6::EXTENSION_LEN]);
        let len = match number {
            protocol::FRAGMENT => {
                let word = u16::from_be_bytes([
                    header[ipv6::FRAGMENT_WORD],
                    header[ipv6::FRAGMENT_WORD + 1],
                ]);
                if word & ipv6::FRAGMENT_OFFSET_MASK != 0 {
                    return self.finish(ChainState::LaterFragment, 0);
                }
                self.set(flag::FIRST_FRAGMENT, word & ipv6::MORE_FRAGMENTS != 0);
                8
            }
            protocol::AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        };
        let is_routing = number == protocol::ROUTING;
        if is_routing && header[ipv6::SEGMENTS_LEFT] != 0 {
            self.set(flag::REDIRECTED, true);
        }
        // Where these routing headers are enabled, Linux takes out an inner packet right after one
        // and receives it again, without any tunnel device (`ipv6_srh_rcv` and `ipv6_rpl_srh_rcv`
        // in `net/ipv6/exthdrs.c`; Linux 4.10, commit 1ababeba4a21f3dba3da3523c670b207fb2feb62).
        let ends_segment = is_routing
            && matches!(
                header[ipv6::ROUTING_TYPE],
                ipv6::ROUTING_RPL | ipv6::ROUTING_SEGMENTS
            );
        self.set(flag::ENDS_SEGMENT, ends_segment);
        self.word = self.word & !flag::LEN | (len as u32) << flag::LEN_SHIFT;
        // What follows is verified once, and not once for each kind of header.
        packet.forget(&mut self.word);
        let allowed = self.has(flag::START) && self.next_header() == protocol::HOP_BY_HOP;
        self.set(flag::FRAGMENT_ALLOWED, allowed);
        self.set(flag::START, false);
        self.word = self.word & !0xff | u32::from(header[0]);
        packet.forget(&mut self.word);
        let len = ((self.word & flag::LEN) >> flag::LEN_SHIFT) as usize;
        let next_header = self.next_header();
        let goes_on = if self.has(flag::V4) {
            next_header == protocol::AUTHENTICATION
        } else {
            is_extension(next_header)
        };
        if goes_on {
            return Step::More(len);
        }
        let state = if self.has(flag::ENDS_SEGMENT) && is_packet(next_header) {
            ChainState::Inner
        } else {
            ChainState::Complete
        };
        self.finish(state, len)
    }
}
