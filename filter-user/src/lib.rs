//! The loader and command line of apifence.
//!
//! `cli` is what was typed, `author` by whom, `config` what the program can use, `ranges` the list,
//! `state` files and locks, `pins` and `datapath` the kernel's side, `net` what rtnetlink tells,
//! `link_type` what of a device's packets the filter sees, `decapsulation` what packets it has to
//! look into, `nat` what rewrites addresses, `driver` why one refuses a program, `foreign` whose
//! other XDP programs are, `codes` and `warnings` what an operator should know, `guards` which
//! interfaces are guarded, `strays` filters that are not pinned where they should be, `kernel`
//! which ones are too old, `metrics` what monitoring sees, `report_log` what of the drops is
//! logged, `command` one file per verb, `clock` time, `problem` and `explain` what goes wrong,
//! `visible` what a terminal must not get, `progress` how far it has come.

// Forbidden but for two files, which say so: `datapath/batch.rs` and `datapath/sys.rs`.
#![deny(unsafe_code)]
// They panic where a stream is closed or full: `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod author;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod codes;
pub mod command;
pub mod config;
pub mod conntrack;
pub mod datapath;
pub mod decapsulation;
pub mod driver;
pub mod explain;
pub mod foreign;
pub mod guards;
pub mod kernel;
pub mod link_type;
pub mod metrics;
pub mod nat;
pub mod net;
mod nfnetlink;
pub mod output;
pub mod paths;
pub mod pins;
pub mod problem;
pub mod progress;
pub mod ranges;
pub mod report_log;
pub mod state;
pub mod strays;
pub mod visible;
pub mod warnings;
