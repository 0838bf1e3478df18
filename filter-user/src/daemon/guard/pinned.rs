//! Keeps the pins equal to the links that the guard holds.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};

use super::state::{Guard, HeldLink};
use crate::{
    kernel::{
        bpf::{Attachment, Link},
        net::interface::Interface,
    },
    store::WatchLock,
    ui::output::eprint,
};

impl Guard {
    /// Removes the pins of interfaces that are gone. A failure is tried again later.
    pub(crate) fn remove_stale_pins(&mut self, interfaces: &[Interface]) {
        let pins = &self.shared.pins;
        for ifindex in pins.interfaces().unwrap_or_default() {
            let is_there = interfaces
                .iter()
                .any(|interface| interface.ifindex == ifindex);
            let attached = || Link::open(&pins.link(ifindex))?.attachment();
            if !is_there && attached().is_ok_and(|attachment| attachment.ifindex == 0) {
                let _ = pins.remove_interface(ifindex);
                let _ = self.counters.release(ifindex);
            }
        }
    }

    /// Pins held objects again, after their pins were removed or another bpffs was mounted over
    /// them. The filter stays attached meanwhile, since this process holds it.
    pub(crate) fn pin_again(&mut self) -> Result<()> {
        let pins = &self.shared.pins;
        let has_maps = self.maps.are_pinned(&pins.maps());
        let lost: Vec<u32> = self
            .held
            .iter()
            .filter(|(ifindex, held)| !held.is_pinned_at(&pins.link(**ifindex)))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        if has_maps && lost.is_empty() && self.lock.holds(&pins.watch()) {
            return Ok(());
        }
        pins.prepare()?;
        if !self.lock.holds(&pins.watch()) {
            self.lock = WatchLock::take(&pins.watch())?;
        }
        if !has_maps {
            pins.prepare_new_maps()?;
            self.maps.pin(&pins.new_maps())?;
            let _ = fs::remove_dir_all(pins.maps());
            fs::rename(pins.new_maps(), pins.maps()).context("pin maps")?;
        }
        for ifindex in lost {
            if let Some(held) = self.held.get_mut(&ifindex)
                && let Some(link) = &held.link
            {
                let pin = pins.link(ifindex);
                // An old pin whose link is detached.
                let _ = fs::remove_file(&pin);
                pins.prepare_interface(ifindex)?;
                link.pin(&pin)?;
                held.is_pinned = true;
            }
        }
        eprint("warning: another process removed pins: pinned again; the filter stayed on");
        Ok(())
    }
}

impl HeldLink {
    /// Whether the pin at `pin` is of its link.
    fn is_pinned_at(&self, pin: &Path) -> bool {
        let own = self.link.as_ref().map(Link::attachment);
        match (Attachment::read(pin), own) {
            (Ok(pinned), Some(Ok(own))) => self.is_pinned && pinned.link_id == own.link_id,
            (pinned, _) => self.is_pinned && pinned.is_ok(),
        }
    }
}

/// How many more descriptors this process may open.
pub(crate) fn spare_descriptors() -> u64 {
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count);
    match (getrlimit(Resource::RLIMIT_NOFILE), open) {
        (Ok((soft, _)), Ok(open)) => soft.saturating_sub(open as u64),
        _ => 0,
    }
}
