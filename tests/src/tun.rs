//! A tun device whose packets a test writes and reads: its frames start with the IP header.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    netns::{Namespace, add_address, await_addresses},
    wait::PATIENCE,
};

/// The device, for as long as this is held.
#[derive(Debug)]
pub struct Tun(File);

mod call {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(
        /// Makes a device, or opens the existing one of that name.
        set_interface,
        libc::TUNSETIFF,
        libc::ifreq
    );
}

impl Tun {
    /// Makes it in `namespace`, up, with these addresses.
    pub fn new(namespace: &Namespace, name: &str, addresses: &[&str]) -> Result<Self> {
        // The device belongs to the namespace of the thread that calls `TUNSETIFF`.
        let device = namespace.run(|| -> Result<File> {
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .context("open `/dev/net/tun`")?;
            let mut request = libc::ifreq {
                ifr_name: [0; libc::IFNAMSIZ],
                ifr_ifru: libc::__c_anonymous_ifr_ifru {
                    ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
                },
            };
            for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *place = byte as libc::c_char;
            }
            // SAFETY: the descriptor is open, and the request is of the type that this call reads;
            // it is alive and ours.
            unsafe { call::set_interface(device.as_raw_fd(), &raw const request) }
                .with_context(|| format!("make tun `{name}`"))?;
            Ok(device)
        })?;
        namespace.ip(&format!("link set {name} addrgenmode none"))?;
        for address in addresses {
            add_address(namespace, name, address)?;
        }
        namespace.ip(&format!("link set {name} up"))?;
        await_addresses(namespace, addresses)?;
        Ok(Self(device))
    }

    /// Sends a packet into the node through the device.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let sent = (&self.0)
            .write(packet)
            .with_context(|| format!("send {} bytes", packet.len()))?;
        ensure!(
            sent == packet.len(),
            "sent {sent} of {} bytes",
            packet.len()
        );
        Ok(())
    }

    /// Reads the next packet that leaves through the device; returns its length.
    pub fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).expect("some seconds");
        if poll(&mut waiting, patience)? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        (&self.0).read(packet)
    }
}
