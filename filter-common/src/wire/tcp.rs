//! TCP (RFC 9293).

/// Offset of the source port in a TCP header, in bytes; two bytes, network order.
pub const SOURCE_PORT: usize = 0;
/// Offset of the destination port in a TCP header, in bytes; two bytes, network order (RFC 9293
/// section 3.1).
///
/// Nothing behind it is looked at: a segment is judged by its port alone, never by its flags, and a fragment that ends
/// right behind the port still is one.
pub const DESTINATION_PORT: usize = SOURCE_PORT + 2;
/// How much of a TCP header must be there to see the port, in bytes.
pub const PORTS_LEN: usize = DESTINATION_PORT + 2;
