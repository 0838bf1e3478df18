//! IPv6 and its extension headers (RFC 8200).

/// Offset of the version, the high four bits of one byte (RFC 8200 section 3).
pub const VERSION: usize = 0;
/// Offset of the payload length: the bytes after the fixed header; two bytes, network order.
///
/// Zero means "all bytes of the frame". Linux delivers such a packet after a hop-by-hop header
/// without a jumbo option, and uses zero for packets that a device merged.
pub const PAYLOAD_LEN: usize = 4;
/// Offset of the number of the next header, one byte: see [`protocol`](super::protocol).
pub const NEXT_HEADER: usize = 6;
/// Offset of the source address, sixteen bytes.
pub const SOURCE: usize = 8;
/// Offset of the destination address, sixteen bytes.
pub const DESTINATION: usize = SOURCE + 16;
/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = DESTINATION + 16;

/// Offset of the length in an extension header, one byte. Its unit differs: see
/// [`protocol`](super::protocol).
pub const EXTENSION_LEN: usize = 1;
/// Offset of the fragment word in a fragment header; two bytes, network order. 13 bits of offset in
/// units of 8 bytes, two reserved bits, and the bit "more fragments" (RFC 8200 section 4.5).
pub const FRAGMENT_WORD: usize = 2;
/// Offset of the type of a routing header, one byte (RFC 8200 section 4.4).
pub const ROUTING_TYPE: usize = 2;
/// Offset of the segments left in a routing header, one byte (RFC 8200 section 4.4).
pub const SEGMENTS_LEFT: usize = 3;
/// Routing type of a source route for low-power networks (RFC 6554).
pub const ROUTING_RPL: u8 = 3;
/// Routing type of a segment routing header (RFC 8754).
pub const ROUTING_SEGMENTS: u8 = 4;
/// Bytes read of an extension header: enough for each field above.
pub const EXTENSION_READ: usize = 4;

/// Bits of the fragment word that hold the offset.
pub const FRAGMENT_OFFSET_MASK: u16 = 0xfff8;
/// Bit of the fragment word: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x0001;
