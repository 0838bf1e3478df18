//! The kernel's side: programs and maps, links and pins, and what netlink tells.

pub mod bpf;
pub mod links;
pub mod nat;
pub mod net;
pub mod pins;
pub mod routes;
pub mod version;
