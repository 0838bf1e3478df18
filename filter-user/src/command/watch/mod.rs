//! What `run` keeps true: what the files, the node and its interfaces say is what packets meet.
//!
//! Three threads, none of which waits for another: `guard` keeps the filter on the interfaces, the follower, here, puts in force what
//! the files say, and `log` tells of refused packets.
//!
//! One look of the follower compares what is there with what is wanted, and brings about the difference; whatever the occasion, it is the
//! same look. What cannot be brought about is said once, and tried again at the next occasion.

mod complaints;
mod guard;
mod log;
mod start;

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{ArgMatches, FromArgMatches as _};
use filter_common::{Mode, map::Basis};
use ipnet::IpNet;
use tokio::{
    runtime,
    sync::{oneshot, watch},
};

use self::complaints::{Complaints, sentence};
pub(super) use self::{
    guard::{Shared, Wanted},
    log::Logs,
    start::{Compiled, start},
};
use super::{
    Context,
    attach::warnings,
    change::{Staging, clear_up, put_in_force},
    leap::look,
    policy::{examine, keep, keep_in_force, policy},
    settings,
    settle::settle,
};
use crate::{
    cli::Cli,
    clock::Moment,
    datapath::{Maps, Standing},
    decapsulation,
    metrics::{Health, Loop, Turns},
    net::Net,
    output::say,
    problem::{Problem, Refusals},
    progress::Progress,
    ranges::List,
    state::{Followed, History, Seen, WriterLock, read_ranges, refuse_other_writers},
    warnings::Warning,
};

/// How often the files and the policy in force are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon again, if a file is being written.
const SOON: Duration = Duration::from_millis(100);
/// How many looks until a thorough one: for what the kernel gave no word of.
const THOROUGH: u64 = 10;
/// How many until warnings are looked for.
const MINUTE: u64 = 60;
/// How long the node's addresses must be the same before the policy follows them: a device gets several, one after the other.
const STABLE: Duration = Duration::from_secs(1);
/// How far the clocks may drift apart before somebody must have set one, in nanoseconds.
const SET_BY_HAND: i128 = 1_000_000_000;
/// How long until what failed is tried again though nothing happened.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long another writer may keep the lock before that is told.
const WRITER: Duration = Duration::from_secs(30);

/// What there may be a complaint of.
const WRITER_STANDS: &str = "writer";

/// Starts the thread that guards the interfaces.
///
/// # Errors
/// If the maps cannot be opened, or no thread can be had.
pub(super) fn guard(shared: Shared, lock: crate::state::WatchLock) -> Result<JoinHandle<()>> {
    guard::start(shared, lock)
}

/// The one who follows the files.
pub(super) struct Follower {
    /// With the settings as the config file says them now.
    context: Context,
    matches: Arc<ArgMatches>,
    net: Net,
    decapsulation: decapsulation::Watch,
    wanted: watch::Sender<Wanted>,
    health: watch::Sender<Health>,
    turns: Arc<Turns>,
    config_file: Followed,
    ranges_file: Followed,
    /// Whether the config file could ever be read: until then the settings in force stay.
    has_config: bool,
    /// What the policy in force was made from, as far as it was looked at.
    known: Known,
    /// The maps in use, and where they were found.
    open: Option<(Seen, Maps)>,
    /// Whether the policy is to be compared with what is wanted.
    doubt: bool,
    /// When a policy that could not be put in force is tried again, if nothing happens before.
    not_before: Option<Instant>,
    /// Since when another writer has the lock that is needed.
    blocked: Option<Instant>,
    /// Whether a trial was not confirmed, and what the files say is not what returned: it waits for somebody to touch them.
    held: bool,
    complaints: Complaints,
    warned: BTreeSet<Warning>,
}

/// What a policy in force was made from.
#[derive(Default)]
struct Known {
    standing: Option<Standing>,
    generation: u64,
    /// The node's addresses; none if they are not known.
    node: Option<Vec<IpNet>>,
    /// By how much the wall clock was ahead: expiries are kept on the other one.
    ahead: i128,
}

impl Known {
    fn on_trial(&self) -> bool {
        matches!(self.standing, Some(Standing::Provisional { .. }))
    }

    /// What somebody else must have done, if `generation` is the one in force now, and this is what was known before.
    fn news(&self, generation: u64) -> Option<&'static str> {
        match (self.on_trial(), generation == self.generation) {
            _ if self.standing.is_none() => None,
            (true, true) => Some("the change on trial was confirmed"),
            (true, false) => Some("the change on trial is over"),
            (false, true) => None,
            (false, false) => Some("another command changed the list"),
        }
    }
}

/// What the follower is asked for, or hears.
pub(super) enum Request {
    /// Every interface was tried once.
    Tried,
    /// Others are guarded than before.
    Guarded,
    /// An address came or went that the policy may have to follow.
    Addresses,
    /// The files are to be read now; the answer comes once that is done.
    Reload(oneshot::Sender<()>),
    /// The process ends.
    Stop,
}

/// What the follower shares with the rest of the process.
pub(super) struct Channels {
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) health: watch::Sender<Health>,
    pub(super) turns: Arc<Turns>,
    /// What the policy in force was compiled from, if this process did.
    pub(super) compiled: Option<Compiled>,
    pub(super) requests: mpsc::Receiver<Request>,
}

/// Starts the thread that follows the files, in the network namespace of the caller.
///
/// # Errors
/// If no socket or no thread can be had.
pub(super) fn follow(
    context: &Context,
    matches: &ArgMatches,
    channels: Channels,
) -> Result<JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    let net = {
        let _inside = runtime.enter();
        Net::open()?
    };
    let Channels {
        wanted,
        health,
        turns,
        compiled,
        requests,
    } = channels;
    let follower = Follower {
        context: context.clone(),
        matches: Arc::new(matches.clone()),
        net,
        decapsulation: decapsulation::Watch::open()?,
        wanted,
        health,
        turns,
        config_file: Followed::since((*context.file.path).into(), context.file.seen),
        ranges_file: Followed::new(context.global.ranges_file.clone()),
        has_config: context.file.wrong.is_empty(),
        known: compiled.map_or_else(Known::default, |Compiled { node, ahead }| Known {
            node: Some(node),
            ahead,
            ..Known::default()
        }),
        open: None,
        doubt: true,
        not_before: None,
        blocked: None,
        held: false,
        complaints: Complaints::default(),
        warned: BTreeSet::new(),
    };
    thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || follower.run(&runtime, &requests))
        .context("start thread")
}

impl Follower {
    fn run(mut self, runtime: &runtime::Runtime, requests: &mpsc::Receiver<Request>) {
        // Nothing takes its time before every interface was tried once.
        loop {
            match requests.recv() {
                Ok(Request::Tried) => break,
                Ok(Request::Stop) | Err(_) => return,
                Ok(_) => {}
            }
        }
        if !self.has_config {
            self.config_is_broken();
        }
        let mut tick = 0_u64;
        let mut next = Instant::now();
        let mut stable: Option<Instant> = None;
        loop {
            let time = stable.map_or(next, |stable| stable.min(next));
            match requests.recv_timeout(time.saturating_duration_since(Instant::now())) {
                Ok(Request::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(Request::Reload(answer)) => {
                    runtime.block_on(self.reload());
                    // The process may be ending.
                    let _ = answer.send(());
                }
                // Each device gets several, one after the other.
                Ok(Request::Addresses) => stable = Some(Instant::now() + STABLE),
                Ok(Request::Tried | Request::Guarded) => self.summarize(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if stable.is_some_and(|time| now >= time) {
                stable = None;
                runtime.block_on(self.look(true));
            }
            if now >= next {
                runtime.block_on(self.look(tick % THOROUGH == THOROUGH - 1));
                if tick % MINUTE == 0 {
                    runtime.block_on(self.warn());
                }
                tick += 1;
                // A file that is being written is looked at again soon, until it rests.
                let moves = self.config_file.moves() || self.ranges_file.moves();
                next = Instant::now() + if moves { SOON } else { PERIOD };
            }
        }
    }

    /// Reads both files again, changed or not.
    async fn reload(&mut self) {
        self.config_file.reading();
        self.ranges_file.reading();
        self.follow_config();
        self.at_once();
        self.look(true).await;
    }

    /// The files are to be looked at now, whatever came of it the last time.
    fn at_once(&mut self) {
        self.doubt = true;
        self.not_before = None;
        self.held = false;
    }

    /// Looks, and brings about what differs. A `thorough` look asks the node for its addresses, too.
    async fn look(&mut self, thorough: bool) {
        self.turns.turn(Loop::Follower);
        if self.config_file.changed() {
            self.config_file.reading();
            self.follow_config();
            self.at_once();
        }
        if self.ranges_file.changed() {
            self.ranges_file.reading();
            self.at_once();
        }
        self.doubt_policy(thorough).await;
        if !self.doubt || self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        self.doubt = false;
        let outcome = self.follow_policy().await;
        if !matches!(outcome, Ok(Outcome::Later)) {
            self.blocked = None;
            self.complaints
                .settle(WRITER_STANDS, "the list can be changed");
        }
        match outcome {
            Ok(Outcome::Done) => {
                self.complaints.settle("policy", "the files are in force");
                self.held = false;
                // With a config file that cannot be read, not all of them are.
                if !self.complaints.has("config") {
                    self.health.send_modify(|health| {
                        health.instead = None;
                        health.reloaded(None);
                    });
                }
            }
            // Somebody else is writing, or a change is on trial: a later look comes back to it.
            Ok(Outcome::Later) => {
                self.doubt = true;
                let since = *self.blocked.get_or_insert_with(Instant::now);
                if since.elapsed() > WRITER {
                    let error = Problem::failed(
                        "change list: another process has kept the writer's lock for a long time",
                        "`apifence ranges list` and `status` work; `fuser` on the lock names the process",
                    );
                    self.complaints.make(WRITER_STANDS, &error);
                }
            }
            Ok(Outcome::NoList | Outcome::OnTrial) => {}
            Err(error) => {
                self.failed(&error);
                self.doubt = true;
                self.not_before = Some(Instant::now() + PATIENCE);
            }
        }
        self.summarize();
    }

    /// Takes over what the config file says.
    fn follow_config(&mut self) {
        let loaded = Cli::from_arg_matches(&self.matches)
            .context("read flags")
            .and_then(|cli| settings::load(&cli, &self.matches));
        match loaded {
            Ok((config, file)) if file.wrong.is_empty() => {
                let own = [
                    *config.bpffs != *self.context.config.bpffs,
                    *config.state_dir != *self.context.config.state_dir,
                    *config.ranges_file != *self.context.config.ranges_file,
                    *config.metrics_listen != *self.context.config.metrics_listen,
                ];
                if own.contains(&true) {
                    say(
                        "note: `bpffs`, `state_dir`, `ranges_file` and `metrics_listen` are read when `run` starts: start it again",
                    );
                }
                (self.context.config, self.context.file) = (config, file);
                self.has_config = true;
                let wanted = Wanted::of(&self.context.config);
                self.wanted.send_if_modified(|before| {
                    let differs = *before != wanted;
                    *before = wanted;
                    differs
                });
                self.complaints
                    .settle("config", "the config file is in order");
            }
            Ok((_, file)) => {
                self.context.file = file;
                self.config_is_broken();
            }
            Err(error) => self.config_fails(&error),
        }
    }

    fn config_is_broken(&mut self) {
        let list = self.context.file.wrong.clone();
        self.config_fails(&Refusals { list }.into());
    }

    fn config_fails(&mut self, error: &anyhow::Error) {
        self.complaints.make("config", error);
        self.health
            .send_modify(|health| health.reloaded(Some(sentence(error))));
    }

    /// Notices what makes it necessary to compare the policy.
    async fn doubt_policy(&mut self, thorough: bool) {
        if thorough {
            // Nobody else may put others in their place meanwhile; that they are there is the guard's to see to.
            self.close_lost_maps();
        }
        let Some(maps) = self.open_maps() else {
            // The guard pins them again.
            self.doubt = true;
            return;
        };
        let Ok(standing) = maps.standing() else {
            return;
        };
        let record = maps.record(standing.slot()).ok();
        let generation = record.map_or(0, |record| record.generation);
        if (self.known.standing, self.known.generation) != (Some(standing), generation) {
            self.doubt = true;
        }
        if let Ok(now) = Moment::now()
            && (now.ahead() - self.known.ahead).abs() > SET_BY_HAND
        {
            self.doubt = true;
        }
        if let (Some(record), Ok(decapsulation)) = (record, self.decapsulation.look())
            && record.decapsulates != decapsulation.bits()
        {
            self.doubt = true;
        }
        if thorough
            && let Ok(node) = self.node().await
            && self.known.node.as_ref() != Some(&node)
        {
            self.doubt = true;
        }
    }

    /// The maps in use, kept open.
    fn open_maps(&mut self) -> Option<&Maps> {
        if self.open.is_none() {
            let place = Seen::of(&self.context.pins.maps());
            let maps = Maps::in_use(&self.context.pins).ok().flatten()?;
            self.open = Some((place, maps));
        }
        self.open.as_ref().map(|(_, maps)| maps)
    }

    /// Closes the maps if others are in their place.
    fn close_lost_maps(&mut self) {
        let place = Seen::of(&self.context.pins.maps());
        self.open.take_if(|(of, _)| *of != place);
    }

    /// Puts in force what the files say, if that is not what is in force.
    async fn follow_policy(&mut self) -> Result<Outcome> {
        let context = &self.context;
        let path = &context.global.ranges_file;
        // Before the lock: a disk that takes its time keeps no other writer out.
        let seen = Seen::of(path);
        let read = refuse_other_writers(path).and_then(|()| read_ranges(path));
        let Ok(_lock) = WriterLock::take_now(path, context.pins.root()) else {
            return Ok(Outcome::Later);
        };
        if Seen::of(path) != seen {
            return Ok(Outcome::Later);
        }
        let Some(mut maps) = Maps::in_use(&context.pins)? else {
            return Ok(Outcome::Later);
        };
        let fell_back = matches!(maps.standing()?, Standing::FellBack { .. });
        if let Some(waiting) = settle(context, &mut maps)? {
            if !self.known.on_trial() {
                say("note: a change is on trial: it waits for `apifence confirm`");
            }
            self.known.standing = Some(maps.standing()?);
            self.known.generation = maps.record(waiting.slot)?.generation;
            return Ok(Outcome::OnTrial);
        }
        let (slot, now) = (maps.in_force()?, Moment::now()?);
        let record = maps.record(slot)?;
        let file = match read? {
            Some(file) => file,
            // There never was one, and that was told at the start.
            None if Basis::of(record.basis) == Basis::Fresh => {
                self.known.standing = Some(maps.standing()?);
                self.known.generation = record.generation;
                return Ok(Outcome::NoList);
            }
            None => {
                return Err(Problem::failed(
                    format!("read ranges file `{}`: no such file", path.display()),
                    "the list in force stays in force; `apifence ranges set CIDR,...` writes a new one",
                ));
            }
        };
        let list = file.list();
        let have = maps.settings(slot).ok();
        let want = match (&have, Basis::of(record.basis)) {
            (Some(have), _) if !self.has_config => context.config.over(have, false),
            (have, Basis::Files | Basis::LastInForce) => context.settings(have.as_ref()),
            // What was not asked for does not stay.
            _ => context.config.settings(),
        };
        let node = self.node().await?;
        let set = (now.ahead() - self.known.ahead).abs() > SET_BY_HAND;
        let changes = have.map(|have| want.changes_from(&have));
        let mut reasons = Vec::new();
        if record.list != list.digest() {
            reasons.push("the list");
        }
        if changes.as_ref().is_none_or(|changes| !changes.is_empty()) {
            reasons.push("the settings");
        }
        if self.has_config && Basis::of(record.basis) != Basis::Files && reasons.is_empty() {
            reasons.push("what the policy is made from");
        }
        if (record.mode == Mode::Off as u8) != (list == List::Off) {
            reasons.push("whether it is enforced");
        }
        if want.node_addresses && self.known.node.as_ref() != Some(&node) {
            reasons.push("the node's addresses");
        }
        if record.decapsulates != self.decapsulation.look()?.bits() {
            reasons.push("what the node takes out of other packets");
        }
        let expires = list.entries().iter().any(|entry| entry.expires.is_some());
        if set && expires {
            reasons.push("the clock, and expiries with it");
        }
        // What nobody confirmed must not come back by the files: whoever is locked out by it has nothing but that.
        self.held |= fell_back;
        let other = record.list != list.digest() || record.mode == Mode::Off as u8;
        if self.held && other && !reasons.is_empty() {
            return Err(Problem::failed(
                "follow ranges file: a change on trial was not confirmed, and the file says another list than the one that returned",
                "`apifence ranges reload` puts the file in force, and so does `systemctl reload apifence`",
            ));
        }
        let applies = !reasons.is_empty();
        if applies {
            examine(&list, want.max_ranges)?;
            changes.iter().flatten().for_each(say);
            let guarded = self.health.borrow().guarded.clone();
            let mut policy = policy(&self.net, &list, &want, &guarded).await?;
            if !self.has_config {
                policy.basis = Basis::of(record.basis);
            }
            look(&self.net, Some(&maps), &policy)
                .await?
                .lines()
                .iter()
                .for_each(say);
            maps.expect_change()?;
            let staging = Staging {
                policy: &policy,
                file: None,
                kept: keep(context, &file, &want, self.has_config),
                within: None,
            };
            put_in_force(&mut maps, staging, &Progress::start(), |_, _| Ok(()))?;
            say(format_args!(
                "{} changed: in force: {}",
                reasons.join(" and "),
                in_words(&list)
            ));
            History::of(path).record();
            clear_up(&mut maps);
        } else {
            if self.known.generation != record.generation {
                keep_in_force(context, &maps);
            }
            if let Some(news) = self.known.news(record.generation) {
                say(format_args!("{news}: {}", in_words(&list)));
            }
        }
        self.known = Known {
            standing: Some(maps.standing()?),
            generation: maps.record(maps.in_force()?)?.generation,
            node: Some(node),
            // Small steps add up as long as expiries go by an older one.
            ahead: if applies || !expires {
                now.ahead()
            } else {
                self.known.ahead
            },
        };
        Ok(Outcome::Done)
    }

    /// The node's own addresses, as far as they are authorized.
    async fn node(&self) -> Result<Vec<IpNet>> {
        let guarded = self.health.borrow().guarded.clone();
        self.net.node_addresses(&guarded).await
    }

    /// Says what an operator should know, each once.
    pub(super) async fn warn(&mut self) {
        let Ok(warnings) = warnings(&self.context, &self.net).await else {
            return;
        };
        let now: BTreeSet<Warning> = warnings.into_iter().collect();
        for warning in now.difference(&self.warned) {
            say(warning);
        }
        self.warned = now;
    }

    /// Tells the service manager what is in force, in a line.
    fn summarize(&mut self) {
        let record = self
            .open_maps()
            .and_then(|maps| maps.steadily(|slot| maps.record(slot)).ok());
        let in_force = || record.map(|record| format!("generation {} in force", record.generation));
        let complaint = self.complaints.first().map(str::to_owned);
        let summary = complaint
            .or_else(|| self.health.borrow().drift.clone())
            .or_else(|| self.health.borrow().instead.clone())
            .or_else(in_force)
            .unwrap_or_else(|| "nothing is in force".to_owned());
        self.health.send_if_modified(|health| {
            let differs = health.summary != summary;
            health.summary = summary;
            differs
        });
    }

    /// The policy could not be made what the files say.
    fn failed(&mut self, error: &anyhow::Error) {
        let sentence = sentence(error);
        self.health
            .send_modify(|health| health.reloaded(Some(sentence)));
        self.complaints.make("policy", error);
    }
}

/// What came of following the files.
enum Outcome {
    /// What they say is in force.
    Done,
    /// A change waits for its confirmation.
    OnTrial,
    /// There is none to follow, and never was.
    NoList,
    /// It is not the moment.
    Later,
}

fn in_words(list: &List) -> String {
    match list {
        List::Off => "enforcement is off, everyone passes".to_owned(),
        List::Ranges(entries) => format!("{} in the list", entries.len()),
    }
}
