//! The loader and command line of apifence.
//!
//! Dependencies run one way, from the bottom of this list to its top; `tidy.rs` checks it.
//!
//! - `clock`: the boot clock, the monotonic clock and the wall clock
//! - `ui`: output, progress, errors and their explanations
//! - `ranges`: the text of a list and its entries; pure
//! - `codes`: the warnings that an operator can look up
//! - `config`: the settings that a command uses; `cli`: the words that were typed
//! - `policy`: the compiled policy; pure
//! - `kernel`: the kernel's side: `bpf`, `links`, `net`, `nat`
//! - `store`: files, history, locks
//! - `cluster`: the cluster as seen from this node
//! - `context`: the settings and paths of one command
//! - `metrics`: the exporter and the health of the service
//! - `warnings`: facts of this node that an operator should know
//! - `change`: a change of the policy, as a transaction over files and kernel
//! - `view`: values that several commands show
//! - `survey`: what the node is: API server, proxies, interfaces, networks, clients
//! - `daemon`: `run`; `top`: the live view; `command`: one file per verb

// Only `kernel/bpf/sys.rs` has unsafe code, and allows it for itself.
#![deny(unsafe_code)]
// The print macros panic if a stream is closed or full; `ui::output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod change;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod codes;
pub mod command;
pub mod config;
pub mod context;
pub mod daemon;
pub mod kernel;
pub mod metrics;
pub mod policy;
pub mod ranges;
pub mod store;
pub mod survey;
pub mod top;
pub mod ui;
pub mod view;
pub mod warnings;
