//! Values that several commands show.

pub mod cluster;
pub mod event;
pub mod guards;
pub mod lists;
pub mod policy;
pub mod range;
pub mod stats;
pub mod ticks;
