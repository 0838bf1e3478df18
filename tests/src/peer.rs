//! A second interface of the node, and the client at its other end.

use std::net::TcpStream;

use anyhow::Result;

use crate::{
    net::{open, silent},
    netns::{End, Namespace, veth},
    site::{Site, at, ip},
};

/// The node's second interface, and the client's only one.
pub const SECOND: &str = "eth1";

const NODE: &str = "10.9.0.1";
const CLIENT: &str = "10.9.0.2";

/// The client.
#[derive(Debug)]
pub struct Peer {
    namespace: Namespace,
}

impl Peer {
    /// Makes it, connected to the node by [`SECOND`].
    pub fn new(site: &Site) -> Result<Self> {
        let peer = Self::unplugged()?;
        peer.plug_in(site)?;
        Ok(peer)
    }

    /// Makes it without an interface.
    pub fn unplugged() -> Result<Self> {
        let namespace = Namespace::new("peer")?;
        Ok(Self { namespace })
    }

    /// Connects it to the node. Removing [`SECOND`] from the node disconnects it.
    pub fn plug_in(&self, site: &Site) -> Result<()> {
        veth(
            1500,
            End::new(&site.node, SECOND, &[&format!("{NODE}/24")]),
            End::new(&self.namespace, SECOND, &[&format!("{CLIENT}/24")]),
        )
    }

    /// It opens a connection to the node and uses it.
    pub fn gets_in(&self, port: u16) -> Result<TcpStream> {
        open(&self.namespace, ip(CLIENT), at(NODE, port))
    }

    /// Its attempt gets no answer.
    pub fn is_silenced(&self, port: u16) -> Result<()> {
        silent(&self.namespace, ip(CLIENT), at(NODE, port))
    }
}
