//! TCP (RFC 9293).

/// Offset of the source port in a TCP header, in bytes; two bytes, network order.
pub const SOURCE_PORT: usize = 0;
/// Offset of the destination port in a TCP header, in bytes; two bytes, network order (RFC 9293
/// section 3.1).
///
/// Nothing after it is read. A segment is judged by its port alone, never by its flags. A fragment
/// that ends right after the port is still a segment.
pub const DESTINATION_PORT: usize = SOURCE_PORT + 2;
/// Bytes of a TCP header up to the end of the destination port.
pub const PORTS_LEN: usize = DESTINATION_PORT + 2;
