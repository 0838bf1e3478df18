//! What answers on the protected port.

use std::{io, net::TcpListener, thread, thread::JoinHandle};

use anyhow::{Context as _, Result};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};
use std::os::fd::AsRawFd as _;
use tests::{flood::PORT, netns::Namespace};

use crate::cpus;

/// Accepts connections and closes them, on the node's CPU, until dropped.
pub(crate) struct Listener {
    socket: TcpListener,
    worker: Option<JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn new(node: &Namespace) -> Result<Self> {
        let socket = node
            .run(|| TcpListener::bind(("::", PORT)))
            .context("listen on the node")?;
        listen(&socket, Backlog::MAXCONN)?;
        let copy = socket.try_clone()?;
        let worker = thread::spawn(move || {
            // Elsewhere it would take the generator's time.
            if cpus::pin(0, cpus::NODE).is_err() {
                return;
            }
            loop {
                match copy.accept() {
                    // Closed at once, but the client mostly was faster.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => break,
                }
            }
        });
        Ok(Self {
            socket,
            worker: Some(worker),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the worker, which finds nothing more to accept.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
