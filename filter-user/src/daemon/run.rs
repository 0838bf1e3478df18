//! `apifence run`: attach if needed, stay in the foreground, keep the filter true to its files, show what it does.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Channels, Logs, Request, Shared, Wanted, follow, guard, start};
use crate::{
    change::{
        build::{typed_for_service, typed_list},
        detach,
    },
    cli::PolicyArgs,
    context::Context,
    kernel::bpf::{Link, Program},
    metrics::{Endpoint, Health, Turns},
    policy::Difference,
    ranges::RangesFile,
    store::{Staged, WatchLock, WriterLock, read_ranges},
    ui::output::{say, write_behind},
};

/// How often the service manager hears that the interfaces are watched.
const WATCHDOG: Duration = Duration::from_secs(20);
/// How long the files may take until the service manager hears that the interfaces are guarded.
const READY: Duration = Duration::from_secs(5);
/// How long a reload may take before the service manager hears that it goes on without it.
const RELOAD: Duration = Duration::from_secs(20);
/// How long the threads may take to end. A change that is cut off is taken back, or completed, by the next command.
const ENDING: Duration = Duration::from_secs(3);

/// Runs the command.
pub(crate) async fn run(context: &Context, args: &PolicyArgs, matches: &ArgMatches) -> Result<u8> {
    let since = Timestamp::now();
    write_behind()?;
    raise_descriptors();
    let turns = Arc::new(Turns::default());
    let (health, watched) = watch::channel(Health::default());
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for signals")?;
    context.pins.prepare()?;
    let lock = WatchLock::take(&context.pins.watch())?;
    let listen = *context.config.metrics_listen;
    let endpoint = Endpoint::open(
        listen,
        context.pins.clone(),
        watched.clone(),
        Arc::clone(&turns),
    )?;
    let typed = typed_for_service(args).map_or(Ok(()), |text| write_typed(context, text));
    let began = {
        let context = context.clone();
        spawn_blocking(move || start(&context, typed))
    };
    // Whoever wants it to end need not wait for a list of a million.
    let began = tokio::select! {
        began = began => began.context("start")??,
        _ = terminate.recv() => return Ok(0),
        _ = interrupt.recv() => return Ok(0),
    };
    health.send_modify(|health| health.instead = began.instead);

    let (stop, stopped) = watch::channel(false);
    let (wanted, wanted_by_guard) = watch::channel(Wanted {
        names: began.interfaces,
        xdp_mode: began.xdp_mode,
    });
    let (lines, logged) = mpsc::channel();
    let (follower, requests) = mpsc::channel();
    let shared = Shared {
        pins: context.pins.clone(),
        wanted: wanted_by_guard,
        health: health.clone(),
        turns: Arc::clone(&turns),
        log: context.global.verbose.then(|| lines.clone()),
        follower: follower.clone(),
        stop: stopped,
    };
    let channels = Channels {
        wanted,
        health,
        turns: Arc::clone(&turns),
        compiled: began.compiled,
        requests,
    };
    // These have what they need before interfaces take descriptors; they wait until each interface was tried once.
    let threads = vec![
        follow(context, matches, channels)?,
        Logs::start(context, since, logged)?,
        guard(shared, lock)?,
    ];
    let mut told = watched.clone();
    let tried = told.wait_for(|health| health.started);
    let mut ended = tokio::select! {
        _ = tried => false,
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    // What the files say is in force by then, unless they cannot be had.
    let _ = timeout(READY, told.wait_for(|health| !health.summary.is_empty())).await;
    let mut summary = told.borrow_and_update().summary.clone();
    notify(&[NotifyState::Ready, NotifyState::Status(&summary)]);
    let mut ticks = interval(WATCHDOG);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !ended {
        tokio::select! {
            _ = terminate.recv() => ended = true,
            _ = interrupt.recv() => ended = true,
            _ = hangup.recv() => {
                notify_reloading();
                let (answer, answered) = oneshot::channel();
                // One that takes longer is told by `/readyz`.
                if follower.send(Request::Reload(answer)).is_ok() {
                    let _ = timeout(RELOAD, answered).await;
                }
                notify(&[NotifyState::Ready]);
            }
            _ = told.changed() => {
                let now = told.borrow_and_update().summary.clone();
                if now != summary {
                    notify(&[NotifyState::Status(&now)]);
                    summary = now;
                }
            }
            _ = ticks.tick() => {
                // A process that cannot guard is of no use: the service manager starts another one, and the filter stays.
                if turns.guard_stands().is_none() {
                    notify(&[NotifyState::Watchdog]);
                }
            }
        }
    }
    notify(&[NotifyState::Stopping]);

    // Whoever asks for them has ended too.
    let _ = stop.send(true);
    drop(lines);
    let _ = follower.send(Request::Stop);
    let guarding = join(threads);
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    if !guarding {
        say(
            "warning: a thread of this process did not end in time: the next command puts its work in order",
        );
        Ok(0)
    } else if *context.config.detach_on_exit {
        detach::run(context, &[])
    } else {
        if context.global.verbose {
            quiet(context)?;
        }
        let guarded = told.borrow().guarded.clone();
        if guarded.is_empty() {
            say("leaving; no interface is guarded: the port is open to everyone");
        } else if guarded
            .iter()
            .all(|ifindex| context.pins.link(*ifindex).exists())
        {
            say("leaving; the filter stays on (`apifence detach` removes it)");
        } else {
            say("warning: leaving; the pins of the filter are gone, so it ends with this process");
        }
        Ok(0)
    }
}

/// Makes the list that the service was started with the one in the ranges file, if there is none.
/// One that is there was changed since the service was set up: a restart takes nothing of that
/// back.
fn write_typed(context: &Context, text: &str) -> Result<()> {
    let list = typed_list(text, false)?;
    let path = &context.global.ranges_file;
    // One that cannot be read is told of by who uses it.
    let said = read_ranges(path).ok().flatten();
    if said.is_some() || path.exists() {
        let Some(said) = said.map(|file| file.list()) else {
            say(format_args!(
                "warning: the list of `--authorized-ip-ranges` is not used: `{}` is there, and cannot be read",
                path.display()
            ));
            return Ok(());
        };
        if said != list {
            let difference = Difference::new(list.entries(), said.entries());
            say(format_args!(
                "warning: `--authorized-ip-ranges` is another list than `{}`, which holds ({difference}): leave the flag out, or `apifence ranges set` its list",
                path.display()
            ));
        }
        return Ok(());
    }
    let _lock = WriterLock::take(path, context.pins.root())?;
    Staged::write(path, &RangesFile::new(&list))?
        .commit()
        .map(drop)
}

/// Waits until the threads have ended; false if one did not in time.
fn join(threads: Vec<JoinHandle<()>>) -> bool {
    let deadline = Instant::now() + ENDING;
    while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let all = threads.iter().all(JoinHandle::is_finished);
    for thread in threads.into_iter().filter(JoinHandle::is_finished) {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
    all
}

/// As many descriptors as this process may have: each guarded interface takes one.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With those there are it goes on as far as they last.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
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

/// Puts a program without a log in the place of the one with a log: nothing reads it from now on.
fn quiet(context: &Context) -> Result<()> {
    let mut silent = Program::load(&context.pins.maps(), false)?;
    for ifindex in context.pins.interfaces()? {
        let link = Link::open(&context.pins.link(ifindex))?;
        let link_header = link.link_header()?;
        link.replace(&mut silent, link_header, &format!("#{ifindex}"))?;
    }
    Ok(())
}
