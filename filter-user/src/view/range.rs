//! A range as people read it.

use ipnet::IpNet;

/// The range; a single address without its length.
pub(crate) fn short(range: &IpNet) -> String {
    match range.prefix_len() == range.max_prefix_len() {
        true => range.addr().to_string(),
        false => range.to_string(),
    }
}
