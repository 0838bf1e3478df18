//! The messages to the follower's thread.

use tokio::sync::oneshot;

/// A request, or an event.
pub(crate) enum Request {
    /// Every interface was tried once.
    Tried,
    /// The set of guarded interfaces changed.
    Guarded,
    /// An address came or went, and the policy may depend on it.
    Addresses,
    /// Read the files now; answer once that is done.
    Reload(oneshot::Sender<()>),
    /// The process ends.
    Stop,
}
