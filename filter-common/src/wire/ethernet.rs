//! Ethernet frames and their VLAN tags (IEEE 802.3, 802.1Q).

/// Offset of the EtherType, in bytes; two bytes, network order. It follows the two MAC addresses.
pub const TYPE: usize = 12;
/// Length of the header of an untagged frame, in bytes.
pub const HEADER_LEN: usize = TYPE + 2;

/// EtherType of IPv4 (IANA).
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6 (IANA).
pub const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer tag (802.1Q).
pub const TYPE_8021Q: u16 = 0x8100;
/// EtherType of a service tag (802.1ad).
pub const TYPE_8021AD: u16 = 0x88a8;

/// EtherType of MPLS labels (RFC 3032 section 5). Linux has no handler for the other one, of
/// multicast (`mpls_packet_type` in `net/mpls/af_mpls.c`).
pub const TYPE_MPLS: u16 = 0x8847;

/// Length of a tag, in bytes: two of control information, then the EtherType of what follows.
pub const TAG_LEN: usize = 4;

/// The EtherType of an IP packet of this version; 0, which is unassigned, for any other version.
#[inline(always)]
pub const fn type_of_version(version: u8) -> u16 {
    match version {
        4 => TYPE_IPV4,
        6 => TYPE_IPV6,
        _ => 0,
    }
}
