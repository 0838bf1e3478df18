//! `apifence run`: attach the filter if necessary, and keep the kernel in sync with the files.

use std::{
    collections::BTreeSet,
    panic::resume_unwind,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Channels, Logs, Request, Shared, Start, WantedInterfaces, follow, guard, start};
use crate::{
    change::{
        build::{typed_for_service, typed_list},
        detach,
    },
    cli::PolicyArgs,
    context::Context,
    kernel::{
        bpf::{Link, LogLines, Program},
        capabilities::give_up_unneeded,
        net::rtnetlink,
    },
    metrics::{Endpoint, Health, Heartbeats},
    policy::Difference,
    ranges::{ListName, RangesFile},
    store::{Staged, WatchLock, WriterLock, read_ranges},
    ui::output::{eprint, write_behind},
};

/// The interval of the watchdog messages to the service manager.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(20);
/// How long the service manager waits for the files before it hears that the service is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take before the service manager hears that the service is ready again.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the threads may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the command.
///
/// SIGTERM and SIGINT end it. How long a change in progress delays that:
/// - In `start`: not at all. The process ends at once, as after SIGKILL.
/// - In a later change: [`END_TIMEOUT`] at most. The threads get this time to end; then the process
///   ends without them.
/// - While the first files are read: [`READY_TIMEOUT`] more. During a reload: [`RELOAD_TIMEOUT`]
///   more.
///
/// A change that is cut off leaves the old policy or the new one; the next command completes it or
/// takes it back.
pub(crate) async fn run(context: &Context, args: &PolicyArgs, matches: &ArgMatches) -> Result<u8> {
    let since = Timestamp::now();
    let writer = thread::spawn(|| {
        // The thread that writes inherits the rest. The main thread reports a failure of its own.
        let _ = give_up_unneeded();
        write_behind()
    });
    writer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
    raise_descriptors();
    let heartbeats = Arc::new(Heartbeats::default());
    let (health, watched) = watch::channel(Health::default());
    let mut signals = Signals::listen()?;
    context.pins.prepare()?;
    let lock = WatchLock::take(&context.pins.watch())?;
    let endpoint = Endpoint::open(
        *context.config.metrics_listen,
        context.pins.clone(),
        watched.clone(),
        Arc::clone(&heartbeats),
    )?;
    let typed = typed_for_service(args).map_or(Ok(()), |text| write_typed(context, text));
    let mut started = tokio::select! {
        started = begin(context, typed)? => started.context("start")??,
        () = signals.end.received() => return Ok(0),
    };
    let fallback = started.fallback.take();
    health.send_modify(|health| health.fallback = fallback);
    // The threads of the service start without them.
    if let Err(error) = give_up_unneeded() {
        eprint(format_args!(
            "warning: {error:#}: the service keeps more rights than it needs"
        ));
    }

    let threads = Threads::start(context, matches, started, lock, health, &heartbeats, since)?;
    serve(
        &mut signals,
        watched.clone(),
        &threads.follower,
        &heartbeats,
    )
    .await;
    notify(&[NotifyState::Stopping]);
    let have_ended = threads.end();
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    if !have_ended {
        eprint("warning: a thread did not end in time: the next command completes its work");
        return Ok(0);
    }
    if *context.config.detach_on_exit {
        return detach::run(context, &[]);
    }
    if context.global.verbose {
        stop_logging(context)?;
    }
    report_leaving(context, &watched.borrow().guarded);
    Ok(0)
}

/// Starts in a thread of its own. Not in one of the runtime, which has given up capabilities that
/// show more of the node.
fn begin(context: &Context, typed: Result<()>) -> Result<oneshot::Receiver<Result<Start>>> {
    let (done, starting) = oneshot::channel();
    let context = context.clone();
    thread::Builder::new()
        .name("start".to_owned())
        .spawn(move || {
            // A signal may have ended the process's wait for it.
            let _ = done.send(start(&context, typed));
        })
        .context("start thread")?;
    Ok(starting)
}

/// Reports whether the filter stays on the interfaces `guarded` after the end of the process.
fn report_leaving(context: &Context, guarded: &BTreeSet<u32>) {
    let mut links = guarded.iter().map(|ifindex| context.pins.link(*ifindex));
    eprint(if guarded.is_empty() {
        "stopping; no interface is guarded: the ports are open to every source"
    } else if links.all(|link| link.exists()) {
        "stopping; the filter stays on (`apifence detach` removes it)"
    } else {
        "warning: stopping; the filter has no pins, so it ends with this process"
    });
}

/// The threads of the process, and the channels that end them.
struct Threads {
    handles: Vec<JoinHandle<()>>,
    follower: mpsc::Sender<Request>,
    stop: watch::Sender<bool>,
    lines: mpsc::Sender<LogLines>,
}

impl Threads {
    fn start(
        context: &Context,
        matches: &ArgMatches,
        started: Start,
        lock: WatchLock,
        health: watch::Sender<Health>,
        heartbeats: &Arc<Heartbeats>,
        since: Timestamp,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (wanted, wanted_by_guard) = watch::channel(WantedInterfaces {
            names: started.interfaces,
            xdp_mode: started.xdp_mode,
        });
        let (lines, logged) = mpsc::channel();
        let (follower, requests) = mpsc::channel();
        let shared = Shared {
            pins: context.pins.clone(),
            wanted: wanted_by_guard,
            health: health.clone(),
            heartbeats: Arc::clone(heartbeats),
            log: context.global.verbose.then(|| lines.clone()),
            follower: follower.clone(),
            stop: stopped,
        };
        let channels = Channels {
            wanted,
            health,
            heartbeats: Arc::clone(heartbeats),
            compiled: started.compiled,
            requests,
        };
        // The first two open their descriptors before interfaces take descriptors. They wait until
        // the guard has tried each interface once.
        let handles = vec![
            follow(context, matches, channels)?,
            Logs::start(context, since, logged)?,
            guard(shared, lock)?,
        ];
        Ok(Self {
            handles,
            follower,
            stop,
            lines,
        })
    }

    /// Ends the threads; false if one did not end in time.
    fn end(self) -> bool {
        // The receivers may have ended, too.
        let _ = self.stop.send(true);
        drop(self.lines);
        let _ = self.follower.send(Request::Stop);
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline && !self.handles.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
        let all = self.handles.iter().all(JoinHandle::is_finished);
        for thread in self.handles.into_iter().filter(JoinHandle::is_finished) {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        all
    }
}

/// The signals of a service.
struct Signals {
    end: EndSignals,
    hangup: Signal,
}

/// The signals that end the process.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("wait for signals");
        Ok(Self {
            end: EndSignals {
                terminate: listen(SignalKind::terminate())?,
                interrupt: listen(SignalKind::interrupt())?,
            },
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reports to the service manager, and reloads on SIGHUP, until a signal ends the process.
async fn serve(
    signals: &mut Signals,
    mut health: watch::Receiver<Health>,
    follower: &mpsc::Sender<Request>,
    heartbeats: &Heartbeats,
) {
    let Signals { end, hangup } = signals;
    let tried = health.wait_for(|health| health.started);
    let mut ended = tokio::select! {
        _ = tried => false,
        () = end.received() => true,
    };
    // By then the files are in force, unless they cannot be read.
    let _ = timeout(
        READY_TIMEOUT,
        health.wait_for(|health| !health.summary.is_empty()),
    )
    .await;
    let mut summary = health.borrow_and_update().summary.clone();
    notify(&[NotifyState::Ready, NotifyState::Status(&summary)]);
    let mut ticks = interval(WATCHDOG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !ended {
        tokio::select! {
            () = end.received() => ended = true,
            _ = hangup.recv() => {
                notify_reloading();
                let (answer, answered) = oneshot::channel();
                // `/readyz` reports a reload that takes longer.
                if follower.send(Request::Reload(answer)).is_ok() {
                    let _ = timeout(RELOAD_TIMEOUT, answered).await;
                }
                notify(&[NotifyState::Ready]);
            }
            _ = health.changed() => {
                let now = health.borrow_and_update().summary.clone();
                if now != summary {
                    notify(&[NotifyState::Status(&now)]);
                    summary = now;
                }
            }
            _ = ticks.tick() => {
                // The service manager restarts a process that cannot guard; the filter stays.
                if heartbeats.guard_stall().is_none() {
                    notify(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

/// Writes the list of the service's command line into the ranges file, if there is no such file. An
/// existing file may have been changed since then, and a restart keeps those changes.
fn write_typed(context: &Context, text: &str) -> Result<()> {
    let list = typed_list(text, false)?;
    let path = &context.list_files().file(&ListName::default());
    // `start` reports a file that cannot be read.
    let said = read_ranges(path).ok().flatten();
    if said.is_some() || path.exists() {
        let Some(said) = said.map(|file| file.list()) else {
            eprint(format_args!(
                "warning: `--authorized-ip-ranges` is not used: `{}` exists, but cannot be read",
                path.display()
            ));
            return Ok(());
        };
        if said != list {
            let difference = Difference::new(list.entries(), said.entries());
            eprint(format_args!(
                "warning: `--authorized-ip-ranges` is not used: `{}` exists and differs ({difference}); leave the flag out, or set its list with `apifence ranges set`",
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

/// Raises the limit of descriptors to the hard limit: each guarded interface takes one.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // After a failure the lower limit holds.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Notifies the service manager, if one started this process.
fn notify(states: &[NotifyState<'_>]) {
    // No service manager may be there.
    let _ = sd_notify::notify(states);
}

fn notify_reloading() {
    // The time lets systemd tell this reload from an earlier one.
    if let Ok(since) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, since]);
    }
}

/// Replaces the program with one without a log, which no process reads from now on.
fn stop_logging(context: &Context) -> Result<()> {
    let mut silent = Program::load(&context.pins.maps(), false)?;
    let interfaces = rtnetlink::interfaces()?;
    let pinned = context.pins.interfaces()?;
    // A link of an interface that is gone is on nothing.
    for interface in interfaces
        .iter()
        .filter(|here| pinned.contains(&here.ifindex))
    {
        let link_header = interface.link_header("replace program")?;
        Link::open(&context.pins.link(interface.ifindex))?.replace(
            &mut silent,
            link_header,
            &interface.name,
        )?;
    }
    Ok(())
}
