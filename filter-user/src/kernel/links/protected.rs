//! The guarded interfaces: the pins compared with the kernel's state of each interface.

use anyhow::Result;
use serde::Serialize;

use crate::kernel::{
    bpf::{Attachment, Counters, refusal},
    net::interface::{Interface, XdpAttachMode},
    pins::Pins,
};

/// An interface with a pinned link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProtectedInterface {
    /// Its name; `#` and its ifindex once it is gone.
    pub interface: String,
    /// Its ifindex.
    pub ifindex: u32,
    /// Where the program runs; null if it does not run.
    pub xdp_mode: Option<XdpAttachMode>,
    /// The driver's reason for refusing the program; null if it did not.
    pub native_refused: Option<String>,
    /// Whether the filter judges this interface's packets.
    pub guarded: bool,
}

impl ProtectedInterface {
    /// An interface whose link a process holds, and that is not pinned.
    pub fn held(interface: &Interface) -> Self {
        Self {
            interface: interface.name.clone(),
            ifindex: interface.ifindex,
            xdp_mode: interface.xdp.map(|xdp| xdp.place),
            native_refused: None,
            guarded: interface.xdp.is_some(),
        }
    }
}

/// Moves the pins of interfaces whose ifindex changed. A device that moves to another network
/// namespace and back keeps its link, and may get another ifindex. `interfaces` is the current
/// list.
///
/// # Errors
/// If bpffs or the kernel refuses.
pub fn follow_moved(pins: &Pins, counters: &mut Counters, interfaces: &[Interface]) -> Result<()> {
    for ifindex in pins.interfaces()? {
        let attachment = Attachment::read(&pins.link(ifindex))?;
        let now = attachment.ifindex;
        let is_here = interfaces.iter().any(|interface| {
            let program = interface.xdp.map(|xdp| xdp.program_id);
            (interface.ifindex, program) == (now, Some(attachment.program_id))
        });
        // The ifindex of an interface that is elsewhere belongs to the other namespace.
        if now == 0 || now == ifindex || !is_here || pins.link(now).exists() {
            continue;
        }
        counters.claim(now)?;
        pins.take_over_link(now, &pins.link(ifindex))?;
        pins.remove_interface(ifindex)?;
        counters.release(ifindex)?;
    }
    Ok(())
}

/// Every interface with a pinned link; `interfaces` is the current list.
///
/// # Errors
/// If the pins cannot be read, or a binary of another layout version attached the filter.
pub fn protected_interfaces(
    pins: &Pins,
    interfaces: &[Interface],
) -> Result<Vec<ProtectedInterface>> {
    pins.check_layout()?;
    let mut guards = Vec::new();
    for ifindex in pins.interfaces()? {
        let attachment = Attachment::read(&pins.link(ifindex))?;
        let interface = interfaces
            .iter()
            .find(|interface| interface.ifindex == ifindex);
        let xdp = interface
            .and_then(|interface| interface.xdp)
            .filter(|xdp| xdp.program_id == attachment.program_id);
        guards.push(ProtectedInterface {
            interface: interface
                .map_or_else(|| format!("#{ifindex}"), |interface| interface.name.clone()),
            ifindex,
            xdp_mode: xdp.map(|xdp| xdp.place),
            native_refused: refusal(&pins.link(ifindex))
                .filter(|_| xdp.is_some_and(|xdp| xdp.place == XdpAttachMode::Generic)),
            guarded: xdp.is_some(),
        });
    }
    Ok(guards)
}
