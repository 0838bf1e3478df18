//! The policy in force is held against what the files say.

use std::{cmp::Ordering, path::Path};

use anyhow::Result;
use filter_common::{
    Mode,
    layout::{Basis, Trial},
};
use ipnet::IpNet;

use super::{
    news,
    state::{Follower, Known},
    trial::{self, Way},
};
use crate::{
    change::{
        build::{examine, keep_in_force, policy},
        first::unclear,
        impact::assess,
        recovery::{Waiting, recover},
        transaction::{Transaction, clear_up},
    },
    clock::Clocks,
    config::{PolicyMode, Settings},
    kernel::{
        bpf::{Maps, PolicyState},
        net::rtnetlink,
    },
    policy::author::Author,
    ranges::{List, RangesFile},
    store::{
        FileStamp, History, PolicyMark, PolicyStore, TrialStore, WriterLock, read_ranges,
        refuse_other_writers,
    },
    ui::{error::UserError, output::say, progress::Progress},
};

/// How far the clocks may drift apart before somebody must have set one, in nanoseconds.
const SET_BY_HAND: i128 = 1_000_000_000;

/// What may differ, and is told in words of its own.
const LIST: &str = "the list";
const SETTINGS: &str = "the settings";
const ADDRESSES: &str = "the node's addresses";
const ENFORCED: &str = "whether it is enforced";

/// What came of following the files.
pub(crate) enum Outcome {
    /// What they say is in force.
    Done,
    /// A change waits for its confirmation.
    OnTrial,
    /// There is none to follow, and never was.
    NoList,
    /// It is not the moment.
    Later,
}

impl Follower {
    /// Notices what makes it necessary to compare the policy.
    pub(crate) fn mark_dirty(&mut self, thorough: bool) {
        if thorough {
            // Nobody else may put others in their place meanwhile; that they are there is the guard's to see to.
            self.close_lost_maps();
        }
        let Some(maps) = self.open_maps() else {
            // The guard pins them again.
            self.dirty = true;
            return;
        };
        let Ok(standing) = maps.standing() else {
            return;
        };
        let record = maps.record(standing.slot()).ok();
        let generation = record.map_or(0, |record| record.generation);
        if (self.known.standing, self.known.generation) != (Some(standing), generation) {
            self.dirty = true;
        }
        if let Ok(now) = Clocks::now()
            && (now.wall_minus_boot() - self.known.ahead).abs() > SET_BY_HAND
        {
            self.dirty = true;
        }
        if let (Some(record), Ok(decapsulation)) = (record, self.decapsulation.look())
            && record.decapsulates != decapsulation.bits()
        {
            self.dirty = true;
        }
        if thorough
            && let Ok(node) = self.node()
            && self.known.node.as_ref() != Some(&node)
        {
            self.dirty = true;
        }
    }

    /// The maps in use, kept open.
    pub(crate) fn open_maps(&mut self) -> Option<&Maps> {
        if self.open.is_none() {
            let place = FileStamp::of(&self.context.pins.maps());
            let maps = Maps::in_use(&self.context.pins).ok().flatten()?;
            self.open = Some((place, maps));
        }
        self.open.as_ref().map(|(_, maps)| maps)
    }

    /// Closes the maps if others are in their place.
    pub(crate) fn close_lost_maps(&mut self) {
        let place = FileStamp::of(&self.context.pins.maps());
        self.open.take_if(|(of, _)| *of != place);
    }

    /// Puts in force what the files say, if that is not what is in force.
    pub(crate) fn follow_policy(&mut self) -> Result<Outcome> {
        let context = &self.context;
        let path = &context.global.ranges_file;
        // Before the lock: a disk that takes its time keeps no other writer out.
        let seen = FileStamp::of(path);
        let read = refuse_other_writers(path).and_then(|()| read_ranges(path));
        let Some(_lock) = WriterLock::take_now(path, context.pins.root())? else {
            return Ok(Outcome::Later);
        };
        if FileStamp::of(path) != seen {
            return Ok(Outcome::Later);
        }
        let Some(mut maps) = Maps::in_use(&context.pins)? else {
            return Ok(Outcome::Later);
        };
        let fell_back = matches!(maps.standing()?, PolicyState::RolledBack { .. });
        if let Some(waiting) = recover(context, &mut maps)? {
            let file = read.as_ref().ok().and_then(Option::as_ref);
            let again = match file.map(RangesFile::list) {
                Some(list) if self.has_config => {
                    let have = maps.settings(waiting.slot.other()).ok();
                    let want = context.settings(have.as_ref());
                    trial::is_edited_again(&maps, &waiting, &list, &want)?
                }
                _ => false,
            };
            if !again {
                if !self.known.on_trial() {
                    self.tell_trial(&maps, &waiting);
                }
                self.known.standing = Some(maps.standing()?);
                self.known.generation = maps.record(waiting.slot)?.generation;
                return Ok(Outcome::OnTrial);
            }
            say("note: the files were edited again: the edit on trial is taken back");
            maps.select(waiting.slot.other())?;
            self.tried = None;
            self.known = Known {
                node: self.known.node.take(),
                ahead: self.known.ahead,
                ..Known::default()
            };
        }
        let (slot, now) = (maps.active_slot()?, Clocks::now()?);
        let record = maps.record(slot)?;
        let is_over = self.known.on_trial() && record.generation < self.known.generation;
        if self.known.on_trial() {
            say(match record.generation.cmp(&self.known.generation) {
                Ordering::Less => {
                    "note: the change on trial is over: what was before is in force again"
                }
                Ordering::Equal => "note: the change on trial was confirmed",
                Ordering::Greater => "note: the change on trial is over, and another one was made",
            });
            self.known.standing = Some(maps.standing()?);
            // Another change is news.
            self.known.generation = self.known.generation.min(record.generation);
        }
        if fell_back || is_over {
            // What nobody confirmed must not come back by the files: whoever is locked out by it has nothing but that.
            (self.hold_after_rollback, self.asked, self.touched) = (true, false, false);
        }
        let file = match read? {
            Some(file) => file,
            // There never was one, and that was told at the start.
            None if Basis::of(record.basis) == Basis::Fresh => {
                self.known.standing = Some(maps.standing()?);
                self.known.generation = record.generation;
                return Ok(Outcome::NoList);
            }
            None => {
                return Err(UserError::failed(
                    format!("read ranges file `{}`: no such file", path.display()),
                    "the list in force stays in force; `apifence ranges set CIDR,...` writes a new one",
                ));
            }
        };
        let list = file.list();
        let have = maps.settings(slot).ok();
        let mut want = match (&have, Basis::of(record.basis)) {
            (Some(have), _) if !self.has_config => context.config.over(have, false),
            (have, Basis::Files | Basis::LastInForce | Basis::DefaultSettings) => {
                context.settings(have.as_ref())
            }
            // What was not asked for does not stay.
            _ => context.config.settings(),
        };
        let enforces = record.mode == Mode::Enforce as u8;
        let first = self.first(&list, &want, enforces)?;
        if let Some(first) = &first {
            if self.health.borrow().instead.as_ref() != Some(first) {
                say(format_args!("warning: {first}"));
            }
            (want.mode, want.mode_waits) = (PolicyMode::Monitor, true);
        }
        let waited = have.as_ref().is_some_and(|have| have.mode_waits);
        let node = self.node()?;
        let set = (now.wall_minus_boot() - self.known.ahead).abs() > SET_BY_HAND;
        let changes = have.as_ref().map(|have| want.changes_from(have));
        let mark = PolicyMark::new(list.digest(), &want);
        let mut reasons = Vec::new();
        if record.list != list.digest() {
            reasons.push(LIST);
        }
        let differ = changes.as_ref().is_none_or(|changes| !changes.is_empty());
        if differ || waited != want.mode_waits {
            reasons.push(SETTINGS);
        }
        // That settings were lost has to be seen by somebody, who asks for the files then.
        let stays = Basis::of(record.basis) == Basis::DefaultSettings && !self.asked;
        let is_of_files = stays || Basis::of(record.basis) == Basis::Files;
        if self.has_config && !is_of_files && reasons.is_empty() {
            reasons.push("what the policy is made from");
        }
        if (record.mode == Mode::Off as u8) != (list == List::Off) {
            reasons.push(ENFORCED);
        }
        if want.node_addresses && self.known.node.as_ref() != Some(&node) {
            reasons.push(ADDRESSES);
        }
        if record.decapsulates != self.decapsulation.look()?.bits() {
            reasons.push("what the node takes out of other packets");
        }
        let expires = list.entries().iter().any(|entry| entry.expires.is_some());
        if set && expires {
            reasons.push("the clock, and expiries with it");
        }
        // Who writes the same once more has not edited anything.
        let store = TrialStore::new(&context.config.state_dir);
        let was_tried = self.tried.as_ref() == Some(&mark) || store.is_open(&mark);
        self.hold_after_rollback |= was_tried && !self.asked;
        let other = record.list != list.digest()
            || record.mode == Mode::Off as u8
            || changes.as_ref().is_none_or(|changes| !changes.is_empty());
        if self.hold_after_rollback && other && !reasons.is_empty() {
            return Err(UserError::failed(
                "follow files: a change on trial was not confirmed, and the files say something else than what returned",
                "edit them again, or `systemctl reload apifence`, to put them in force; `apifence ranges rollback 1` puts the list in force back into the file",
            ));
        }
        let applies = !reasons.is_empty();
        if applies {
            examine(&list, want.max_ranges)?;
            let guarded = self.health.borrow().guarded.clone();
            let mut policy = policy(&list, &want, &guarded)?;
            if !self.has_config || stays {
                policy.basis = Basis::of(record.basis);
            }
            policy.by = if record.list != list.digest() {
                Author::of_edit(path)
            } else if reasons.contains(&SETTINGS) {
                Author::of_edit(Path::new(&context.file.path))
            } else {
                // Nobody asked for anything else.
                let by = maps.author(slot).ok().flatten();
                by.unwrap_or_else(Author::of_this_process)
            };
            let impact = assess(context, Some(&maps), &policy, &guarded)?;
            let way = if other {
                trial::way(&context.config, &impact, &mark)?
            } else {
                Way::Apply
            };
            impact.lines(false).iter().for_each(say);
            let within = match way {
                Way::Apply => None,
                Way::Trial(within) => Some(within),
            };
            if within.is_some() {
                trial::begun(&context.config, &mark);
                self.tried = Some(mark);
                // If it is not confirmed either, that is news.
                self.alerts.clear("policy", "the files are on trial");
            }
            let change = Transaction {
                saves: (!stays).then_some(&file),
                names_interfaces: self.has_config,
                within,
                trial: Trial::Edited,
                ..Transaction::begin(context, &maps, &policy)?
            };
            let put = change.put_in_force(&mut maps, &Progress::start());
            if put.is_err() && within.is_some() {
                // It never was on trial: it is tried again, and not taken for an edit that nobody confirmed.
                self.tried = None;
                trial::settled(&context.config);
            }
            put?;
            let changes = changes.unwrap_or_default();
            news::applied(path, &record, &list, policy.sources(), &changes);
            // A first look cannot know whether addresses changed, and what became of the list is told.
            let is_first = self.known.node.is_none() && reasons.contains(&ADDRESSES);
            let is_told = |reason: &str| match reason {
                LIST | SETTINGS => true,
                ADDRESSES => is_first,
                ENFORCED => record.list != list.digest(),
                _ => false,
            };
            reasons.retain(|reason| !is_told(reason));
            let what = match (reasons.as_slice(), is_first) {
                ([], false) => None,
                ([], true) => Some("the files and the node's addresses are read".to_owned()),
                (reasons, _) => Some(format!("{} changed", reasons.join(" and "))),
            };
            if let Some(what) = what {
                let entries = list.entries().len();
                say(format_args!(
                    "note: {what}: in force: {entries} in the list"
                ));
            }
            self.touched = false;
            if within.is_some() {
                self.asked = false;
                self.known.standing = Some(maps.standing()?);
                self.known.generation = maps.record(maps.active_slot()?)?.generation;
                return Ok(Outcome::OnTrial);
            }
            History::of(path).record(&policy.by);
            clear_up(&mut maps);
        } else {
            let now = news::PolicySnapshot {
                list: list.clone(),
                settings: have.clone(),
            };
            if self.known.generation != record.generation {
                keep_in_force(context, &maps);
            }
            let by = maps.author(slot).ok().flatten();
            self.known.report_news(record.generation, by, &now);
            // Comments may have been edited, which makes no difference to packets.
            if self.known.standing.is_some() && History::of(path).is_edited() {
                History::of(path).record(&Author::of_edit(path));
            }
        }
        self.asked = false;
        self.touched = false;
        self.tried = None;
        if first.is_none() {
            trial::settled(&context.config);
        }
        self.known = Known {
            basis: Basis::of(maps.record(maps.active_slot()?)?.basis),
            standing: Some(maps.standing()?),
            generation: maps.record(maps.active_slot()?)?.generation,
            node: Some(node),
            seen: Some(news::PolicySnapshot {
                list,
                settings: Some(want),
            }),
            first,
            // Small steps add up as long as expiries go by an older one.
            ahead: if applies || !expires {
                now.wall_minus_boot()
            } else {
                self.known.ahead
            },
        };
        Ok(Outcome::Done)
    }

    /// Says what somebody else put on trial.
    fn tell_trial(&self, maps: &Maps, waiting: &Waiting) {
        // A trial of settings alone brings no list.
        let list = waiting.pending.read().map(|file| file.list()).ok();
        let seen = self.known.seen.as_ref();
        if let Some(list) = list.or_else(|| seen.map(|seen| seen.list.clone())) {
            let settings = maps.settings(waiting.slot).ok();
            let by = maps.author(waiting.slot).ok().flatten();
            news::of_others(by, seen, &news::PolicySnapshot { list, settings });
        }
        say("note: a change is on trial: it waits for `apifence confirm`");
    }

    /// Why the files are not enforced yet, if `list` under `want` would be the first that is;
    /// `enforces` tells whether the policy in force is.
    fn first(&self, list: &List, want: &Settings, enforces: bool) -> Result<Option<String>> {
        let store = PolicyStore::new(&self.context.config.state_dir);
        if enforces || want.mode != PolicyMode::Enforce || store.has_enforced() {
            return Ok(None);
        }
        let guarded = self.health.borrow().guarded.clone();
        let policy = policy(list, want, &guarded)?;
        let unclear = unclear(&self.context, &policy, &guarded, None)?;
        Ok(unclear.map(|unclear| unclear.instead()))
    }

    /// The node's own addresses, as far as they are authorized.
    fn node(&self) -> Result<Vec<IpNet>> {
        let guarded = self.health.borrow().guarded.clone();
        rtnetlink::node_addresses(&guarded)
    }
}
