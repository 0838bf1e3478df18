//! Address blocks.

use std::net::IpAddr;

use ipnet::IpNet;

/// Address blocks that belong to no network that everyone can reach (RFC 6890, and the IANA
/// special-purpose address registries): no foreign machine can have such an address.
const SPECIAL: [&str; 12] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
];

/// Whether all of `range` is outside the public address space.
pub(super) fn is_special(range: &IpNet) -> bool {
    let mut blocks = SPECIAL.iter().filter_map(|block| block.parse().ok());
    blocks.any(|block: IpNet| block.contains(range))
}

/// Whether `address` is public.
pub(super) fn is_public(address: IpAddr) -> bool {
    !is_special(&IpNet::from(address))
}

/// Whether the range can be a cluster's: a wider one is a mistake, and would let half the world in.
pub(super) fn is_of_pods(range: &IpNet) -> bool {
    const WIDEST: [u8; 2] = [8, 16];
    let [v4, v6] = WIDEST;
    range.prefix_len() >= if range.addr().is_ipv4() { v4 } else { v6 }
}
