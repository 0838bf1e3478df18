//! IPv4 (RFC 791).

use core::net::Ipv4Addr;

use super::ipv6::{self, Chain};
use crate::{Class, Doubt, Flow, PacketBytes, PassReason, Place, Step, Walk};

/// Offset of the byte with the version (high four bits) and the header length (low four bits, in units of four
/// bytes; RFC 791 section 3.1).
pub const VERSION_IHL: usize = 0;
/// Offset of the total length: header and payload in bytes, two bytes in network order.
///
/// What the frame holds beyond it is padding and no part of the packet. Linux takes zero for "what the frame holds" on
/// packets that a device merged (`iph_totlen`, Linux 6.3, commit b1a78b9b98862d9c6b5b3b5cb3f7d7ea0a3b94cb), and drops it otherwise.
pub const TOTAL_LEN: usize = 2;
/// Offset of the fragment word in an IPv4 header, in bytes.
///
/// The top three bits are flags; the low 13 are the fragment offset in units of 8 bytes (RFC 791 section 3.1).
/// Only the fragment at offset 0 starts with the TCP header: never read ports from another.
pub const FRAGMENT: usize = 6;
/// Offset of the protocol number, one byte.
pub const PROTOCOL: usize = 9;
/// Offset of the source address, four bytes.
pub const SOURCE: usize = 12;
/// Offset of the destination address, four bytes.
pub const DESTINATION: usize = SOURCE + 4;
/// Length of the fixed part of the header, in bytes; options follow it.
pub const HEADER_LEN: usize = DESTINATION + 4;

/// The low bits of the fragment word: the offset, in units of 8 bytes.
pub const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// The bit of the fragment word that says more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Protocol number of TCP (IANA).
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of the authentication header (RFC 4302). It can precede TCP under IPv4 as under IPv6.
pub const PROTOCOL_AH: u8 = ipv6::AUTHENTICATION;

/// Option that ends the list (RFC 791 section 3.1): one byte, no length.
const OPTION_END: u8 = 0;
/// Option that pads: one byte, no length.
const OPTION_NOP: u8 = 1;
/// Loose source route.
const OPTION_LSRR: u8 = 131;
/// Strict source route.
const OPTION_SSRR: u8 = 137;

/// Tells what the IPv4 packet at `place` in `packet` is.
#[inline(always)]
pub(crate) fn classify<P: PacketBytes>(packet: &P, place: Place) -> Class<Ipv4Addr> {
    let offset = place.offset;
    let Some(header) = packet.read::<HEADER_LEN>(offset) else {
        return Class::Other(PassReason::ShortHeader);
    };
    if header[VERSION_IHL] >> 4 != 4 {
        return Class::Other(PassReason::NotIp);
    }
    let protocol = header[PROTOCOL];
    if protocol != PROTOCOL_TCP && protocol != PROTOCOL_AH {
        return Class::Other(PassReason::NotTcp);
    }
    let fragment = u16::from_be_bytes([header[FRAGMENT], header[FRAGMENT + 1]]);
    if fragment & FRAGMENT_OFFSET_MASK != 0 {
        return Class::Other(PassReason::LaterFragment);
    }

    let header_len = usize::from(header[VERSION_IHL] & 0x0f) * 4;
    let flow = Flow {
        source: address(&header, SOURCE),
        destination: address(&header, DESTINATION),
        redirected: false,
        options: (offset + HEADER_LEN, offset + header_len),
    };
    if header_len < HEADER_LEN {
        return Class::Doubt {
            flow,
            why: Doubt::Malformed,
        };
    }
    let end = match u16::from_be_bytes([header[TOTAL_LEN], header[TOTAL_LEN + 1]]) {
        0 => packet.frame_len(),
        total_len => offset + usize::from(total_len),
    };
    let first_fragment = place.first_fragment || fragment & MORE_FRAGMENTS != 0;
    let chain = Chain::new(protocol, end.min(place.end), first_fragment).of_ipv4();
    ipv6::classify_chain(packet, flow, offset + header_len, chain)
}

#[inline(always)]
fn address(header: &[u8; HEADER_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

/// Whether the options between `start` and `end` name another destination (a source route).
///
/// Linux follows one where `accept_source_route` is set (`ip_options_rcv_srr` in `net/ipv4/ip_options.c`): the destination
/// in the header is then only the next stop. Options that cannot be told count as one.
#[inline(always)]
pub(crate) fn has_source_route<P: PacketBytes>(packet: &P, start: usize, end: usize) -> bool {
    let mut options = Options { end, found: false };
    packet.walk(start, &mut options);
    options.found
}

/// A walk over the options of a header; at most 40 bytes of them.
struct Options {
    end: usize,
    found: bool,
}

impl Walk for Options {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        // Two at once: behind the last option there is at least the segment.
        match packet.read::<2>(offset) {
            _ if offset >= self.end => Step::Done(0),
            Some([OPTION_END, _]) => Step::Done(0),
            Some([OPTION_NOP, _]) => Step::More(1),
            // Any other option has a length of at least two, itself included.
            Some([kind, len]) if !matches!(kind, OPTION_LSRR | OPTION_SSRR) && len >= 2 => {
                Step::More(usize::from(len))
            }
            _ => {
                self.found = true;
                Step::Done(0)
            }
        }
    }
}
