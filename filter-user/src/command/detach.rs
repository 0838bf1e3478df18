//! `apifence detach`: removes the filter and all that was pinned for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Context;
use crate::{datapath::Attachment, net::Net, output::say, problem::Problem, state::WriterLock};

/// What was done.
#[derive(Serialize)]
struct Detached {
    /// Names of the interfaces that have no filter any more.
    detached: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, names: &[String]) -> Result<u8> {
    let net = Net::open()?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    if names.is_empty() {
        let links = context.pins.all_links()?;
        // A link of another layout version may not be readable in its parts; its program still is.
        let programs: Vec<u32> = links
            .iter()
            .filter_map(|pin| Attachment::read(pin).ok())
            .map(|attachment| attachment.program_id)
            .collect();
        if links.is_empty() && !context.pins.root().exists() {
            say(format_args!(
                "nothing is attached (`{}`)",
                context.pins.root().display()
            ));
            let detached = Vec::new();
            context.global.output.result(&Detached { detached })?;
            return Ok(0);
        }
        let interfaces = net.interfaces().await?;
        let detached = interfaces.into_iter().filter(|interface| {
            interface
                .xdp
                .is_some_and(|xdp| programs.contains(&xdp.program_id))
        });
        let detached = detached.map(|interface| interface.name).collect();
        context.pins.remove_all()?;
        gone(&net, &programs).await?;
        say("detached: the port is unfiltered");
        context.global.output.result(&Detached { detached })?;
        return Ok(0);
    }

    let interfaces = net.choose("detach filter from", names).await?;
    let ours = context.pins.interfaces()?;
    for interface in &interfaces {
        if !ours.contains(&interface.ifindex) {
            return Err(Problem::input(
                format!("detach filter from `{}`: it has none", interface.name),
                "`apifence status` lists the guarded interfaces",
            ));
        }
    }
    for interface in &interfaces {
        let program = Attachment::read(&context.pins.link(interface.ifindex))?.program_id;
        context.pins.remove_interface(interface.ifindex)?;
        gone(&net, &[program]).await?;
        say(format_args!(
            "detached from `{}`: the port is unfiltered there",
            interface.name
        ));
    }
    if context.pins.interfaces()?.is_empty() {
        context.pins.remove_all()?;
    }
    let detached = interfaces
        .into_iter()
        .map(|interface| interface.name)
        .collect();
    context.global.output.result(&Detached { detached })?;
    Ok(0)
}

/// Waits until no interface carries one of `programs`: the kernel frees a link a moment after its last pin is gone.
async fn gone(net: &Net, programs: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let interfaces = net.interfaces().await?;
        let left = interfaces.iter().find(|interface| {
            interface
                .xdp
                .is_some_and(|xdp| programs.contains(&xdp.program_id))
        });
        match left {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Some(interface) => {
                return Err(Problem::failed(
                    format!(
                        "detach filter from `{}`: another process holds its link",
                        interface.name
                    ),
                    "end `apifence run`, or wait for it: the program leaves with the last holder",
                ));
            }
        }
    }
}
