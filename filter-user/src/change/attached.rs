//! The result of `attach`, as it is shown.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{proposal::Proposal, words::MONITOR};
use crate::{
    config::{PolicyMode, Settings, join, named},
    context::Context,
    kernel::{
        bpf::refusal,
        net::{
            interface::{Interface, XdpAttachMode},
            rtnetlink,
        },
    },
    ranges::{List, in_ranges},
    ui::output::eprint,
};

/// The result of the command.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Attached {
    /// The interfaces with the filter; empty if nothing was attached.
    pub(crate) interfaces: Vec<AttachedInterface>,
    #[serde(flatten)]
    pub(crate) proposal: Proposal,
    /// When the previous policy returns, unless `apifence confirm` comes first: RFC 3339, UTC;
    /// null if the change is final.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(crate) confirm_until: Option<Timestamp>,
}

/// A guarded interface as it is shown.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AttachedInterface {
    /// Its name.
    interface: String,
    /// Its ifindex.
    ifindex: u32,
    /// Where the program runs; null if it does not run.
    xdp_mode: Option<XdpAttachMode>,
}

/// Reports the policy in force; returns the interfaces as they are shown.
pub(crate) fn report(
    context: &Context,
    interfaces: &[Interface],
    settings: &Settings,
    list: &List,
) -> Result<Vec<AttachedInterface>> {
    let shown = read_interfaces(interfaces)?;
    for guarded in &shown {
        let drops = settings.mode == PolicyMode::Enforce && *list != List::Off;
        eprint(format_args!(
            "{} TCP {} on `{}` ({} XDP)",
            if drops { "guarding" } else { "watching" },
            join(settings.protected()),
            guarded.interface,
            guarded.xdp_mode.map_or("no", XdpAttachMode::label)
        ));
        if guarded.xdp_mode == Some(XdpAttachMode::Generic)
            && let Some(refused) = refusal(&context.pins.link(guarded.ifindex))
        {
            eprint(format_args!("note: `{}`: {refused}", guarded.interface));
        }
    }
    for guard in &settings.guards {
        eprint(format_args!(
            "{}: only this node and the {} are allowed",
            guard.ports(),
            named(&guard.lists)
        ));
    }
    if settings.mode == PolicyMode::Monitor {
        eprint(MONITOR);
    }
    match list {
        List::Off => eprint("warning: the list has the word `disabled`: every source passes"),
        List::Ranges(entries) if entries.is_empty() => {
            eprint("note: the list is empty: only the implicit sources are allowed");
        }
        List::Ranges(entries) => eprint(format_args!("authorized: {}", in_ranges(entries.len()))),
    }
    Ok(shown)
}

/// The interfaces `chosen` in their present state.
pub(crate) fn read_interfaces(chosen: &[Interface]) -> Result<Vec<AttachedInterface>> {
    let now = rtnetlink::interfaces()?;
    let shown = chosen.iter().map(|chosen| {
        let found = now
            .iter()
            .find(|interface| interface.ifindex == chosen.ifindex);
        AttachedInterface {
            interface: chosen.name.clone(),
            ifindex: chosen.ifindex,
            xdp_mode: found
                .and_then(|interface| interface.xdp)
                .map(|xdp| xdp.place),
        }
    });
    Ok(shown.collect())
}
