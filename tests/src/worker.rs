//! A control-plane node and a worker in the same subnet: a client that a change must not cut
//! without a confirmation.

use std::net::TcpStream;

use anyhow::Result;

use crate::{
    cli::{Apifence, Background},
    net::{Echo, open, silent},
    netns::{Namespace, two_interfaces},
    site::{at, ip},
    wait::until,
};

/// The port of the API server.
pub const PORT: u16 = 6443;
/// The node's address on `n0`.
const NODE_ADDRESS: &str = "192.0.2.1";
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
    /// Makes both, `apifence` for commands on the node, and a server on [`PORT`] of the node; no
    /// filter is attached.
    pub fn unguarded_server() -> Result<(Self, Apifence, Echo)> {
        let [node, worker] = two_interfaces()?;
        let filter = Apifence::new(&node)?;
        let server = Echo::new(&node, PORT)?;
        Ok((Self { node, worker }, filter, server))
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
    let daemon = filter.start_run(&[&["--interface", "n0"], more].concat())?;
    filter.until_status("policy_source", "files")?;
    Ok(daemon)
}

/// Waits until a change is on trial; `run` reports it shortly before it is.
pub fn until_on_trial(filter: &Apifence) -> Result<()> {
    until("a change is on trial", || {
        Ok(filter.status("provisional")?.is_object())
    })
}

/// Whether `run` reports an edit on trial.
pub fn is_on_trial(line: &str) -> bool {
    line.starts_with("warning: ") && line.contains("`apifence confirm`")
}

/// Whether `run` reports that an edit on trial was not confirmed, and waits.
pub fn is_held(line: &str) -> bool {
    line.starts_with("error: follow files: a change on trial was not confirmed")
}
