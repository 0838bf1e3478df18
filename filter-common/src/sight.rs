//! Who a refused packet is from, and where it wanted to go.
//!
//! A verdict needs little of that at a time, and most verdicts are passes. So the classifier only remembers where the packet is
//! ([`Spot`], two offsets), and whoever reports it reads the rest ([`Sight`]) from there.

use core::net::IpAddr;

use crate::{
    MAX_OFFSET, PacketBytes,
    wire::{ipv4, ipv6, tcp},
};

/// Where in a frame the packet is that a verdict is about.
///
/// One number, which the program keeps in a register: the family in the upper half, below it the offsets of the TCP header and of the
/// IP header, 16 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot(u64);

const _: () = assert!(MAX_OFFSET == 0xffff, "an offset has 16 bits");

impl Spot {
    /// No packet whose addresses mean anything.
    pub const NOWHERE: Self = Self(0);

    /// An IPv4 packet at this offset.
    #[inline(always)]
    pub(crate) const fn v4(ip: usize) -> Self {
        Self(4 << 32 | ip as u64)
    }

    /// An IPv6 packet at this offset.
    #[inline(always)]
    pub(crate) const fn v6(ip: usize) -> Self {
        Self(6 << 32 | ip as u64)
    }

    /// The same with a TCP header at this offset.
    #[inline(always)]
    pub(crate) const fn with_segment(self, offset: usize) -> Self {
        Self(self.0 | (offset as u64) << 16)
    }

    #[inline(always)]
    const fn family(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline(always)]
    const fn tcp(self) -> usize {
        (self.0 >> 16) as usize & MAX_OFFSET
    }

    #[inline(always)]
    const fn ip(self) -> usize {
        self.0 as usize & MAX_OFFSET
    }
}

/// What was seen of a refused packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Source and destination address as the packet has them, in words of its own byte order: those of an IPv4 packet are in the
    /// first word.
    pub source: [u32; 4],
    /// Likewise.
    pub destination: [u32; 4],
    /// 4 or 6; 0 if the addresses are unknown.
    pub family: u8,
    /// Source and destination port, in host order; zero if unknown.
    pub ports: [u16; 2],
    /// Whether the ports are known.
    pub has_ports: bool,
}

impl Sight {
    /// Reads what there is at `spot` of `packet`.
    ///
    /// Whole headers, at the very offsets of the spot: added to, a number has bounds that the verifier forgets before Linux 6.11
    /// (commit 98d7ca374ba4b39e7535613d40e159f09ca14da2), and the read is refused.
    #[inline(always)]
    pub fn of<P: PacketBytes>(packet: &P, spot: Spot) -> Self {
        let mut sight = Self::default();
        let ip = spot.ip();
        if spot.family() == 4 {
            let Some(header) = packet.read::<{ ipv4::HEADER_LEN }>(ip) else {
                return sight;
            };
            sight.source[0] = word(&header, ipv4::SOURCE);
            sight.destination[0] = word(&header, ipv4::DESTINATION);
            sight.family = 4;
        } else if spot.family() == 6 {
            let Some(header) = packet.read::<{ ipv6::HEADER_LEN }>(ip) else {
                return sight;
            };
            sight.source = address_at(&header, ipv6::SOURCE);
            sight.destination = address_at(&header, ipv6::DESTINATION);
            sight.family = 6;
        }
        if spot.tcp() != 0
            && let Some(ports) = packet.read(spot.tcp())
        {
            sight.ports = [tcp::source_port(ports), tcp::destination_port(ports)];
            sight.has_ports = true;
        }
        sight
    }

    /// The source address; `None` if what the packet is hides it, or makes it meaningless.
    pub fn source(&self) -> Option<IpAddr> {
        address(self.source, self.family)
    }

    /// The destination address, as the IP header has it; `None` as above.
    pub fn destination(&self) -> Option<IpAddr> {
        address(self.destination, self.family)
    }

    /// The source and the destination port; `None` if they could not be read.
    pub fn ports(&self) -> Option<[u16; 2]> {
        self.has_ports.then_some(self.ports)
    }
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn address_at(bytes: &[u8; ipv6::HEADER_LEN], at: usize) -> [u32; 4] {
    [
        word(bytes, at),
        word(bytes, at + 4),
        word(bytes, at + 8),
        word(bytes, at + 12),
    ]
}

/// The address in `words`, of family 4 or 6.
pub fn address(words: [u32; 4], family: u8) -> Option<IpAddr> {
    match family {
        4 => Some(words[0].to_ne_bytes().into()),
        6 => {
            let mut octets = [0; 16];
            for (at, word) in words.into_iter().enumerate() {
                octets[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            Some(octets.into())
        }
        _ => None,
    }
}
