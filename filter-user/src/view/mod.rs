//! Values that several commands show.

pub mod event;
pub mod policy;
pub mod stats;
