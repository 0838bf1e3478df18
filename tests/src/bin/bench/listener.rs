//! The server on the protected port.

use std::{
    io,
    net::TcpListener,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};
use std::os::fd::AsRawFd as _;
use tests::{flood::PORT, netns::Namespace};

use crate::cpus::{self, Clock};

/// Accepts connections and closes them, on the node's CPU, until dropped.
pub(crate) struct Listener {
    socket: TcpListener,
    /// CPU time that it takes on the node's CPU.
    pub(crate) clock: Clock,
    worker: Option<JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn new(node: &Namespace) -> Result<Self> {
        let socket = node
            .run(|| TcpListener::bind(("::", PORT)))
            .context("listen on the node")?;
        listen(&socket, Backlog::MAXCONN)?;
        let copy = socket.try_clone()?;
        let (sender, clock) = mpsc::channel();
        let worker = thread::spawn(move || {
            // On another CPU it would take the generator's time.
            if cpus::pin(0, cpus::NODE).is_err() || sender.send(Clock::of_this_thread()).is_err() {
                return;
            }
            loop {
                match copy.accept() {
                    // Closed at once, though most clients close first.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => break,
                }
            }
        });
        Ok(Self {
            socket,
            clock: clock.recv().context("pin the listener to the node's CPU")?,
            worker: Some(worker),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the worker, which then finds no connection to accept.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
