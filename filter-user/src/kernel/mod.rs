//! The kernel's side: programs and maps, links and pins, and netlink.

pub mod bpf;
pub mod capabilities;
pub mod links;
pub mod nat;
pub mod net;
pub mod pins;
pub mod routes;
pub mod version;
