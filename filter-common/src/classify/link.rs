//! What a frame starts with: a link header, VLAN tags, MPLS labels.

use crate::{
    classify::{PacketBounds, Payload},
    packet::{LinkHeader, MAX_OFFSET, PacketBytes, Step, Walk},
    verdict::{DropReason, PassReason},
    wire::{ethernet, ipv4, ipv6, mpls},
};

/// Tells what `packet` carries; `mpls` tells whether MPLS labels are taken off.
#[inline(always)]
pub(crate) fn payload<P: PacketBytes>(packet: &P, mpls: impl FnOnce() -> bool) -> Payload {
    match packet.link_header() {
        LinkHeader::Ethernet => ethernet_payload(packet, mpls),
        // Two bytes: of a comparison for one the verifier learns nothing.
        LinkHeader::None => match packet.read(0).map(|[first, _]| first >> 4) {
            Some(4) => Payload::Ipv4(PacketBounds::in_frame(0)),
            Some(6) => Payload::Ipv6(PacketBounds::in_frame(0)),
            Some(_) => Payload::Other(PassReason::NotIp),
            None => Payload::Other(PassReason::ShortHeader),
        },
    }
}

/// The same behind an Ethernet header and any number of VLAN tags, and of MPLS labels behind them.
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
    // Linux takes no packet from a frame that is too short for its tags and fixed IP header. A frame that is long enough, but
    // hides them beyond reach, is another matter.
    if packet.frame_len() < offset + len {
        Payload::Other(PassReason::ShortHeader)
    } else {
        Payload::Unreadable(DropReason::HeadersTooDeep)
    }
}

/// Whether Linux strips a tag of this EtherType (`eth_type_vlan` in `include/linux/if_vlan.h`).
///
/// Treating any other type as a tag would judge bytes that Linux never takes for IP; missing one of these would let a
/// stranger in with a four-byte prefix.
#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ethernet::TYPE_8021Q | ethernet::TYPE_8021AD)
}

/// A walk over the tags of a frame.
///
/// Linux strips priority tags (VLAN id 0) in any number and mixture, and hands tags with an id to a VLAN device or
/// a bridge: so all of them are walked, and tagged frames are judged like untagged ones.
struct VlanTags {
    /// The EtherType in front of the current offset.
    ether_type: u16,
    /// False if a tag was announced that could not be read.
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

/// A walk over the labels of a frame.
///
/// Behind the last one Linux looks at the version of what follows (`mpls_egress` in `net/mpls/af_mpls.c`), and hands it to the
/// interface that the label's route names: `lo`, for the explicit null label always.
struct MplsLabels {
    /// Whether the last one was seen.
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
