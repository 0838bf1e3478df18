//! What `run` keeps true: what the files, the node and its interfaces say is what packets meet.
//!
//! One look compares what is there with what is wanted, and brings about the difference; whatever the occasion, it is the same look. What
//! cannot be brought about is said once, and tried again at the next occasion.

mod complaints;
mod interfaces;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{ArgMatches, FromArgMatches as _};
use filter_common::Mode;
use ipnet::IpNet;
use tokio::sync::watch;

use self::complaints::{Complaints, sentence};
use super::{
    Context,
    attach::guard,
    change::{clear_up, put_in_force},
    leap::look,
    policy::{examine, policy, typed_for_service},
    settings,
    settle::settle,
};
use crate::{
    cli::{ChangeArgs, Cli, PolicyArgs},
    clock::Moment,
    datapath::{LogLines, Maps, Program, Standing},
    metrics::Health,
    net::Net,
    output::say,
    problem::Problem,
    progress::Progress,
    ranges::List,
    state::{Followed, History, WatchLock, WriterLock, read_ranges},
    warnings::Facts,
};

/// How far the clocks may drift apart before somebody must have set one, in nanoseconds.
const SET_BY_HAND: i128 = 1_000_000_000;
/// How long until what failed is tried again though nothing happened.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until an interface that could not be guarded is tried again though nothing happened.
const PAUSE: Duration = Duration::from_secs(1);

/// The one who keeps it true.
pub(super) struct Watch<'a> {
    /// With the settings as the config file says them now.
    context: Context,
    matches: &'a ArgMatches,
    net: Net,
    health: watch::Sender<Health>,
    lock: WatchLock,
    config_file: Followed,
    ranges_file: Followed,
    /// What the policy in force was made from, as far as it was looked at.
    known: Known,
    /// Whether the policy is to be compared with what is wanted.
    doubt: bool,
    /// When a policy that could not be put in force is tried again, if nothing happens before.
    not_before: Option<Instant>,
    /// The same for interfaces.
    no_interface_before: Option<Instant>,
    /// Whether a trial was not confirmed, and what the files say is not what returned: it waits for somebody to touch them.
    held: bool,
    complaints: Complaints,
    warned: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// The program that was loaded last, if it logs.
    pub(super) logging: Option<LogLines>,
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

impl<'a> Watch<'a> {
    /// Puts the policy in force and guards the interfaces. If that fails, but a filter is there from before, it stays, and this goes on
    /// from there.
    pub(super) async fn start(
        context: &Context,
        args: &PolicyArgs,
        matches: &'a ArgMatches,
        health: watch::Sender<Health>,
    ) -> Result<Self> {
        context.pins.prepare()?;
        let lock = WatchLock::take(&context.pins.watch())?;
        let mut watch = Self {
            context: context.clone(),
            matches,
            net: Net::open()?,
            health,
            lock,
            config_file: Followed::new((*context.file.path).into()),
            ranges_file: Followed::new(context.global.ranges_file.clone()),
            known: Known::default(),
            doubt: true,
            not_before: None,
            no_interface_before: None,
            held: false,
            complaints: Complaints::default(),
            warned: BTreeSet::new(),
            missing: BTreeSet::new(),
            logging: None,
        };
        let verb = "attach filter to";
        let interfaces = match watch.net.choose(verb, &context.config.interfaces).await {
            // One that is not there is waited for.
            Err(_) if watch.is_guarded() => watch.wanted().await?,
            chosen => chosen?,
        };
        let (typed, log) = (typed_for_service(args), context.global.verbose);
        match guard(context, interfaces, typed, &unattended(), log).await {
            Ok((_, program)) => {
                watch.attached(program)?;
                watch.known.node = Some(watch.node().await?);
                watch.known.ahead = Moment::now()?.ahead();
            }
            // A list that was typed is to be in force, or the start has failed: nobody would type it again.
            Err(error) if typed.is_none() && watch.is_guarded() => watch.failed(&error),
            Err(error) => return Err(error),
        }
        watch.tell_interfaces().await?;
        watch.health.send_modify(|health| health.started = true);
        watch.warn().await;
        Ok(watch)
    }

    /// Lets readiness know what is to be guarded: what the settings name, whether it is there or not.
    async fn tell_interfaces(&mut self) -> Result<()> {
        let mut names = self.context.config.interfaces.to_vec();
        if names.is_empty() {
            let wanted = self.wanted().await?.into_iter();
            names = wanted.map(|interface| interface.name).collect();
        }
        self.health.send_modify(|health| health.interfaces = names);
        Ok(())
    }

    /// Whether a filter from before is there.
    fn is_guarded(&self) -> bool {
        let pins = &self.context.pins;
        pins.interfaces().is_ok_and(|found| !found.is_empty())
            && matches!(Maps::in_use(pins), Ok(Some(_)))
    }

    /// Reads both files again, changed or not.
    pub(super) async fn reload(&mut self) {
        self.config_file.reading();
        self.ranges_file.reading();
        self.follow_config().await;
        self.at_once();
        self.look(true).await;
    }

    /// The files are to be looked at now, whatever came of it the last time.
    fn at_once(&mut self) {
        self.doubt = true;
        self.not_before = None;
        self.held = false;
    }

    /// Looks, and brings about what differs. A `thorough` look asks the node for its interfaces and addresses, too.
    pub(super) async fn look(&mut self, thorough: bool) {
        if self.config_file.changed() {
            self.config_file.reading();
            self.follow_config().await;
            self.at_once();
        }
        if self.ranges_file.changed() {
            self.ranges_file.reading();
            self.at_once();
        }
        let unguarded = self.doubt_policy(thorough).await || !self.links_hold();
        let rested = self
            .no_interface_before
            .is_none_or(|time| Instant::now() >= time);
        if thorough || unguarded && rested {
            let done = self.guard_interfaces().await;
            self.no_interface_before = done.is_err().then(|| Instant::now() + PAUSE);
            self.outcome("interfaces", done, "every interface is guarded");
        }
        if self.doubt && self.not_before.is_none_or(|time| Instant::now() >= time) {
            self.doubt = false;
            match self.follow_policy().await {
                Ok(Outcome::Done) => {
                    self.complaints.settle("policy", "the files are in force");
                    self.held = false;
                    // With a config file that cannot be read, not all of them are.
                    if !self.complaints.has("config") {
                        self.health.send_modify(|health| health.reloaded(None));
                    }
                }
                // Somebody else is writing, or a change is on trial: a later look comes back to it.
                Ok(Outcome::Later) => self.doubt = true,
                Ok(Outcome::OnTrial) => {}
                Err(error) => {
                    self.failed(&error);
                    self.doubt = true;
                    self.not_before = Some(Instant::now() + PATIENCE);
                }
            }
        }
    }

    /// Takes over what the config file says.
    async fn follow_config(&mut self) {
        let loaded = Cli::from_arg_matches(self.matches)
            .context("read flags")
            .and_then(|cli| settings::load(&cli, self.matches));
        match loaded {
            Ok((config, file)) => {
                if *config.bpffs != *self.context.config.bpffs
                    || *config.ranges_file != *self.context.config.ranges_file
                    || *config.metrics_listen != *self.context.config.metrics_listen
                {
                    say(
                        "note: `bpffs`, `ranges_file` and `metrics_listen` are read when `run` starts: start it again",
                    );
                }
                (self.context.config, self.context.file) = (config, file);
                self.complaints
                    .settle("config", "the config file is in order");
                let told = self.tell_interfaces().await;
                self.outcome("interfaces", told, "every interface is guarded");
            }
            Err(error) => {
                self.complaints.make("config", &error);
                self.health
                    .send_modify(|health| health.reloaded(Some(sentence(&error))));
            }
        }
    }

    /// Notices what makes it necessary to compare the policy; returns whether its maps are lost.
    async fn doubt_policy(&mut self, thorough: bool) -> bool {
        let Ok(Some(maps)) = Maps::in_use(&self.context.pins) else {
            self.doubt = true;
            return true;
        };
        let Ok(standing) = maps.standing() else {
            return false;
        };
        let generation = maps
            .record(standing.slot())
            .map_or(0, |record| record.generation);
        if (self.known.standing, self.known.generation) != (Some(standing), generation) {
            self.doubt = true;
        }
        if let Ok(now) = Moment::now()
            && (now.ahead() - self.known.ahead).abs() > SET_BY_HAND
        {
            self.doubt = true;
        }
        if thorough
            && let Ok(node) = self.node().await
            && self.known.node.as_ref() != Some(&node)
        {
            self.doubt = true;
        }
        false
    }

    /// Puts in force what the files say, if that is not what is in force.
    async fn follow_policy(&mut self) -> Result<Outcome> {
        let context = &self.context;
        let path = &context.global.ranges_file;
        let Ok(_lock) = WriterLock::take_now(path, context.pins.root()) else {
            return Ok(Outcome::Later);
        };
        // Without maps `guard_interfaces` makes all anew.
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
        let file = read_ranges(path)?
            .with_context(|| format!("read ranges file `{}`: no such file", path.display()))?;
        let list = file.list();
        let want = context.config.settings();
        let (slot, now) = (maps.in_force()?, Moment::now()?);
        let record = maps.record(slot)?;
        let node = self.node().await?;
        let set = (now.ahead() - self.known.ahead).abs() > SET_BY_HAND;
        let mut reasons = Vec::new();
        if record.list != list.digest() {
            reasons.push("the list");
        }
        if maps.settings(slot).ok().as_ref() != Some(&want) {
            reasons.push("the settings");
        }
        if (record.mode == Mode::Off as u8) != (list == List::Off) {
            reasons.push("whether it is enforced");
        }
        if want.node_addresses && self.known.node.as_ref() != Some(&node) {
            reasons.push("the node's addresses");
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
            let policy = policy(&self.net, &list, &want).await?;
            look(&self.net, Some(&maps), &policy)
                .await?
                .lines()
                .iter()
                .for_each(say);
            maps.expect_change()?;
            put_in_force(
                &mut maps,
                &policy,
                None,
                None,
                &Progress::start(),
                |_, _| Ok(()),
            )?;
            say(format_args!(
                "{} changed: in force: {}",
                reasons.join(" and "),
                in_words(&list)
            ));
            History::of(path).record();
            clear_up(&mut maps);
        } else if let Some(news) = self.known.news(record.generation) {
            say(format_args!("{news}: {}", in_words(&list)));
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

    /// The node's own addresses, if they are authorized.
    async fn node(&self) -> Result<Vec<IpNet>> {
        self.net.node_addresses().await
    }

    /// Reads what `program` logs, from now on.
    fn attached(&mut self, program: Option<Program>) -> Result<()> {
        if let (true, Some(program)) = (self.context.global.verbose, program) {
            self.logging = Some(LogLines::open(program)?);
        }
        Ok(())
    }

    /// Says what an operator should know, each once.
    pub(super) async fn warn(&mut self) {
        let ports = self.context.config.settings().ports;
        let (Ok(facts), Ok(pinned)) = (
            Facts::gather(&self.net, &ports).await,
            self.context.pins.interfaces(),
        ) else {
            return;
        };
        let now: BTreeSet<String> = facts
            .warnings(&ports, &pinned.into_iter().collect())
            .into_iter()
            .collect();
        for warning in now.difference(&self.warned) {
            say(format_args!("warning: {warning}"));
        }
        self.warned = now;
    }

    /// What is in force, in a line for the service manager.
    pub(super) fn summary(&self) -> String {
        if let Some(complaint) = self.complaints.first() {
            return complaint.to_owned();
        }
        let sources = || {
            let maps = Maps::in_use(&self.context.pins).ok()??;
            let record = maps.steadily(|slot| maps.record(slot)).ok()?;
            Some(format!("generation {} in force", record.generation))
        };
        sources().unwrap_or_else(|| "nothing is in force".to_owned())
    }

    /// The policy could not be made what the files say.
    fn failed(&mut self, error: &anyhow::Error) {
        let sentence = sentence(error);
        self.health
            .send_modify(|health| health.reloaded(Some(sentence)));
        self.complaints.make("policy", error);
    }

    /// What is not needed to keep the filter true failed, or did not.
    pub(super) fn aside(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.complaints.settle("log", "the log is written"),
            Err(error) => self.complaints.make("log", &error),
        }
    }

    fn outcome(&mut self, matter: &'static str, outcome: Result<()>, order: &str) {
        match outcome {
            Ok(()) => {
                self.complaints.settle(matter, order);
                self.health.send_modify(|health| health.drift = None);
            }
            Err(error) => {
                self.complaints.make(matter, &error);
                let drift = sentence(&error);
                self.health.send_modify(|health| health.drift = Some(drift));
            }
        }
    }
}

/// What came of following the files.
enum Outcome {
    /// What they say is in force.
    Done,
    /// A change waits for its confirmation.
    OnTrial,
    /// It is not the moment.
    Later,
}

/// Nobody is there to insist, and a service must come up.
fn unattended() -> ChangeArgs {
    ChangeArgs {
        force: true,
        ..ChangeArgs::default()
    }
}

fn in_words(list: &List) -> String {
    match list {
        List::Off => "enforcement is off, everyone passes".to_owned(),
        List::Ranges(entries) => format!("{} in the list", entries.len()),
    }
}
