//! `apifence run`: attach if needed, stay in the foreground, show what the filter does.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Context,
    attach::{Guarded, guard},
    detach,
    logged::Logger,
    stats::{self, Stats},
};
use crate::{
    cli::{ChangeArgs, PolicyArgs},
    datapath::{LogLines, Program, replace},
    metrics::{Endpoint, Health},
    net::Net,
    output::{Output, say},
    state::WriterLock,
};

/// How often the counters and the log are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs the command.
pub(super) async fn run(context: &Context, args: &PolicyArgs) -> Result<u8> {
    let started = Timestamp::now();
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    let (health, watched) = watch::channel(Health::default());
    let endpoint = Endpoint::open(
        *context.config.metrics_listen,
        context.pins.clone(),
        watched,
    )?;
    // Nobody is there to insist, and a service must come up.
    let unattended = ChangeArgs {
        force: true,
        ..ChangeArgs::default()
    };
    let mut guarded = guard(context, args, &unattended, context.global.verbose).await?;
    let names = guarded.iter().map(|guarded| guarded.interface.name.clone());
    health.send_modify(|health| health.start(names.collect()));
    let mut logs = Vec::new();
    if context.global.verbose {
        for Guarded { program, .. } in &mut guarded {
            logs.push(LogLines::open(program)?);
        }
    }

    let net = Net::open()?;
    let mut logger = Logger::open(context, started)?;
    let mut last = String::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {
                logs.iter_mut().for_each(LogLines::flush);
                logger.tick().await?;
                let stats = stats::read(context, &net).await?;
                let now = line(&stats);
                if now != last {
                    match context.global.output {
                        Output::Text => say(&now),
                        json @ Output::Json => json.line(&stats)?,
                    }
                    last = now;
                }
            }
        }
    }

    drop(logs);
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    if *context.config.detach_on_exit {
        let names: Vec<String> = guarded
            .iter()
            .map(|guarded| guarded.interface.name.clone())
            .collect();
        drop(guarded);
        return detach::run(context, &names).await;
    }
    if context.global.verbose {
        quiet(context, guarded)?;
    }
    say("leaving; the filter stays on (`apifence detach` removes it)");
    Ok(0)
}

/// The counters in a line.
fn line(stats: &Stats) -> String {
    let parts: Vec<String> = stats
        .interfaces
        .iter()
        .map(|interface| {
            format!(
                "{}: {} passed, {} dropped, {} would be dropped",
                interface.interface,
                interface.packets("pass"),
                interface.packets("drop"),
                interface.packets("would_drop"),
            )
        })
        .collect();
    parts.join("; ")
}

/// Puts programs without a log in the place of those with one: nobody reads it from now on.
fn quiet(context: &Context, guarded: Vec<Guarded>) -> Result<()> {
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    for Guarded {
        interface, program, ..
    } in guarded
    {
        let mut silent = Program::load(&context.pins, interface.ifindex, false)?;
        replace(
            &mut silent,
            &interface.name,
            &context.pins.link(interface.ifindex),
        )?;
        drop(program);
    }
    Ok(())
}
