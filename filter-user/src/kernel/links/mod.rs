//! Where the filter is pinned and attached, and which other programs are on the hook.

pub mod foreign;
pub mod protected;
pub mod strays;
