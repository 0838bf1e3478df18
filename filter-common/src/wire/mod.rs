//! Header offsets and lengths, one file per protocol, each with its RFC section.

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod protocol;
pub mod tcp;
