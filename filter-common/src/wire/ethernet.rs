//! Ethernet frames and their VLAN tags (IEEE 802.3, 802.1Q).

use crate::{PacketBytes, Step, Walk};

/// Offset of the EtherType, in bytes; two bytes, network order. Behind the two MAC addresses.
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

/// EtherType of MPLS labels (RFC 3032 section 5). Linux has no handler for its other one, for multicast (`mpls_packet_type` in
/// `net/mpls/af_mpls.c`).
pub const TYPE_MPLS: u16 = 0x8847;

/// Length of a tag, in bytes: two of control information, then the EtherType of what follows.
pub const TAG_LEN: usize = 4;

/// Whether Linux strips a tag of this EtherType (`eth_type_vlan` in `include/linux/if_vlan.h`).
///
/// Treating any other type as a tag would judge bytes that Linux never takes for IP; missing one of these would let a
/// stranger in with a four-byte prefix.
#[inline(always)]
pub const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, TYPE_8021Q | TYPE_8021AD)
}

/// The EtherType of an IP packet of this version; 0, which is none, if it is not one of IP.
#[inline(always)]
pub const fn type_of_version(version: u8) -> u16 {
    match version {
        4 => TYPE_IPV4,
        6 => TYPE_IPV6,
        _ => 0,
    }
}

/// A walk over the tags of a frame.
///
/// Linux strips priority tags (VLAN id 0) in any number and mixture, and hands tags with an id to a VLAN device or
/// a bridge: so all of them are walked, and tagged frames are judged like untagged ones.
pub(crate) struct Tags {
    /// The EtherType in front of the current offset.
    pub(crate) ether_type: u16,
    /// False if a tag was announced that could not be read.
    pub(crate) readable: bool,
}

impl Walk for Tags {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        let Some([_, _, type_high, type_low]) = packet.read::<TAG_LEN>(offset) else {
            self.readable = false;
            return Step::Done(0);
        };
        self.ether_type = u16::from_be_bytes([type_high, type_low]);
        if is_tag(self.ether_type) {
            Step::More(TAG_LEN)
        } else {
            Step::Done(TAG_LEN)
        }
    }
}
