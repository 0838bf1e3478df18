//! A filter that a binary of another layout version attached is taken over through its own links: no packet passes in between.
//!
//! Maps of this layout are made, filled and pinned as for a first attach; then the program is put in the place of the old one, link by link, and
//! the link's pin gets its place in this layout. In this order: until the program is replaced packets meet the old policy, and whoever dies
//! after that leaves a link that the next one takes over again. The old maps go last.

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
    ui::{error::UserError, output::say},
};

/// Puts `program`, over maps that hold a policy, in the place of what other layouts' links hold. `interfaces` are all that there are. One link
/// that cannot be taken over keeps no other one back.
///
/// # Errors
/// If one cannot: it stays as it was.
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
                    "run apifence there, or give each network namespace a directory of its own with `--bpffs`",
                ));
            };
            let name = &interface.name;
            let link_header = interface.link_header(VERB)?;
            counters.claim(ifindex)?;
            // From here on packets of this interface meet the new policy.
            link.replace(program, link_header, name)?;
            pins.take_over_link(ifindex, &pin)?;
            say(format_args!(
                "took over the filter on `{name}` from another version: it was on all the time"
            ));
            Ok(())
        };
        done = done.and(take());
    }
    done?;
    pins.remove_other_layouts()
}

/// The settings in force by the maps of another layout whose `links` were found, if they can be read.
pub(crate) fn other_settings(links: &[(u32, PathBuf)]) -> Option<Settings> {
    let (_, link) = links.first()?;
    Maps::settings_of_layout(&Pins::maps_of(link)?)
}
