//! Ethernet frames and their tags.

/// MAC address of the node's interface.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC address of the client's interface.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Length of a frame's header without tags.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of MPLS labels.
pub const MPLS: u16 = 0x8847;
/// EtherType of MPLS labels in multicast frames.
pub const MPLS_MULTICAST: u16 = 0x8848;
/// EtherType of a customer tag.
pub const TAG_8021Q: u16 = 0x8100;
/// EtherType of a service tag.
pub const TAG_8021AD: u16 = 0x88a8;

/// A frame around an IP packet; its EtherType follows the packet's version.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    typed(type_of(packet), packet)
}

/// A frame with any EtherType (or, below 1536, length) and payload.
pub fn typed(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [
        &NODE_MAC[..],
        &CLIENT_MAC,
        &ether_type.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// A frame around an IP packet with tags, outermost first: the EtherType and VLAN id of each.
pub fn tagged(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    tagged_as(type_of(packet), tags, packet)
}

/// The same with any EtherType after the tags.
pub fn tagged_as(ether_type: u16, tags: &[(u16, u16)], payload: &[u8]) -> Vec<u8> {
    let mut frame = [NODE_MAC, CLIENT_MAC].concat();
    for (tag, id) in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn type_of(packet: &[u8]) -> u16 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => IPV4,
        _ => IPV6,
    }
}
