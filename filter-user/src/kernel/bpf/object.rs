//! The eBPF object inside this binary: its maps and its program, loaded and not yet attached.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapData},
    programs::Xdp,
};
use filter_common::{
    LinkHeader,
    layout::{
        BITMAPS_V4, BITMAPS_V6, COUNTERS, DESTINATIONS_V4, DESTINATIONS_V6, INTERFACES,
        MONITORED_SOURCES, POLICY, POLICY_HEADERS, PREFILTER, REPORT_HEADS, REPORTS, SELECTOR,
        SETTINGS, SETTINGS_LEN, SLOTS, SOURCES_V4, SOURCES_V6, USAGE,
    },
};

use super::slot::Slot;
use crate::{
    kernel::pins::make_private,
    ui::{error::UserError, explain::explain},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/apifence-xdp"));

/// The maps that all interfaces share, as the object names them.
pub(super) const SHARED: [&str; 16] = [
    SELECTOR,
    POLICY,
    POLICY_HEADERS,
    SOURCES_V4,
    SOURCES_V6,
    PREFILTER,
    BITMAPS_V4,
    BITMAPS_V6,
    DESTINATIONS_V4,
    DESTINATIONS_V6,
    USAGE,
    REPORTS,
    REPORT_HEADS,
    MONITORED_SOURCES,
    COUNTERS,
    INTERFACES,
];

/// Those of them that hold an inner map for each slot.
pub(super) const PER_SLOT: [&str; 7] = [
    SOURCES_V4,
    SOURCES_V6,
    PREFILTER,
    BITMAPS_V4,
    BITMAPS_V6,
    DESTINATIONS_V4,
    DESTINATIONS_V6,
];

/// A loaded program with its maps; it touches no packet until it is attached.
pub struct Program {
    pub(super) ebpf: Ebpf,
}

/// A loader that pins the shared maps in `maps`, or uses those pinned there.
fn loader<'a>(maps: &Path, log: bool) -> Result<EbpfLoader<'a>> {
    if OBJECT.is_empty() {
        return Err(UserError::failed(
            "load program `apifence`: this binary was built without its eBPF object",
            "bpf-linker was missing: run `cargo xtask setup` and build again",
        ));
    }
    let mut loader = EbpfLoader::new();
    for name in SHARED {
        loader.map_pin_path(name, maps.join(name));
    }
    // Off by default: the verifier removes code whose log level is a constant and too low.
    loader.override_global(
        aya_log::LEVEL,
        if log { &LOG_DEBUG } else { &LOG_OFF },
        true,
    );
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    Ok(loader)
}

static LOG_OFF: u8 = 0;
static LOG_DEBUG: u8 = aya_log::Level::Debug as u8;

/// Creates the shared maps and pins them in the directory `maps`, which must be empty.
///
/// # Errors
/// If the kernel refuses: no capability, or no memory.
pub fn create_maps(maps: &Path) -> Result<()> {
    loader(maps, false)?
        .load(OBJECT)
        .map_err(|error| explain("create maps", &error))?;
    for slot in Slot::BOTH {
        make_private(&slot.pins(maps)).context("pin maps")?;
    }
    let settings: Array<MapData, [u8; SETTINGS_LEN]> =
        Array::create(SLOTS, 0).map_err(|error| explain("create maps", &error))?;
    settings
        .pin(maps.join(SETTINGS))
        .map_err(|error| explain("pin maps", &error))
}

impl Program {
    /// Loads the program over the shared maps pinned in `maps`.
    ///
    /// There is one program per link header, shared by all interfaces, so the verifier runs once
    /// for each: for Ethernet now, for others on demand. With `log` the program logs through
    /// aya-log what it reports, and no more than that.
    ///
    /// # Errors
    /// If the kernel refuses: no capability, or the verifier rejects the program.
    pub fn load(maps: &Path, log: bool) -> Result<Self> {
        let ebpf = loader(maps, log)?
            .load(OBJECT)
            .map_err(|error| explain("load program `apifence`", &error))?;
        let mut program = Self { ebpf };
        program.xdp(LinkHeader::Ethernet)?;
        Ok(program)
    }

    /// Loads the programs for all link headers, so that a verifier error shows up early.
    ///
    /// # Errors
    /// If the verifier rejects one.
    pub fn verify(&mut self) -> Result<()> {
        let mut all = LinkHeader::ALL.into_iter();
        all.try_for_each(|link_header| self.xdp(link_header).map(drop))
    }

    /// The loaded program for devices with this link header.
    pub(super) fn xdp(&mut self, link_header: LinkHeader) -> Result<&mut Xdp> {
        let name = link_header.program();
        let program: &mut Xdp = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("find program `{name}` in its object: it is missing"))?
            .try_into()
            .with_context(|| {
                format!("find program `{name}` in its object: it is not an XDP program")
            })?;
        if program.fd().is_err() {
            program
                .load()
                .map_err(|error| explain(&format!("load program `{name}`"), &error))?;
        }
        Ok(program)
    }
}
