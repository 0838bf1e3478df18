//! What `run` keeps true: what the files, the node and its interfaces say is what packets meet.
//!
//! Three threads, none of which waits for another: `guard` keeps the filter on the interfaces, `follower` puts in force what the files
//! say, and `log` tells of refused packets. Before them `start` sees to it that there is a policy.

mod complaints;
mod follower;
mod guard;
mod log;
mod start;

use std::thread::JoinHandle;

use anyhow::Result;
use tokio::sync::oneshot;

pub(super) use self::{
    follower::{Channels, follow},
    guard::{Shared, Wanted},
    log::Logs,
    start::{Compiled, start},
};

/// Starts the thread that guards the interfaces.
///
/// # Errors
/// If the maps cannot be opened, or no thread can be had.
pub(super) fn guard(shared: Shared, lock: crate::state::WatchLock) -> Result<JoinHandle<()>> {
    guard::start(shared, lock)
}

/// What the follower is asked for, or hears.
pub(super) enum Request {
    /// Every interface was tried once.
    Tried,
    /// Others are guarded than before.
    Guarded,
    /// An address came or went that the policy may have to follow.
    Addresses,
    /// The files are to be read now; the answer comes once that is done.
    Reload(oneshot::Sender<()>),
    /// The process ends.
    Stop,
}
