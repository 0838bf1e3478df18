//! The chain of extension headers between an IP header and its segment (RFC 8200 section 4).

use crate::{
    classify::{Carried, Class, Doubt, Flow, Place},
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
        flow.redirected = chain.has(mark::REDIRECTED);
        match chain.state() {
            ChainState::Whole => {}
            ChainState::Inside => return chain.around(packet, offset),
            ChainState::Cut => {
                // What is missing may come in a later fragment: a routing header too.
                flow.redirected |= chain.has(mark::FIRST_FRAGMENT) || offset > MAX_OFFSET;
                return chain.doubt(flow, offset);
            }
            ChainState::LaterFragment => return Class::Other(PassReason::LaterFragment),
            ChainState::MisplacedFragment => {
                return Class::Hostile(DropReason::MisplacedFragment);
            }
        }
    }
    if chain.next_header() != protocol::TCP {
        return if chain.has(mark::DECAPSULATES) && is_packet(chain.next_header()) {
            chain.around(packet, offset)
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
        _ => chain.doubt(flow, offset),
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
    /// The number of the header at the current offset, in the lowest byte, and [`marks`](mark).
    word: u32,
}

const _: () = assert!(core::mem::offset_of!(Chain, word) % 8 == 4);

/// What a [`Chain`] remembers besides.
mod mark {
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
    Cut = 0,
    /// At a header that is no extension header.
    Whole = 1,
    /// At the header of a packet that Linux takes out of this one.
    Inside = 2,
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
            word: next_header as u32 | mark::FRAGMENT_ALLOWED | mark::START | mark::ALWAYS,
        };
        chain.set(mark::FIRST_FRAGMENT, first_fragment);
        chain
    }

    /// The same in an IPv4 packet.
    #[inline(always)]
    pub(crate) const fn of_ipv4(mut self) -> Self {
        self.set(mark::V4, true);
        self
    }

    /// The same where Linux takes packets out of others behind any chain.
    #[inline(always)]
    pub(crate) const fn decapsulating(mut self, decapsulates: bool) -> Self {
        self.set(mark::DECAPSULATES, decapsulates);
        self
    }

    #[inline(always)]
    const fn next_header(&self) -> u8 {
        self.word as u8
    }

    #[inline(always)]
    const fn has(&self, mark: u32) -> bool {
        self.word & mark != 0
    }

    #[inline(always)]
    const fn set(&mut self, mark: u32, on: bool) {
        self.word = self.word & !mark | if on { mark } else { 0 };
    }

    #[inline(always)]
    const fn state(&self) -> ChainState {
        match self.word >> mark::STATE_SHIFT & 7 {
            1 => ChainState::Whole,
            2 => ChainState::Inside,
            3 => ChainState::LaterFragment,
            4 => ChainState::MisplacedFragment,
            _ => ChainState::Cut,
        }
    }

    /// The class of a packet whose chain ends at `offset`, before the port.
    #[inline(always)]
    fn doubt<A>(&self, flow: Flow<A>, offset: usize) -> Class<A> {
        let why = if self.has(mark::FIRST_FRAGMENT) {
            Doubt::IncompleteFirstFragment
        } else if offset > MAX_OFFSET && offset < self.end {
            Doubt::TooDeep
        } else {
            Doubt::Truncated
        };
        Class::Doubt { flow, why }
    }

    /// The class of a packet around another one, whose header is at `offset`.
    #[inline(always)]
    fn around<P: PacketBytes, A>(&self, packet: &P, offset: usize) -> Class<A> {
        let first_fragment = self.has(mark::FIRST_FRAGMENT);
        let place = Place {
            offset,
            end: self.end,
            first_fragment,
        };
        let (inside, len) = match self.next_header() {
            protocol::IPV4 => (Carried::Ipv4(place), ipv4::HEADER_LEN),
            _ => (Carried::Ipv6(place), ipv6::HEADER_LEN),
        };
        if offset + len <= self.end.min(MAX_OFFSET) {
            return Class::Around(inside);
        }
        // The source that counts is out of sight. In a later fragment, or beyond reach, it may still be there.
        if first_fragment {
            Class::Hostile(DropReason::IncompleteFirstFragment)
        } else if offset + len <= self.end.min(packet.frame_len()) {
            Class::Hostile(DropReason::HeadersTooDeep)
        } else {
            Class::Other(PassReason::ShortHeader)
        }
    }

    #[inline(always)]
    fn end(&mut self, state: ChainState, len: usize) -> Step {
        self.word |= (state as u32) << mark::STATE_SHIFT;
        Step::Done(len)
    }
}

impl Walk for Chain {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        let this = self.next_header();
        // A fragment header needs no byte of its own to be where none may be.
        if this == protocol::FRAGMENT && !self.has(mark::FRAGMENT_ALLOWED) {
            return self.end(ChainState::MisplacedFragment, 0);
        }
        let header = match packet.read::<{ ipv6::EXTENSION_READ }>(offset) {
            Some(header) if offset + ipv6::EXTENSION_READ <= self.end => header,
            _ => return self.end(ChainState::Cut, 0),
        };
        let len = usize::from(header[ipv6::EXTENSION_LEN]);
        let len = match this {
            protocol::FRAGMENT => {
                let word = u16::from_be_bytes([
                    header[ipv6::FRAGMENT_WORD],
                    header[ipv6::FRAGMENT_WORD + 1],
                ]);
                if word & ipv6::FRAGMENT_OFFSET_MASK != 0 {
                    return self.end(ChainState::LaterFragment, 0);
                }
                self.set(mark::FIRST_FRAGMENT, word & ipv6::MORE_FRAGMENTS != 0);
                8
            }
            protocol::AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        };
        if this == protocol::ROUTING && header[ipv6::SEGMENTS_LEFT] != 0 {
            self.set(mark::REDIRECTED, true);
        }
        let allowed = self.has(mark::START) && this == protocol::HOP_BY_HOP;
        self.set(mark::FRAGMENT_ALLOWED, allowed);
        self.set(mark::START, false);
        let next_header = header[0];
        self.word = self.word & !0xff | u32::from(next_header);
        let goes_on = if self.has(mark::V4) {
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
        let state = if this == protocol::ROUTING
            && matches!(
                header[ipv6::ROUTING_TYPE],
                ipv6::ROUTING_RPL | ipv6::ROUTING_SEGMENTS
            )
            && is_packet(next_header)
        {
            ChainState::Inside
        } else {
            ChainState::Whole
        };
        self.end(state, len)
    }
}
