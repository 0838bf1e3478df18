//! `apifence-kube` carries the authorized ranges of the Kubernetes API to the files that apifence
//! follows on a node.
//!
//! It has no privilege but to write one directory, and nothing that guards the API server depends
//! on it: what is in force is decided by `apifence run`, from files on the node's disk.

pub mod addresses;
pub mod agent;
pub mod api;
pub mod cli;
pub mod connection;
pub mod directory;
pub mod events;
pub mod health;
pub mod list;
pub mod log;
pub mod node_state;
pub mod post;
pub mod record;
pub mod report;
pub mod watch;
