//! Protocol numbers of IPv4 and next header numbers of IPv6: one registry (IANA, Assigned Internet
//! Protocol Numbers).
//!
//! The second byte of most extension headers is a length; the unit differs, see each number.

/// Hop-by-hop options (RFC 8200 section 4.3). Length in units of 8 bytes, without the first 8.
pub const HOP_BY_HOP: u8 = 0;
/// An inner IPv4 packet (RFC 2003).
pub const IPV4: u8 = 4;
/// TCP (RFC 9293).
pub const TCP: u8 = 6;
/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// An inner IPv6 packet (RFC 2473).
pub const IPV6: u8 = 41;
/// Routing (RFC 8200 section 4.4). Length as hop-by-hop.
pub const ROUTING: u8 = 43;
/// Fragment (RFC 8200 section 4.5). Always 8 bytes: the second byte is reserved. The sender sets it
/// freely, so it must not be read as a length.
pub const FRAGMENT: u8 = 44;
/// Authentication (RFC 4302 section 2.2). Length in units of 4 bytes, minus 2. Such a header can
/// precede TCP in IPv4 and in IPv6.
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Destination options (RFC 8200 section 4.6). Length as hop-by-hop.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Mobility (RFC 6275 section 6.1). Length as hop-by-hop.
pub const MOBILITY: u8 = 135;
/// Host identity (RFC 7401 section 5.1). Length as hop-by-hop.
pub const HIP: u8 = 139;
/// Shim6 (RFC 5533 section 5.1). Length as hop-by-hop.
pub const SHIM6: u8 = 140;
