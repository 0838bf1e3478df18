//! The filter's links, and foreign programs on the hook.

pub mod foreign;
pub mod protected;
pub mod strays;
