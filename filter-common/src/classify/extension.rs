//! The chain of extension headers between an IP header and its segment (RFC 8200 section 4).

use crate::{
    classify::{Class, Flow, PacketBounds, Payload, Unclassifiable},
    packet::{MAX_OFFSET, PacketBytes, Step, Walk},
    verdict::{DropReason, PassReason},
    wire::{ipv4, ipv6, protocol, tcp},
};

/// Whether the walk goes on behind a header of this number.
///
/// Linux stops at mobility, protocol::HIP and shim6; walking on there can only find a segment that Linux would not deliver.
/// ESP and no-next-header end the walk: nothing readable follows.
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

/// Whether a header of this number is that of another packet.
#[inline(always)]
pub(crate) const fn is_packet(next_header: u8) -> bool {
    matches!(next_header, protocol::IPV4 | protocol::IPV6)
}

/// Follows the chain at `offset` to the segment at its end, if there is one.
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
                // What is missing may come in a later fragment: a routing header too.
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
        Some(ports) if offset + tcp::PORTS_LEN <= chain.end => Class::Segment {
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
/// All that changes on the way is in one number, in the upper half of a stack slot: the verifier does not follow it there, and goes
/// through a step once, not for each way to come to it.
#[repr(C)]
pub(crate) struct Chain {
    /// Offset behind the packet, by its own account: what lies there is padding.
    end: usize,
    unused: u32,
    /// The number of the header at the current offset, in the lowest byte, and [flags](flag).
    word: u32,
}

const _: () = assert!(core::mem::offset_of!(Chain, word) % 8 == 4);

/// What a [`Chain`] remembers besides.
mod flag {
    /// This is the first of several fragments.
    pub(super) const FIRST_FRAGMENT: u32 = 1 << 8;
    /// A fragment header may come next: at the start, or behind one hop-by-hop header at the start.
    pub(super) const FRAGMENT_ALLOWED: u32 = 1 << 9;
    /// This is the first header.
    pub(super) const START: u32 = 1 << 10;
    /// A routing header with segments left was met.
    pub(super) const REDIRECTED: u32 = 1 << 11;
    /// Linux takes a packet at the end of the chain out of this one, whatever stands in front of it.
    pub(super) const DECAPSULATES: u32 = 1 << 12;
    /// Of IPv4: only the authentication header is one that something can follow.
    pub(super) const V4: u32 = 1 << 13;
    /// Where the [state](super::ChainState) is.
    pub(super) const STATE_SHIFT: u32 = 16;
    /// Always there: a number that the verifier knows to be zero it would follow.
    pub(super) const ALWAYS: u32 = 1 << 31;
}

/// How a walk along a chain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum ChainState {
    /// Inside an extension header: at the packet's end, the frame's, or [`MAX_OFFSET`].
    Incomplete = 0,
    /// At a header that is no extension header.
    Complete = 1,
    /// At the header of a packet that Linux takes out of this one.
    Inner = 2,
    /// At the header of a fragment that is not the first.
    LaterFragment = 3,
    /// At a fragment header where none may be.
    MisplacedFragment = 4,
}

impl Chain {
    /// The chain of a packet that ends at `end` and whose header names `next_header`; it may be one of several, `first_fragment`.
    #[inline(always)]
    pub(crate) const fn new(next_header: u8, end: usize, first_fragment: bool) -> Self {
        let mut chain = Self {
            end,
            unused: 0,
            // Until the walk finds its end it has not seen the whole chain.
            word: next_header as u32 | flag::FRAGMENT_ALLOWED | flag::START | flag::ALWAYS,
        };
        chain.set(flag::FIRST_FRAGMENT, first_fragment);
        chain
    }

    /// The same in an IPv4 packet.
    #[inline(always)]
    pub(crate) const fn in_ipv4(mut self) -> Self {
        self.set(flag::V4, true);
        self
    }

    /// The same where Linux takes packets out of others behind any chain.
    #[inline(always)]
    pub(crate) const fn decapsulating(mut self, decapsulates: bool) -> Self {
        self.set(flag::DECAPSULATES, decapsulates);
        self
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
        } else if offset > MAX_OFFSET && offset < self.end {
            Unclassifiable::TooDeep
        } else {
            Unclassifiable::Truncated
        };
        Class::Unclassifiable { flow, why }
    }

    /// The class of a packet around another one, whose header is at `offset`.
    #[inline(always)]
    fn encapsulated<P: PacketBytes, A>(&self, packet: &P, offset: usize) -> Class<A> {
        let first_fragment = self.has(flag::FIRST_FRAGMENT);
        let bounds = PacketBounds {
            offset,
            end: self.end,
            first_fragment,
        };
        let (inner, len) = match self.next_header() {
            protocol::IPV4 => (Payload::Ipv4(bounds), ipv4::HEADER_LEN),
            _ => (Payload::Ipv6(bounds), ipv6::HEADER_LEN),
        };
        if offset + len <= self.end.min(MAX_OFFSET) {
            return Class::Encapsulated(inner);
        }
        // The source that counts is out of sight. In a later fragment, or beyond reach, it may still be there.
        if first_fragment {
            Class::AlwaysDrop(DropReason::IncompleteFirstFragment)
        } else if offset + len <= self.end.min(packet.frame_len()) {
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
        // A fragment header needs no byte of its own to be where none may be.
        if number == protocol::FRAGMENT && !self.has(flag::FRAGMENT_ALLOWED) {
            return self.finish(ChainState::MisplacedFragment, 0);
        }
        let header = match packet.read::<{ ipv6::EXTENSION_READ }>(offset) {
            Some(header) if offset + ipv6::EXTENSION_READ <= self.end => header,
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
        if number == protocol::ROUTING && header[ipv6::SEGMENTS_LEFT] != 0 {
            self.set(flag::REDIRECTED, true);
        }
        let allowed = self.has(flag::START) && number == protocol::HOP_BY_HOP;
        self.set(flag::FRAGMENT_ALLOWED, allowed);
        self.set(flag::START, false);
        let next_header = header[0];
        self.word = self.word & !0xff | u32::from(next_header);
        let goes_on = if self.has(flag::V4) {
            next_header == protocol::AUTHENTICATION
        } else {
            is_extension(next_header)
        };
        if goes_on {
            return Step::More(len);
        }
        // Where these routing headers are enabled, Linux takes a packet right behind one out and receives it anew,
        // without any tunnel device (`ipv6_srh_rcv` and `ipv6_rpl_srh_rcv` in `net/ipv6/exthdrs.c`; Linux 4.10,
        // commit 1ababeba4a21f3dba3da3523c670b207fb2feb62).
        let state = if number == protocol::ROUTING
            && matches!(
                header[ipv6::ROUTING_TYPE],
                ipv6::ROUTING_RPL | ipv6::ROUTING_SEGMENTS
            )
            && is_packet(next_header)
        {
            ChainState::Inner
        } else {
            ChainState::Complete
        };
        self.finish(state, len)
    }
}
