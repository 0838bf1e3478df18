//! Files and locks: the ranges file is read whole and replaced whole, by one writer at a time, and what it replaces is kept.
//!
//! ```text
//! FOLDER/apifence.toml     the config file, which is only read
//! FOLDER/ranges             the list
//! FOLDER/.ranges.new        a list being written
//! FOLDER/.ranges.pending    a list in force until its deadline, if nobody confirms it
//! FOLDER/.ranges.lock       locked by the writer
//! FOLDER/ranges.history/N   copies of the lists in force until now, the highest number last
//! ```

mod acknowledged;
mod attributes;
mod config;
mod draft;
mod file;
mod history;
mod lock;
mod read;
mod saved;
mod seen;
mod trials;
mod trust;

use std::path::Path;

pub use acknowledged::AcknowledgedStore;
pub use config::{ConfigText, read_config};
pub use draft::{Draft, is_same_list};
pub use file::{Committed, Input, Pending, Staged, read_ranges};
pub use history::{History, Kept, written};
pub use lock::{WatchLock, Watcher, WriterLock};
pub use read::read_regular;
pub use saved::{KeptPolicy, PolicyStore, SavedPolicy, StagedPolicy};
pub use seen::{Followed, Seen};
pub use trials::{PolicyMark, TrialStore};
pub use trust::{other_writer, refuse_other_writers};

/// The folder that holds the file at `path`.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
