//! Header offsets and lengths, one file per protocol, each with its RFC section.
//!
//! Not supported, on purpose: IP in IEEE 802.2 LLC or SNAP frames (Linux has no handler that would deliver it), tag
//! types other than 802.1Q and 802.1ad (Linux does not strip them), the inside of
//! tunnels that need a device of their own.

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod tcp;
