//! Files and locks. One writer at a time reads and replaces the ranges file as a whole, and keeps
//! the replaced one.
//!
//! ```text
//! FOLDER/apifence.toml     the config file, which is only read
//! FOLDER/ranges             the list `default`
//! FOLDER/ranges.d/NAME      the list NAME, with files like those below next to it
//! FOLDER/ranges.d/DIR/NAME  the list DIR.NAME
//! FOLDER/.ranges.new        a list being written
//! FOLDER/.ranges.pending    a list in force until its deadline, unless confirmed
//! FOLDER/.ranges.lock       locked by the writer
//! FOLDER/ranges.history/N   copies of the lists in force until now, the highest number last
//! ```

mod acknowledged;
mod attributes;
mod config;
mod draft;
mod history;
mod input;
mod list_file;
mod list_names;
mod lists;
mod lock;
mod path;
mod ranges_file;
mod read;
mod read_lists;
mod saved;
mod state_file;
mod trials;
mod trust;
mod watched_file;
mod watched_lists;

pub use self::{
    acknowledged::AcknowledgedStore,
    config::{ConfigText, read_config, write_text},
    draft::{Draft, is_same_list},
    history::{History, HistoryEntry, written},
    input::{Input, read_ranges},
    list_file::ListFile,
    list_names::ListNames,
    lists::ListFiles,
    lock::{WatchLock, Watcher, WriterLock},
    ranges_file::{Committed, Pending, Staged, holds},
    read::{MAX_LIST_LEN, read_regular, read_without_link},
    read_lists::ReadLists,
    saved::{PolicyStore, SavedPolicy, StagedPolicy},
    state_file::StateFile,
    trials::{PolicyMark, TrialStore},
    trust::{other_writer, refuse_other_writers},
    watched_file::{FileStamp, WatchedFile},
    watched_lists::WatchedLists,
};
