//! What the threads of `run` tell the follower.

use tokio::sync::oneshot;

/// What the follower is asked for, or hears.
pub(crate) enum Request {
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
