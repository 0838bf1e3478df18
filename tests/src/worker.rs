//! A control-plane node and a worker in the same subnet: a client that a change must not cut
//! without a confirmation.

use std::net::TcpStream;

use anyhow::Result;
use serde_json::Value;

use crate::{
    cli::{Apifence, Background},
    net::{open, silent},
    netns::{Namespace, two_interfaces},
    site::{at, ip},
    wait::until,
};

/// The port of the API server.
pub const PORT: u16 = 6443;
/// The node's address on `n0`.
pub const NODE_ADDRESS: &str = "192.0.2.1";
/// The worker's address, in that subnet.
pub const WORKER: &str = "192.0.2.2";
/// A list with the worker.
pub const WITH: &str = "192.0.2.2 # worker\n198.51.100.0/24\n";
/// The same without it.
pub const WITHOUT: &str = "198.51.100.0/24\n";

/// The two nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The namespace of the API server and the filter.
    pub node: Namespace,
    /// The namespace of the other node.
    pub worker: Namespace,
}

impl Cluster {
    /// Makes both.
    pub fn new() -> Result<Self> {
        let [node, worker] = two_interfaces()?;
        Ok(Self { node, worker })
    }

    /// The worker opens a connection and uses it.
    pub fn connect(&self) -> Result<TcpStream> {
        open(&self.worker, ip(WORKER), at(NODE_ADDRESS, PORT))
    }

    /// The worker's attempt gets no answer, and is dropped and counted.
    pub fn is_out(&self, filter: &Apifence) -> Result<()> {
        filter.drops(|| silent(&self.worker, ip(WORKER), at(NODE_ADDRESS, PORT)))
    }
}

/// Starts `run` on `n0`, and waits until the files are in force.
pub fn start(filter: &Apifence, more: &[&str]) -> Result<Background> {
    let mut daemon = filter.start(&[&["run", "--interface", "n0"], more].concat())?;
    daemon.line(|line| line.contains("guarding"))?;
    until("the files are in force", || {
        Ok(filter.json(&["status"])?["policy_source"] == "files")
    })?;
    Ok(daemon)
}

/// The pending change, as `status` shows it.
pub fn provisional(filter: &Apifence) -> Result<Value> {
    Ok(filter.json(&["status"])?["provisional"].clone())
}

/// Whether `run` reports an edit on trial.
pub fn is_on_trial(line: &str) -> bool {
    line.starts_with("warning: ") && line.contains("`apifence confirm`")
}

/// Whether `run` reports that an edit on trial was not confirmed, and waits.
pub fn is_held(line: &str) -> bool {
    line.starts_with("error: follow files: a change on trial was not confirmed")
}
