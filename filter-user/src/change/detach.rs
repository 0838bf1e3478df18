//! `apifence detach`: removes the filter and all of its pins.

use std::{
    slice, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::proposal::cause;
use crate::{
    context::Context,
    kernel::{
        bpf::{Attachment, Counters},
        links::strays::{strays, strays_at_rest, unnamed},
        net::{interface::Interface, rtnetlink},
    },
    store::{PolicyStore, WriterLock},
    ui::{error::UserError, output::eprint},
};

/// The result of the command.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Detached {
    /// Names of the interfaces that the filter was removed from.
    detached: Vec<String>,
}

pub(crate) fn run(context: &Context, names: &[String]) -> Result<u8> {
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    if names.is_empty() {
        detach_all(context)
    } else {
        detach_from(context, names)
    }
}

/// Removes the filter from all interfaces.
fn detach_all(context: &Context) -> Result<u8> {
    let links = context.pins.all_links()?;
    // A link of another layout version may be unreadable in parts; its program is readable.
    let attached: Vec<Attachment> = links
        .iter()
        .filter_map(|pin| Attachment::read(pin).ok())
        .collect();
    if !context.pins.is_used()? {
        context.pins.remove_writer_lock();
        if let Some(stray) = strays_at_rest(&context.pins)?.0.first() {
            return Err(stray.problem("detach filter"));
        }
        eprint(format_args!(
            "nothing to detach (`{}` has no pins)",
            context.pins.root().display()
        ));
        let detached = Vec::new();
        context.global.output.result(&Detached { detached })?;
        return Ok(0);
    }
    let detached = interfaces_carrying(&attached)?;
    context.pins.remove_all()?;
    wait_until_detached(context, &attached)?;
    forget_policy(context);
    match strays_at_rest(&context.pins)?.0.as_slice() {
        [] => match unnamed(&context.pins, &rtnetlink::interfaces()?)? {
            None => eprint("detached: the ports are open to every source"),
            Some(unnamed) => eprint(format_args!(
                "detached the filter that is pinned here; {unnamed}"
            )),
        },
        strays if links.is_empty() => return Err(strays[0].problem("detach filter")),
        strays => {
            eprint("detached the filter that is pinned here; other filters stay:");
            for stray in strays {
                eprint(format_args!("warning: {}; {}", stray.cause(), stray.hint()));
            }
        }
    }
    Ok(report_detached(context, detached))
}

/// Removes the filter from the interfaces `names`.
fn detach_from(context: &Context, names: &[String]) -> Result<u8> {
    context.pins.check_layout()?;
    let interfaces = rtnetlink::choose("detach filter from", names)?;
    let ours = context.pins.interfaces()?;
    for interface in &interfaces {
        if !ours.contains(&interface.ifindex) {
            let stray = strays(&context.pins, slice::from_ref(interface))?;
            if let Some(stray) = stray.first() {
                return Err(stray.problem(&format!("detach filter from `{}`", interface.name)));
            }
            return Err(UserError::input(
                format!(
                    "detach filter from `{}`: no filter is attached",
                    interface.name
                ),
                "`apifence status` lists the guarded interfaces",
            ));
        }
    }
    for interface in &interfaces {
        let attached = Attachment::read(&context.pins.link(interface.ifindex))?;
        context.pins.remove_interface(interface.ifindex)?;
        wait_until_detached(context, &[attached])?;
        // If the maps are gone, the counters are gone, too.
        if let Ok(mut counters) = Counters::open(&context.pins.maps()) {
            counters.release(interface.ifindex)?;
        }
        eprint(format_args!(
            "detached from `{}`: the ports are open to every source there",
            interface.name
        ));
    }
    if context.pins.interfaces()?.is_empty() {
        context.pins.remove_all()?;
        forget_policy(context);
    }
    Ok(report_detached(context, interfaces))
}

/// Reports the result. The filter is detached even if the report cannot be written.
fn report_detached(context: &Context, interfaces: Vec<Interface>) -> u8 {
    let names = interfaces.into_iter().map(|interface| interface.name);
    let detached = names.collect();
    if let Err(error) = context.global.output.result(&Detached { detached }) {
        eprint(format_args!(
            "warning: {}: the filter is detached",
            cause(&error)
        ));
    }
    0
}

/// Removes the saved policy, so that a later start does not use it.
fn forget_policy(context: &Context) {
    if let Err(error) = PolicyStore::new(&context.config.state_dir).forget() {
        eprint(format_args!("warning: {error:#}"));
    }
}

/// The interfaces that carry the program of their link in `attached`; all may have the same one.
fn interfaces_carrying(attached: &[Attachment]) -> Result<Vec<Interface>> {
    let mut interfaces = rtnetlink::interfaces()?;
    interfaces.retain(|interface| {
        interface.xdp.is_some_and(|xdp| {
            attached
                .iter()
                .any(|link| (link.ifindex, link.program_id) == (interface.ifindex, xdp.program_id))
        })
    });
    Ok(interfaces)
}

/// Waits for the kernel, which frees a link, and its program, shortly after the last pin is gone.
fn wait_until_detached(context: &Context, attached: &[Attachment]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match interfaces_carrying(attached)?.first() {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Some(interface) => {
                let verb = format!("detach filter from `{}`", interface.name);
                let strays = strays(&context.pins, slice::from_ref(interface))?;
                return Err(match strays.first() {
                    Some(stray) => stray.problem(&verb),
                    None => UserError::failed(
                        format!("{verb}: the program is still attached"),
                        "`apifence status` names the process or pin that holds it",
                    ),
                });
            }
        }
    }
}
