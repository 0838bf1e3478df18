//! IPv4 (RFC 791).

/// Offset of the version and header length, one byte. The high four bits are the version, the low
/// four the length in units of 4 bytes (RFC 791 section 3.1).
pub const VERSION_IHL: usize = 0;
/// Offset of the total length: header and payload in bytes; two bytes, network order (RFC 791
/// section 3.1).
///
/// Frame bytes beyond it are padding and not part of the packet. Linux reads zero as "all bytes of
/// the frame" in packets that a device merged (`iph_totlen`, Linux 6.3, commit
/// b1a78b9b98862d9c6b5b3b5cb3f7d7ea0a3b94cb), and drops other packets with zero.
pub const TOTAL_LEN: usize = 2;
/// Offset of the fragment word, in bytes; two bytes, network order.
///
/// The top three bits are flags; the low 13 are the fragment offset in units of 8 bytes (RFC 791
/// section 3.1). Only the fragment at offset 0 starts with the TCP header: never read ports from
/// another.
pub const FRAGMENT: usize = 6;
/// Offset of the protocol number, one byte: see [`protocol`](super::protocol).
pub const PROTOCOL: usize = 9;
/// Offset of the source address, four bytes.
pub const SOURCE: usize = 12;
/// Offset of the destination address, four bytes.
pub const DESTINATION: usize = SOURCE + 4;
/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = DESTINATION + 4;

/// Bits of the fragment word that hold the offset, in units of 8 bytes.
pub const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// Bit of the fragment word: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Option "end of list" (RFC 791 section 3.1): one byte, without a length.
pub const OPTION_END: u8 = 0;
/// Option "no operation" (RFC 791 section 3.1): one byte, without a length.
pub const OPTION_NOP: u8 = 1;
/// Option "loose source route" (RFC 791 section 3.1).
pub const OPTION_LSRR: u8 = 131;
/// Option "strict source route" (RFC 791 section 3.1).
pub const OPTION_SSRR: u8 = 137;
