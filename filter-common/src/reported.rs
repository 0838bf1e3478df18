//! What is reported about a dropped packet: its addresses and ports.
//!
//! A verdict needs few of these at a time, and most verdicts are passes. So the classifier keeps
//! only the location of the packet ([`PacketLocation`], two offsets). The report reads the rest
//! from there ([`FlowInfo`]).

use core::net::IpAddr;

use bytemuck::bytes_of_mut;

use crate::{
    packet::{MAX_OFFSET, PacketBytes},
    wire::{ipv4, ipv6},
};

/// Where in the frame the judged packet lies.
///
/// One number, which the XDP program keeps in a register. The upper half is the IP version. The
/// lower half holds the offset of the TCP header in its upper 16 bits and that of the IP header in
/// its lower 16 bits, in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLocation(u64);

const _: () = assert!(MAX_OFFSET == 0xffff, "an offset has 16 bits");

impl PacketLocation {
    /// A packet whose addresses cannot be read or trusted.
    pub const UNKNOWN: Self = Self(0);

    /// An IPv4 packet at this offset in the frame.
    #[inline(always)]
    pub(crate) const fn v4(ip: usize) -> Self {
        Self(4 << 32 | ip as u64)
    }

    /// An IPv6 packet at this offset in the frame.
    #[inline(always)]
    pub(crate) const fn v6(ip: usize) -> Self {
        Self(6 << 32 | ip as u64)
    }

    /// The same packet with a TCP header at this offset in the frame.
    #[inline(always)]
    pub(crate) const fn with_tcp_header(self, offset: usize) -> Self {
        Self(self.0 | (offset as u64) << 16)
    }

    /// The location as a number. Global functions of the XDP program accept only numbers.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The location that [`bits`](Self::bits) returned. Any other number is safe too: every read is
    /// checked.
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

/// Addresses and ports of a dropped packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowInfo {
    /// Source address: the bytes of the packet in memory order, four in each word. An IPv4 address
    /// fills the first word.
    pub source: [u32; 4],
    /// Destination address in the same form.
    pub destination: [u32; 4],
    /// 4 or 6; 0 if the addresses are unknown.
    pub family: u8,
    /// Source and destination port, in host order; zero if unknown.
    pub ports: [u16; 2],
    /// Whether the ports are known.
    pub has_ports: bool,
}

impl FlowInfo {
    /// Reads the packet at `location`.
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

    /// The source address; `None` if it cannot be read or trusted.
    pub fn source(&self) -> Option<IpAddr> {
        ip_address(self.source, self.family)
    }

    /// The destination address of the IP header; `None` if it cannot be read or trusted.
    pub fn destination(&self) -> Option<IpAddr> {
        ip_address(self.destination, self.family)
    }

    /// The source and the destination port; `None` if they could not be read.
    pub fn ports(&self) -> Option<[u16; 2]> {
        self.has_ports.then_some(self.ports)
    }
}

/// Reads the packet at `location` into buffers that are zero. Returns [`family`](FlowInfo::family)
/// and [`has_ports`](FlowInfo::has_ports).
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
    // One read for both ports: the second may lie where no read can begin.
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
