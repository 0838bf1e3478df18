//! Interfaces, addresses, routes, sockets and connections, by netlink and ethtool.

pub mod card;
pub mod conntrack;
pub mod decapsulation;
pub mod driver;
pub mod interface;
pub mod link_type;
pub mod netlink;
pub mod nfnetlink;
pub mod rtnetlink;
pub mod sock_diag;
