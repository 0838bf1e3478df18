//! Takes over the filter of a binary with another layout version through its links. No packet
//! passes unfiltered meanwhile.
//!
//! The new maps are made, filled and pinned as for a first attach. Then the program of each link is
//! replaced, and the link's pin moves to the new layout. Packets meet the old policy until the
//! replacement. If the process dies after it, the next one takes over the same link again. The old
//! maps are removed last.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::words::VERB;
use crate::{
    config::Settings,
    kernel::{
        bpf::{Counters, Link, Maps, Program},
        net::interface::Interface,
        pins::Pins,
    },
    ui::{error::UserError, output::eprint},
};

/// Replaces the program of each link of another layout by `program`, whose maps hold a policy.
/// `interfaces` are all interfaces of the node. A failure with one link does not stop the others.
///
/// # Errors
/// If a link cannot be taken over: it stays as it was.
pub(crate) fn take_over(
    pins: &Pins,
    program: &mut Program,
    counters: &mut Counters,
    interfaces: &[Interface],
) -> Result<()> {
    let mut done = Ok(());
    for (ifindex, pin) in pins.other_links()? {
        let mut take = || -> Result<()> {
            let link = Link::open(&pin)?;
            let attached = link.attachment()?;
            if attached.ifindex == 0 {
                // Its interface is gone.
                fs::remove_file(&pin)?;
                return Ok(());
            }
            let here = interfaces.iter().find(|here| {
                let program = here.xdp.map(|xdp| xdp.program_id);
                (here.ifindex, program) == (ifindex, Some(attached.program_id))
            });
            let Some(interface) = here else {
                return Err(UserError::failed(
                    format!(
                        "take over `{}`: it guards interface {ifindex} of another network namespace",
                        pin.display()
                    ),
                    "run apifence there, or give each network namespace its own directory with `--bpffs`",
                ));
            };
            let name = &interface.name;
            let link_header = interface.link_header(VERB)?;
            counters.claim(ifindex)?;
            // From here on packets of this interface meet the new policy.
            link.replace(program, link_header, name)?;
            pins.take_over_link(ifindex, &pin)?;
            eprint(format_args!(
                "took over the filter on `{name}` from another version, without a gap"
            ));
            Ok(())
        };
        done = done.and(take());
    }
    done?;
    pins.remove_other_layouts()
}

/// The settings in force in another layout, by its `links`, if they can be read.
pub(crate) fn other_settings(links: &[(u32, PathBuf)]) -> Option<Settings> {
    let (_, link) = links.first()?;
    Maps::settings_of_layout(&Pins::maps_of(link)?)
}
