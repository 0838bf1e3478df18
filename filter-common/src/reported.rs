//! Who a refused packet is from, and where it wanted to go.
//!
//! A verdict needs little of that at a time, and most verdicts are passes. So the classifier only remembers where the packet is
//! ([`PacketLocation`], two offsets), and whoever reports it reads the rest ([`FlowInfo`]) from there.

use core::net::IpAddr;

use bytemuck::bytes_of_mut;

use crate::{
    packet::{MAX_OFFSET, PacketBytes},
    wire::{ipv4, ipv6},
};

/// Where in a frame the packet is that a verdict is about.
///
/// One number, which the program keeps in a register: the family in the upper half, below it the offsets of the TCP header and of the
/// IP header, 16 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLocation(u64);

const _: () = assert!(MAX_OFFSET == 0xffff, "an offset has 16 bits");

impl PacketLocation {
    /// No packet whose addresses mean anything.
    pub const UNKNOWN: Self = Self(0);

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
    pub(crate) const fn with_tcp_header(self, offset: usize) -> Self {
        Self(self.0 | (offset as u64) << 16)
    }

    /// As a number, which a function that the verifier checks by itself takes for an argument.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The location that [`bits`](Self::bits) gave; any other number is a location, too, and reads of it are checked.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
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
pub struct FlowInfo {
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

impl FlowInfo {
    /// Reads what there is at `location` of `packet`.
    pub fn read<P: PacketBytes>(packet: &P, location: PacketLocation) -> Self {
        let mut info = Self::default();
        let Self {
            source,
            destination,
            ports,
            ..
        } = &mut info;
        (info.family, info.has_ports) = read_flow(packet, location, source, destination, ports);
        info
    }

    /// The source address; `None` if what the packet is hides it, or makes it meaningless.
    pub fn source(&self) -> Option<IpAddr> {
        ip_address(self.source, self.family)
    }

    /// The destination address, as the IP header has it; `None` as above.
    pub fn destination(&self) -> Option<IpAddr> {
        ip_address(self.destination, self.family)
    }

    /// The source and the destination port; `None` if they could not be read.
    pub fn ports(&self) -> Option<[u16; 2]> {
        self.has_ports.then_some(self.ports)
    }
}

/// Reads what there is at `location` of `packet` into places that are zero, and tells [`family`](FlowInfo::family) and
/// [`has_ports`](FlowInfo::has_ports).
#[inline(always)]
pub fn read_flow<P: PacketBytes>(
    packet: &P,
    location: PacketLocation,
    source: &mut [u32; 4],
    destination: &mut [u32; 4],
    ports: &mut [u16; 2],
) -> (u8, bool) {
    let ip = location.ip();
    let seen = match location.family() {
        4 => {
            packet.copy(ip + ipv4::SOURCE, bytes_of_mut(&mut source[0]))
                && packet.copy(ip + ipv4::DESTINATION, bytes_of_mut(&mut destination[0]))
        }
        6 => {
            packet.copy(ip + ipv6::SOURCE, bytes_of_mut(source))
                && packet.copy(ip + ipv6::DESTINATION, bytes_of_mut(destination))
        }
        _ => false,
    };
    // At once, for the second may lie where no read may begin.
    let has_ports = location.tcp() != 0 && packet.copy(location.tcp(), bytes_of_mut(ports));
    *ports = ports.map(u16::from_be);
    (if seen { location.family() } else { 0 }, has_ports)
}

/// The address in `words`, of family 4 or 6.
pub fn ip_address(words: [u32; 4], family: u8) -> Option<IpAddr> {
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
