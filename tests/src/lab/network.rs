//! The machines of a lab, each a network namespace, and the links between them.

use std::net::IpAddr;

use anyhow::Result;

use crate::{
    netns::{End, Namespace, add_address, veth},
    site::ip,
};

/// The interface of every machine, which a filter guards.
pub const INTERFACE: &str = "eth0";
/// The interface of a control plane with the link to etcd, which no filter guards.
const STORE_INTERFACE: &str = "eth1";
/// etcd on that link.
pub const STORE: &str = "10.255.0.1";

/// A switch that all machines are connected to, and a second one with etcd.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    /// The namespace of etcd.
    pub store: Namespace,
}

/// A machine with an address of each family.
#[derive(Debug)]
pub struct Machine {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name, which its Node object has as well.
    pub name: &'static str,
    /// Its addresses, IPv4 and IPv6.
    pub addresses: [&'static str; 2],
}

impl Network {
    /// Makes both switches.
    pub fn new() -> Result<Self> {
        let (switch, store) = (Namespace::new("switch")?, Namespace::new("etcd")?);
        for namespace in [&switch, &store] {
            namespace.ip("link add br0 type bridge")?;
            namespace.ip("link set br0 up")?;
        }
        add_address(&store, "br0", &format!("{STORE}/24"))?;
        Ok(Self { switch, store })
    }

    /// Connects a machine. Every address is one of its own link, so that a machine may have any.
    pub fn machine(&self, name: &'static str, addresses: [&'static str; 2]) -> Result<Machine> {
        let namespace = Namespace::new(name)?;
        let with_lengths = addresses.map(with_length);
        let own = with_lengths.each_ref().map(String::as_str);
        let own = End::new(&namespace, INTERFACE, &own);
        veth(1500, own, End::new(&self.switch, name, &[]))?;
        self.switch.ip(&format!("link set {name} master br0"))?;
        for family in ["-4", "-6"] {
            namespace.ip(&format!("{family} route add default dev {INTERFACE}"))?;
        }
        Ok(Machine {
            namespace,
            name,
            addresses,
        })
    }

    /// Connects a control plane to etcd; `number` is the last part of its address there.
    pub fn link_to_store(&self, machine: &Machine, number: usize) -> Result<()> {
        let address = format!("10.255.0.{number}/24");
        let address = [&*address];
        let own = End::new(&machine.namespace, STORE_INTERFACE, &address);
        veth(1500, own, End::new(&self.store, machine.name, &[]))?;
        let name = machine.name;
        self.store
            .ip(&format!("link set {name} master br0"))
            .map(drop)
    }
}

impl Machine {
    /// Its addresses as values, IPv4 and IPv6.
    pub fn ips(&self) -> [IpAddr; 2] {
        self.addresses.map(ip)
    }

    /// Gives it one more address.
    pub fn add_address(&self, address: &str) -> Result<()> {
        add_address(&self.namespace, INTERFACE, &with_length(address))
    }
}

/// `address` with the length of a prefix that holds it alone.
fn with_length(address: &str) -> String {
    let length = if address.contains(':') { 128 } else { 32 };
    format!("{address}/{length}")
}
