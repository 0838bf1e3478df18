//! The loader and command line of apifence.
//!
//! `cli` is what was typed, `config` what the program can use, `ranges` the list, `state` files and locks, `pins` and `datapath` the
//! kernel's side, `net` what rtnetlink tells, `link_type` what
//! of a device's packets the filter sees, `guards` which interfaces are guarded, `metrics` what monitoring sees, `report_log` what
//! of the drops is logged, `command` one file per verb, `clock` time, `problem` and `explain` what goes wrong, `progress` how far it
//! has come.

// Forbidden but for one file, which says so: `datapath/batch.rs`.
#![deny(unsafe_code)]
// They panic where a stream is closed or full: `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod clients;
pub mod clock;
pub mod command;
pub mod config;
pub mod datapath;
pub mod explain;
pub mod guards;
pub mod link_type;
pub mod metrics;
pub mod net;
pub mod output;
pub mod pins;
pub mod problem;
pub mod progress;
pub mod ranges;
pub mod report_log;
pub mod state;
pub mod warnings;
