//! Which interfaces are guarded: what is pinned, held against what the kernel has on each interface.

use anyhow::Result;
use serde::Serialize;

use crate::{
    datapath::{Attachment, refusal},
    net::{Interface, XdpPlace},
    pins::Pins,
};

/// An interface with a pinned link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// Its name; `#` and its number once it is gone.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// Where the program runs.
    pub xdp_mode: Option<XdpPlace>,
    /// Why it does not run in the driver, if that refused it.
    pub native_refused: Option<String>,
    /// Whether packets of this interface meet the filter.
    pub guarded: bool,
}

/// Every interface with a pinned link; `interfaces` are those that there are.
///
/// # Errors
/// If the pins cannot be read, or a binary of another layout version attached the filter.
pub fn guards(pins: &Pins, interfaces: &[Interface]) -> Result<Vec<Guard>> {
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
        guards.push(Guard {
            interface: interface
                .map_or_else(|| format!("#{ifindex}"), |interface| interface.name.clone()),
            ifindex,
            xdp_mode: xdp.map(|xdp| xdp.place),
            native_refused: refusal(&pins.link(ifindex))
                .filter(|_| xdp.is_some_and(|xdp| xdp.place == XdpPlace::Generic)),
            guarded: xdp.is_some(),
        });
    }
    Ok(guards)
}
