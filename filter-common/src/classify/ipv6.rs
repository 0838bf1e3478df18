//! IPv6 packets (RFC 8200): the fixed header. `extension.rs` follows the headers after it.

use core::net::Ipv6Addr;

use crate::{
    classify::{
        Class, Flow, PacketBounds,
        extension::{Chain, classify_chain, is_extension, is_packet},
    },
    packet::PacketBytes,
    verdict::PassReason,
    wire::{ipv6, protocol},
};

/// The class of the IPv6 packet at `bounds`.
///
/// `decapsulates` says whether Linux takes an inner packet out of this one after any chain of
/// headers (`decap_and_validate` in `net/ipv6/seg6_local.c`), and not only after a routing header.
#[inline(always)]
pub(crate) fn classify<P: PacketBytes>(
    packet: &P,
    bounds: PacketBounds,
    decapsulates: bool,
) -> Class<Ipv6Addr> {
    let offset = bounds.offset;
    let Some(header) = packet.read::<{ ipv6::HEADER_LEN }>(offset) else {
        return Class::Other(PassReason::ShortHeader);
    };
    if header[ipv6::VERSION] >> 4 != 6 {
        return Class::Other(PassReason::NotIp);
    }
    let next_header = header[ipv6::NEXT_HEADER];
    if next_header != protocol::TCP
        && !is_extension(next_header)
        && !(decapsulates && is_packet(next_header))
    {
        return Class::Other(PassReason::NotTcp);
    }
    let flow = Flow {
        source: address(&header, ipv6::SOURCE),
        destination: address(&header, ipv6::DESTINATION),
        redirected: false,
        options: (0, 0),
    };
    let end = match u16::from_be_bytes([header[ipv6::PAYLOAD_LEN], header[ipv6::PAYLOAD_LEN + 1]]) {
        0 => packet.frame_len(),
        payload_len => offset + ipv6::HEADER_LEN + usize::from(payload_len),
    };
    let chain = Chain::new(next_header, end.min(bounds.end), bounds.first_fragment)
        .decapsulating(decapsulates);
    classify_chain(packet, flow, offset + ipv6::HEADER_LEN, chain)
}

#[inline(always)]
fn address(header: &[u8; ipv6::HEADER_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets.into()
}
