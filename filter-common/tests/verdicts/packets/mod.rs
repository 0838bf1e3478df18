//! Frames, byte for byte: anything that a sender with a raw socket can put on the wire.
//!
//! etherparse writes the well-formed TCP, UDP and IPv4 headers; this module writes those that a
//! sane library refuses.

pub mod ethernet;
pub mod v4;
pub mod v6;

use std::net::IpAddr;

use etherparse::{TcpHeader, UdpHeader};
use filter_common::Bytes;

pub use ethernet::{frame, tagged, tagged_as, typed};
pub use v4::V4;
pub use v6::V6;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMP6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// A source port for packets without an answer.
pub const CLIENT_PORT: u16 = 40_000;

/// A SYN with its correct checksum.
///
/// # Panics
///
/// If the addresses are of different families.
pub fn syn(source: IpAddr, destination: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut header = TcpHeader::new(source_port, port, 1, 64_240);
    header.syn = true;
    header.checksum = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &[])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &[])
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    .expect("a SYN without data is short enough");
    header.to_bytes().to_vec()
}

/// A datagram with its correct checksum.
///
/// # Panics
///
/// If the addresses are of different families, or the data is too long for any packet.
pub fn datagram(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    port: u16,
    data: &[u8],
) -> Vec<u8> {
    let mut header = UdpHeader {
        source_port,
        destination_port: port,
        length: u16::try_from(UdpHeader::LEN + data.len()).expect("the data fits a packet"),
        checksum: 0,
    };
    header.checksum = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), data)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), data)
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    .expect("the data fits a packet");
    [&header.to_bytes(), data].concat()
}

/// The offset of the first byte after the IP packet in the frame, by the packet's own length.
pub fn end_of_packet(frame: Bytes<'_>) -> Option<usize> {
    let ip = frame.link_header.header_len();
    let (front, packet) = frame.bytes.split_at_checked(ip)?;
    let version = match front.last_chunk() {
        Some([0x08, 0x00]) => 4,
        Some([0x86, 0xdd]) => 6,
        Some(_) => return None,
        None => packet.first()? >> 4,
    };
    let (header, len) = match version {
        4 => (0, packet.get(2..4)?),
        6 => (40, packet.get(4..6)?),
        _ => return None,
    };
    Some(ip + header + usize::from(u16::from_be_bytes([len[0], len[1]])))
}
