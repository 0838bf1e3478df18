//! `apifence run`: attach if needed, stay in the foreground, keep the filter true to its files, show what it does.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Context, detach,
    logged::Logger,
    stats::{self, Stats},
    watch::Watch,
};
use crate::{
    cli::PolicyArgs,
    datapath::{Link, Program},
    metrics::{Endpoint, Health},
    net::{Changes, Net},
    output::{Output, say},
    state::WriterLock,
};

/// How often the files, the links and the log are looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// How many of these until a thorough look: for what the kernel gave no word of.
const THOROUGH: u64 = 20;
/// How many until the counters are shown again, and warnings are looked for.
const MINUTE: u64 = 240;

/// Runs the command.
pub(super) async fn run(context: &Context, args: &PolicyArgs, matches: &ArgMatches) -> Result<u8> {
    let started = Timestamp::now();
    let (health, watched) = watch::channel(Health::default());
    let listen = *context.config.metrics_listen;
    let endpoint = Endpoint::open(listen, context.pins.clone(), watched)?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for signals")?;
    let mut changes = Changes::open()?;
    let mut watch = Watch::start(context, args, matches, health).await?;
    let net = Net::open()?;
    let mut logger = Logger::open(context, started)?;
    let mut last = String::new();
    let mut told = watch.summary();
    notify(&[NotifyState::Ready, NotifyState::Status(&told)]);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tick = 0;
    let mut looked = Instant::now();
    let mut changed = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notify_reloading();
                watch.reload().await;
                notify(&[NotifyState::Ready]);
            }
            () = changes.next() => {
                // At once, so that an interface is guarded before it is up; but where routes come and go all the time, not for each.
                let soon = looked.elapsed() < PERIOD;
                if !soon {
                    watch.look(true).await;
                    looked = Instant::now();
                }
                changed = soon;
            }
            _ = ticks.tick() => {
                watch.look(changed || tick % THOROUGH == THOROUGH - 1).await;
                changed = false;
                if let Some(lines) = &mut watch.logging {
                    lines.flush();
                }
                let logged = logger.tick().await;
                watch.aside(logged);
                if tick % MINUTE == MINUTE - 1 {
                    watch.warn().await;
                }
                if tick % MINUTE == 0 {
                    let shown = show(context, &net, &mut last).await;
                    watch.aside(shown);
                }
                notify(&[NotifyState::Watchdog]);
                tick += 1;
            }
        }
        let now = watch.summary();
        if now != told {
            notify(&[NotifyState::Status(&now)]);
            told = now;
        }
    }
    notify(&[NotifyState::Stopping]);

    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    let logged = watch.logging.take().is_some();
    drop(watch);
    if *context.config.detach_on_exit {
        return detach::run(context, &[]).await;
    }
    if logged {
        quiet(context)?;
    }
    say("leaving; the filter stays on (`apifence detach` removes it)");
    Ok(0)
}

/// Tells the service manager, if one started this process.
fn notify(states: &[NotifyState<'_>]) {
    // Whoever does not listen need not know.
    let _ = sd_notify::notify(states);
}

fn notify_reloading() {
    // systemd wants to know since when, so that it can tell this reload from an earlier one.
    if let Ok(since) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, since]);
    }
}

/// Shows the counters, if they moved. That they cannot be read ends nothing: the filter does not need whoever watches it.
async fn show(context: &Context, net: &Net, last: &mut String) -> Result<()> {
    let Ok(stats) = stats::read(context, net).await else {
        return Ok(());
    };
    let now = line(&stats);
    if now != *last {
        match context.global.output {
            Output::Text => say(&now),
            json @ Output::Json => json.line(&stats)?,
        }
        *last = now;
    }
    Ok(())
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

/// Puts a program without a log in the place of the one with a log: nothing reads it from now on.
fn quiet(context: &Context) -> Result<()> {
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    let mut silent = Program::load(&context.pins.maps(), false)?;
    for ifindex in context.pins.interfaces()? {
        Link::open(&context.pins.link(ifindex))?.replace(&mut silent, &format!("#{ifindex}"))?;
    }
    Ok(())
}
