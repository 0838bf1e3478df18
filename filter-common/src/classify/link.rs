//! The link layer: from an Ethernet header over VLAN tags and MPLS labels to the IP packet.

use crate::{
    classify::{PacketBounds, Payload},
    packet::{LinkHeader, MAX_OFFSET, PacketBytes, Step, Walk},
    verdict::{DropReason, PassReason},
    wire::{ethernet, ipv4, ipv6, mpls},
};

/// What `packet` carries. `mpls` is called only if there is an MPLS label; it says whether this
/// node accepts labels.
#[inline(always)]
pub(crate) fn payload<P: PacketBytes>(packet: &P, mpls: impl FnOnce() -> bool) -> Payload {
    match packet.link_header() {
        LinkHeader::Ethernet => ethernet_payload(packet, mpls),
        // Two bytes are read because the verifier learns no bound from a comparison of one byte.
        LinkHeader::None => match packet.read(0).map(|[first, _]| first >> 4) {
            Some(4) => Payload::Ipv4(PacketBounds::in_frame(0)),
            Some(6) => Payload::Ipv6(PacketBounds::in_frame(0)),
            Some(_) => Payload::Other(PassReason::NotIp),
            None => Payload::Other(PassReason::ShortHeader),
        },
    }
}

/// What a frame with an Ethernet header carries, after any number of VLAN tags and then of MPLS
/// labels.
#[inline(always)]
fn ethernet_payload<P: PacketBytes>(packet: &P, mpls: impl FnOnce() -> bool) -> Payload {
    let Some(ether_type) = packet.read::<2>(ethernet::TYPE) else {
        return Payload::Other(PassReason::ShortHeader);
    };
    let mut tags = VlanTags {
        ether_type: u16::from_be_bytes(ether_type),
        readable: true,
    };
    let mut offset = ethernet::HEADER_LEN;
    if is_tag(tags.ether_type) {
        offset = packet.walk(offset, &mut tags);
    }
    if tags.ether_type == ethernet::TYPE_MPLS && tags.readable && mpls() {
        let mut labels = MplsLabels { bottom: false };
        offset = packet.walk(offset, &mut labels);
        match packet.read(offset) {
            Some([first, _]) if labels.bottom => {
                tags.ether_type = ethernet::type_of_version(first >> 4);
            }
            _ => tags.readable = false,
        }
    }
    let (payload, len) = match tags.ether_type {
        ethernet::TYPE_IPV4 => (
            Payload::Ipv4(PacketBounds::in_frame(offset)),
            ipv4::HEADER_LEN,
        ),
        ethernet::TYPE_IPV6 => (
            Payload::Ipv6(PacketBounds::in_frame(offset)),
            ipv6::HEADER_LEN,
        ),
        _ if tags.readable => return Payload::Other(PassReason::NotIp),
        _ => (
            Payload::Unreadable(DropReason::HeadersTooDeep),
            ethernet::TAG_LEN,
        ),
    };
    if tags.readable && offset + len <= MAX_OFFSET {
        return payload;
    }
    // Linux drops a frame that is too short for its tags and the fixed IP header. A longer frame
    // may hold them beyond the readable range, so it is not safe to pass.
    if packet.frame_len() < offset + len {
        Payload::Other(PassReason::ShortHeader)
    } else {
        Payload::Unreadable(DropReason::HeadersTooDeep)
    }
}

/// Whether Linux strips a tag of this EtherType (`eth_type_vlan` in `include/linux/if_vlan.h`).
///
/// With more types, bytes would be judged that Linux never takes for IP. With fewer, an unlisted
/// source could pass with a four-byte prefix.
#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ethernet::TYPE_8021Q | ethernet::TYPE_8021AD)
}

/// A walk over the VLAN tags of a frame.
///
/// Linux strips priority tags (VLAN id 0) in any number and mixture. It hands tags with an id to a
/// VLAN device or a bridge. So the walk follows all of them, and tagged frames are judged like
/// untagged ones.
struct VlanTags {
    /// The EtherType that precedes the current offset, in host order.
    ether_type: u16,
    /// False if an EtherType announced a tag that could not be read.
    readable: bool,
}

impl Walk for VlanTags {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        let Some([_, _, type_high, type_low]) = packet.read::<{ ethernet::TAG_LEN }>(offset) else {
            self.readable = false;
            return Step::Done(0);
        };
        self.ether_type = u16::from_be_bytes([type_high, type_low]);
        if is_tag(self.ether_type) {
            Step::More(ethernet::TAG_LEN)
        } else {
            Step::Done(ethernet::TAG_LEN)
        }
    }
}

/// A walk over the MPLS labels of a frame.
///
/// After the last label Linux looks at the IP version of the payload (`mpls_egress` in
/// `net/mpls/af_mpls.c`). It delivers the packet to the interface of the label's route. For the
/// explicit null label this is always `lo`.
struct MplsLabels {
    /// Whether the last label was read.
    bottom: bool,
}

impl Walk for MplsLabels {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        match packet.read::<{ mpls::LABEL_LEN }>(offset) {
            None => Step::Done(0),
            Some(label) if label[mpls::BOTTOM] & 1 == 1 => {
                self.bottom = true;
                Step::Done(mpls::LABEL_LEN)
            }
            Some(_) => Step::More(mpls::LABEL_LEN),
        }
    }
}
