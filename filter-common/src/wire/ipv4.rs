//! IPv4 (RFC 791).

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

/// Option that ends the list (RFC 791 section 3.1): one byte, no length.
pub const OPTION_END: u8 = 0;
/// Option that pads: one byte, no length.
pub const OPTION_NOP: u8 = 1;
/// Loose source route.
pub const OPTION_LSRR: u8 = 131;
/// Strict source route.
pub const OPTION_SSRR: u8 = 137;
