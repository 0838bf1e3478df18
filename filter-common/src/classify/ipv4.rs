//! IPv4 packets (RFC 791): their class, and whether their options name another destination.

use core::net::Ipv4Addr;

use crate::{
    classify::{
        Class, Flow, PacketBounds, Unclassifiable,
        extension::{Chain, classify_chain},
    },
    packet::{PacketBytes, Step, Walk},
    verdict::PassReason,
    wire::{ipv4, protocol},
};

/// The class of the IPv4 packet at `bounds`.
#[inline(always)]
pub(crate) fn classify<P: PacketBytes>(packet: &P, bounds: PacketBounds) -> Class<Ipv4Addr> {
    let offset = bounds.offset;
    let Some(header) = packet.read::<{ ipv4::HEADER_LEN }>(offset) else {
        return Class::Other(PassReason::ShortHeader);
    };
    if header[ipv4::VERSION_IHL] >> 4 != 4 {
        return Class::Other(PassReason::NotIp);
    }
    let number = header[ipv4::PROTOCOL];
    if number != protocol::TCP && number != protocol::AUTHENTICATION {
        return Class::Other(PassReason::NotTcp);
    }
    let fragment = u16::from_be_bytes([header[ipv4::FRAGMENT], header[ipv4::FRAGMENT + 1]]);
    if fragment & ipv4::FRAGMENT_OFFSET_MASK != 0 {
        return Class::Other(PassReason::LaterFragment);
    }

    let header_len = usize::from(header[ipv4::VERSION_IHL] & 0x0f) * 4;
    let flow = Flow {
        source: address(&header, ipv4::SOURCE),
        destination: address(&header, ipv4::DESTINATION),
        redirected: false,
        options: (offset + ipv4::HEADER_LEN, offset + header_len),
    };
    if header_len < ipv4::HEADER_LEN {
        return Class::Unclassifiable {
            flow,
            why: Unclassifiable::Malformed,
        };
    }
    let end = match u16::from_be_bytes([header[ipv4::TOTAL_LEN], header[ipv4::TOTAL_LEN + 1]]) {
        0 => packet.frame_len(),
        total_len => offset + usize::from(total_len),
    };
    let first_fragment = bounds.first_fragment || fragment & ipv4::MORE_FRAGMENTS != 0;
    let chain = Chain::new(number, end.min(bounds.end), first_fragment).in_ipv4();
    classify_chain(packet, flow, offset + header_len, chain)
}

#[inline(always)]
fn address(header: &[u8; ipv4::HEADER_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

impl<A> Flow<A> {
    /// Whether the packet may be delivered to another address than `destination`. Only this call
    /// reads the options.
    #[inline(always)]
    pub(crate) fn may_be_redirected<P: PacketBytes>(&self, packet: &P) -> bool {
        let (start, end) = self.options;
        self.redirected || (start < end && has_source_route(packet, start, end))
    }
}

/// Whether the options between the offsets `start` and `end` contain a source route.
///
/// Linux follows a source route where `accept_source_route` is set (`ip_options_rcv_srr` in
/// `net/ipv4/ip_options.c`). The destination in the header is then only the next stop. Options that
/// cannot be read count as a source route.
#[inline(always)]
fn has_source_route<P: PacketBytes>(packet: &P, start: usize, end: usize) -> bool {
    let mut options = OptionsWalk {
        end,
        source_route: false,
    };
    packet.walk(start, &mut options);
    options.source_route
}

/// A walk over the options of a header. They take at most 40 bytes.
struct OptionsWalk {
    end: usize,
    source_route: bool,
}

impl Walk for OptionsWalk {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        // A read of two bytes is safe: at least the segment follows the last option.
        match packet.read::<2>(offset) {
            _ if offset >= self.end => Step::Done(0),
            Some([ipv4::OPTION_END, _]) => Step::Done(0),
            Some([ipv4::OPTION_NOP, _]) => Step::More(1),
            // Any other option has a length of at least two, which includes its kind and length
            // bytes.
            Some([kind, len])
                if !matches!(kind, ipv4::OPTION_LSRR | ipv4::OPTION_SSRR) && len >= 2 =>
            {
                Step::More(usize::from(len))
            }
            _ => {
                self.source_route = true;
                Step::Done(0)
            }
        }
    }
}
