//! `run`: keeps the kernel in agreement with the files, the node and its interfaces.
//!
//! Three threads run, and none waits for another. `guard` keeps the filter on the interfaces,
//! `follower` puts the files in force, and `log` reports drops. `start` runs before them.

mod alerts;
mod drop_log;
mod follower;
mod guard;
mod log;
mod logger;
mod request;
pub mod run;
mod start;

pub(crate) use self::{
    follower::{Channels, follow},
    guard::{Shared, WantedInterfaces, start as guard},
    log::Logs,
    request::Request,
    start::{Compiled, Start, start},
};

/// The types of what `run` writes.
#[cfg(test)]
pub(crate) mod written {
    pub(crate) use super::{follower::NodeState, log::Counters, logger::LogEntry};
}
