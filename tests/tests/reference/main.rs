//! Pages that say what the program says: quoted messages, configurations, and the reference.
//!
//! Parts of pages come from the program, its snapshots and its files. After an intended change, run
//! `UPDATE_DOCS=1 cargo test -p tests --test reference` and read the difference.

mod complete;
mod configs;
mod generated;
mod page;
mod quoted;

/// The test binary that takes the place of a program of the node.
const STAND_IN: &str = env!("CARGO_BIN_EXE_stand-in");
