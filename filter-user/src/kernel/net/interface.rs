//! An interface as the kernel shows it, and suggestions for a mistyped name.

use anyhow::Result;
use filter_common::LinkHeader;
use netlink_packet_route::link::InfoKind;
use serde::Serialize;

use super::link_type::LinkType;
use crate::{config::nearest, ui::error::UserError};

/// An interface as the kernel shows it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its alternative names.
    pub other_names: Vec<String>,
    /// Its ifindex.
    pub ifindex: u32,
    /// The XDP program on it.
    pub xdp: Option<AttachedXdp>,
    /// Whether it is up.
    pub up: bool,
    /// How the filter sees its packets.
    pub link_type: LinkType,
    /// Its kind; `None` for a driver's own device.
    pub kind: Option<InfoKind>,
    /// The interface below it, if it is on top of one, as a VLAN is.
    pub lower: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
}

impl Interface {
    /// The link header of its frames; `verb` is the operation, for the error.
    ///
    /// # Errors
    /// If the filter cannot judge its packets.
    pub fn link_header(&self, verb: &str) -> Result<LinkHeader> {
        match self.link_type {
            LinkType::Filtered(link_header) => Ok(link_header),
            LinkType::Refused(why, way_out) => {
                let kind = self.kind.as_ref().map(|kind| format!(" ({kind})"));
                let (name, kind) = (&self.name, kind.unwrap_or_default());
                Err(UserError::input(
                    format!("{verb} `{name}`{kind}: {why}"),
                    way_out,
                ))
            }
        }
    }
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The program's id.
    pub program_id: u32,
    /// Where it runs.
    pub place: XdpAttachMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum XdpAttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// On the card.
    Offload,
    /// In several of these at once.
    Several,
}

impl XdpAttachMode {
    /// The name that users see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
            Self::Several => "several modes",
        }
    }
}

/// The interface of `all` that has `name` as an alternative name, in words; `None` without one. The
/// filter uses only the primary names.
pub fn other_name(name: &str, all: &[Interface]) -> Option<String> {
    let has = |interface: &&Interface| interface.other_names.iter().any(|other| other == name);
    let own = &all.iter().find(has)?.name;
    Some(format!("this is another name of `{own}`: use `{own}`"))
}

/// The interface of `all` that a user who types `name` probably means, in words.
pub fn meant(name: &str, all: &[Interface]) -> Option<String> {
    other_name(name, all).or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        // `eth0@if5` as `ip` prints it, and the label `eth0:1` of an address.
        let begins = name.split(['@', ':']).next().unwrap_or_default();
        let near = names.iter().copied().find(|own| *own == begins);
        let near = near.or_else(|| nearest(name, &names))?;
        Some(format!("did you mean `{near}`?"))
    })
}
