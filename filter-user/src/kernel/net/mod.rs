//! Interfaces, addresses, routes, sockets and connections, as netlink and ethtool tell them.

pub mod conntrack;
pub mod decapsulation;
pub mod driver;
pub mod interface;
pub mod link_type;
pub mod netlink;
pub mod nfnetlink;
pub mod rtnetlink;
pub mod sock_diag;
