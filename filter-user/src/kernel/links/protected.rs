//! Which interfaces are guarded: what is pinned, held against what the kernel has on each interface.

use anyhow::Result;
use serde::Serialize;

use crate::kernel::{
    bpf::{Attachment, Counters, refusal},
    net::interface::{Interface, XdpAttachMode},
    pins::Pins,
};

/// An interface with a pinned link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProtectedInterface {
    /// Its name; `#` and its number once it is gone.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// Where the program runs.
    pub xdp_mode: Option<XdpAttachMode>,
    /// Why it does not run in the driver, if that refused it.
    pub native_refused: Option<String>,
    /// Whether packets of this interface meet the filter.
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

/// Gives the pins of interfaces whose number changed their place: a device that moves to another network namespace and back takes its link
/// with it, and may get another number. `interfaces` are those that there are.
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
        // The number of one that is elsewhere is its number there.
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

/// Every interface with a pinned link; `interfaces` are those that there are.
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
