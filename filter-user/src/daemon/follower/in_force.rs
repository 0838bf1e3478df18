//! The policy in force is compared with the files, and the difference is removed.

use std::{cmp::Ordering, time::Duration};

use anyhow::Result;
use filter_common::layout::{Basis, PolicyRecord, Trial};

use super::{
    cluster::WAITING,
    drift::{ADDRESSES, CLUSTER, Drift, InForce, SET_BY_HAND, WantedPolicy},
    edited::{author, edited_file},
    messages,
    seen::SeenLists,
    state::{Follower, KnownPolicy},
    trial,
};
use crate::{
    change::{
        build::{
            examine, examine_guards, known_lists, policy, record_history, save_policy_in_force,
        },
        guarded::guard_changes,
        impact::assess,
        recovery::{Waiting, recover},
        transaction::{Transaction, clean_up},
    },
    clock::Clocks,
    daemon::alerts::sentence,
    kernel::bpf::{Maps, PolicyState, Slot},
    policy::author::Author,
    ranges::{ListName, Lists, in_ranges},
    store::{FileStamp, History, PolicyMark, ReadLists, TrialStore, WatchedLists, WriterLock},
    ui::{error::UserError, output::eprint, progress::Progress},
};

/// How long files may keep changing while they are read, before they are read under the lock, where
/// that makes no difference any more.
const MAX_CHANGING: Duration = Duration::from_secs(1);

/// The result of following the files.
pub(crate) enum Outcome {
    /// The files are in force.
    Done,
    /// A change waits for its confirmation.
    OnTrial,
    /// There is no list to follow, and never was.
    NoList,
    /// Another process is writing: a later attempt follows.
    Later,
}

impl Follower {
    /// Notices events after which the policy has to be compared with the files.
    pub(crate) fn mark_dirty(&mut self, thorough: bool) {
        if thorough {
            // Another process may have replaced them; the guard restores lost ones.
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
        if (self.known.state, self.known.generation) != (Some(standing), generation) {
            self.dirty = true;
        }
        if let Ok(now) = Clocks::now()
            && (now.wall_minus_boot() - self.known.wall_minus_boot).abs() > SET_BY_HAND
        {
            self.dirty = true;
        }
        if let (Some(record), Ok(decapsulation)) = (record, self.decapsulation.read())
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

    /// Puts the files in force, if they differ from the policy in force.
    pub(crate) fn follow_policy(&mut self) -> Result<Outcome> {
        let path = &self.context.global.ranges_file;
        // Before the lock: a slow disk keeps no other writer out.
        let mut files = WatchedLists::new(self.context.list_files());
        let mut cluster_files = WatchedLists::of_cluster(self.context.list_files());
        let mut read = self.context.read_lists();
        let mut cluster = self.context.read_cluster(ListName::all_of_cluster());
        let Some(_lock) = WriterLock::take_now(path, self.context.pins.root())? else {
            return Ok(Outcome::Later);
        };
        if files.differ() || cluster_files.differ() {
            if self
                .blocked
                .is_none_or(|since| since.elapsed() < MAX_CHANGING)
            {
                return Ok(Outcome::Later);
            }
            // A user who keeps changing a list must not hold up the others.
            read = self.context.read_lists();
            cluster = self.context.read_cluster(ListName::all_of_cluster());
        }
        let Some(mut maps) = Maps::in_use(&self.context.pins)? else {
            return Ok(Outcome::Later);
        };
        let fell_back = matches!(maps.standing()?, PolicyState::RolledBack { .. });
        let seen = read.as_ref().map(SeenLists::of).map_err(sentence);
        let outcome = self.follow_read(&mut maps, (read, &cluster), fell_back);
        self.note_seen(&maps, seen, &cluster);
        outcome
    }

    /// Puts the lists `read` and the files of the `cluster` in force, unless a change is on trial.
    fn follow_read(
        &mut self,
        maps: &mut Maps,
        (read, cluster): (Result<ReadLists>, &ReadLists),
        fell_back: bool,
    ) -> Result<Outcome> {
        if let Some(waiting) = recover(&self.context, maps)? {
            let lists = read.as_ref().ok().map(|read| &read.lists);
            if !self.roll_back_edit(maps, &waiting, lists)? {
                self.report_waiting(maps, waiting.slot, cluster);
                return Ok(Outcome::OnTrial);
            }
        }
        let have = InForce::read(maps)?;
        self.note_end_of_trial(maps, &have.record, fell_back)?;
        let outcome = self.follow_files(maps, &have, read, cluster);
        if matches!(outcome, Err(_) | Ok(Outcome::NoList)) {
            // A node that joins does not wait until the operator has corrected them.
            let followed = self.follow_implicit(maps, cluster);
            return outcome.and_then(|outcome| followed.map(|()| outcome));
        }
        outcome
    }

    /// Puts the lists `read`, the settings and the files of the `cluster` in force, if they differ
    /// from the policy in force.
    fn follow_files(
        &mut self,
        maps: &mut Maps,
        have: &InForce,
        read: Result<ReadLists>,
        cluster: &ReadLists,
    ) -> Result<Outcome> {
        let read = read?;
        self.report_lists(&read);
        let ReadLists { lists, faults, .. } = read;
        let is_whole = faults.is_empty();
        let is_saved = || self.context.last_good().digest() == have.record.list;
        let mut faults = faults.into_iter();
        if !is_whole && !is_saved() {
            // The disk has an older policy: its entries must not come back in place of a file.
            return faults
                .next()
                .map_or(Ok(Outcome::Later), |(_, error)| Err(error));
        }
        let broken = faults.find_map(|(name, error)| name.is_default().then_some(error));
        if lists.is_empty() && broken.is_none() {
            return self.missing_file(maps, have);
        }
        let is_broken = broken.is_some();
        let broken = match broken {
            // There is nothing to fall back to: what is in force stays.
            Some(error) if lists.get(&ListName::default()).is_none() => return Err(error),
            broken => broken,
        };
        let want = self.want(lists, &cluster.lists, have)?;
        self.report_cluster(cluster, &want.settings);
        let drift = self.drift(have, &want, is_broken)?;
        self.refuse_unconfirmed(&want.mark, &drift)?;
        let applies = !drift.reasons.is_empty();
        if !applies {
            self.note_other_author(maps, have, &want);
        } else if self.apply(maps, have, &want, &drift)? {
            self.reload_requested = false;
            self.note_generation(maps, maps.active_slot()?)?;
            return Ok(Outcome::OnTrial);
        }
        self.reload_requested = false;
        self.files_changed = false;
        self.last_trial = None;
        self.alerts
            .clear(WAITING, "the files of the cluster are in force");
        if want.deferral.is_none() {
            trial::close(&self.context.config);
        }
        self.remember(maps, have, want, applies)?;
        // The other lists are in force; a ranges file that cannot be used is told all the same.
        broken.map_or(Ok(Outcome::Done), Err)
    }

    /// The outcome without a ranges file.
    fn missing_file(&mut self, maps: &Maps, have: &InForce) -> Result<Outcome> {
        if have.basis() == Basis::Fresh {
            // There never was a file, and the start reported that.
            self.note_generation(maps, have.slot)?;
            return Ok(Outcome::NoList);
        }
        Err(UserError::failed(
            format!(
                "read ranges file `{}`: no such file",
                self.context.global.ranges_file.display()
            ),
            "the list stays in force; `apifence ranges set CIDR,...` writes a new file",
        ))
    }

    /// Remembers the policy `want`, which is in force now. `is_new` tells whether it was applied.
    fn remember(
        &mut self,
        maps: &Maps,
        have: &InForce,
        want: WantedPolicy,
        is_new: bool,
    ) -> Result<()> {
        // Small steps of the clock add up while the expiries are those of an older policy.
        let wall_minus_boot = match is_new || !want.expires() {
            true => have.now.wall_minus_boot(),
            false => self.known.wall_minus_boot,
        };
        let record = maps.record(maps.active_slot()?)?;
        self.known = KnownPolicy {
            basis: Basis::of(record.basis),
            state: Some(maps.standing()?),
            generation: record.generation,
            node: Some(want.node),
            cluster: Some(want.cluster.ranges()),
            policy: Some(messages::PolicySnapshot {
                list: want.list,
                settings: Some(want.settings),
            }),
            deferral: want.deferral,
            wall_minus_boot,
        };
        Ok(())
    }

    /// Takes the edit on trial back if the `lists` were edited again. Otherwise the change that
    /// waits keeps waiting, is reported once, and this is false.
    fn roll_back_edit(
        &mut self,
        maps: &mut Maps,
        waiting: &Waiting,
        lists: Option<&Lists>,
    ) -> Result<bool> {
        let is_edited_again = match lists {
            Some(lists) if self.has_config => {
                let have = maps.settings(waiting.slot.other()).ok();
                let want = self.context.settings(have.as_ref());
                trial::is_edited_again(maps, waiting, lists, &want)?
            }
            _ => false,
        };
        if !is_edited_again {
            if !self.known.on_trial() {
                self.report_trial(maps, waiting);
            }
            self.note_generation(maps, waiting.slot)?;
            return Ok(false);
        }
        eprint("note: the files were edited again: the edit on trial reverts");
        maps.select(waiting.slot.other())?;
        self.last_trial = None;
        self.known = KnownPolicy {
            node: self.known.node.take(),
            cluster: self.known.cluster.take(),
            wall_minus_boot: self.known.wall_minus_boot,
            ..KnownPolicy::default()
        };
        Ok(true)
    }

    /// Remembers the generation in `slot` as the one in force.
    pub(super) fn note_generation(&mut self, maps: &Maps, slot: Slot) -> Result<()> {
        self.known.state = Some(maps.standing()?);
        self.known.generation = maps.record(slot)?.generation;
        Ok(())
    }

    /// Reports that a trial has ended; `fell_back` tells that its deadline passed.
    fn note_end_of_trial(
        &mut self,
        maps: &Maps,
        record: &PolicyRecord,
        fell_back: bool,
    ) -> Result<()> {
        let mut is_over = fell_back;
        if self.known.on_trial() {
            let order = record.generation.cmp(&self.known.generation);
            is_over |= order == Ordering::Less;
            eprint(match order {
                Ordering::Less => {
                    "note: the change on trial reverted: the previous policy is in force"
                }
                Ordering::Equal => "note: the change on trial was confirmed",
                Ordering::Greater => "note: the change on trial ended with another change",
            });
            self.known.state = Some(maps.standing()?);
            // Another change is news.
            self.known.generation = self.known.generation.min(record.generation);
        }
        if is_over {
            // The files must not bring an unconfirmed edit back: the rollback is the only help for
            // an operator whom it locked out.
            (
                self.hold_after_rollback,
                self.reload_requested,
                self.files_changed,
            ) = (true, false, false);
        }
        Ok(())
    }

    /// Refuses files whose edit was on trial and was not confirmed, until the operator edits them
    /// or asks for them. A file that is written again with the same list is not an edit.
    fn refuse_unconfirmed(&mut self, mark: &PolicyMark, drift: &Drift) -> Result<()> {
        let store = TrialStore::new(&self.context.config.state_dir);
        let was_tried = self.last_trial.as_ref() == Some(mark) || store.is_open(mark);
        self.hold_after_rollback |= was_tried && !self.reload_requested;
        if self.hold_after_rollback && drift.is_other_policy && !drift.reasons.is_empty() {
            return Err(UserError::failed(
                "follow files: a change on trial was not confirmed and reverted; the files still have it",
                "to apply them, edit them again or run `systemctl reload apifence`; `apifence ranges rollback 1` writes the list in force to the file",
            ));
        }
        Ok(())
    }

    /// Puts the wanted policy in force; true if it is on trial.
    fn apply(
        &mut self,
        maps: &mut Maps,
        have: &InForce,
        want: &WantedPolicy,
        drift: &Drift,
    ) -> Result<bool> {
        let context = &self.context;
        examine(&want.list, want.settings.max_ranges)?;
        examine_guards(&want.lists, &want.settings)?;
        let guarded = self.health.borrow().guarded.clone();
        let mut policy = policy(&want.lists, &want.settings, &want.cluster, &guarded)?;
        if !self.has_config || drift.keeps_basis {
            policy.basis = have.basis();
        }
        policy.by = author(context, maps, &want.lists, have, drift);
        let impact = assess(context, Some(maps), &policy, &guarded)?;
        let within = match drift.is_other_policy {
            true => trial::trial_time(&context.config, &impact, &want.mark)?,
            false => None,
        };
        impact.lines(false).iter().for_each(eprint);
        if within.is_some() {
            trial::record(&context.config, &want.mark);
            self.last_trial = Some(want.mark.clone());
            // If it is not confirmed either, that is news.
            self.alerts.clear("policy", "the files are on trial");
        }
        // Before the saved policy is replaced, which has the comments.
        let before = drift.is_other_list.then_some(have.record.list);
        let before = before.and_then(|list| known_lists(context, list));
        let guards = guard_changes(maps, &policy)?;
        let change = Transaction {
            saves: (have.basis() != Basis::DefaultSettings || !drift.keeps_basis)
                .then_some(&want.lists),
            names_interfaces: self.has_config,
            within,
            trial: Trial::Edited,
            ..Transaction::begin(context, maps, &policy)?
        };
        if let Err(error) = change.put_in_force(maps, &Progress::start()) {
            if within.is_some() {
                // It never was on trial: the next attempt must not take it for an unconfirmed edit.
                self.last_trial = None;
                trial::close(&context.config);
            }
            return Err(error);
        }
        messages::report_applied(
            &have.record,
            (before.as_ref(), &want.lists),
            policy.sources(),
            &drift.changes,
        );
        let guards = guards.iter().map(|guard| guard.line(false));
        guards.for_each(|line| eprint(format_args!("note: {line}")));
        self.report_node_changes(want, drift);
        self.files_changed = false;
        if within.is_none() {
            record_history(context, &want.lists, &policy.by);
            clean_up(maps);
        }
        Ok(within.is_some())
    }

    /// Reports why the policy was replaced, besides changes of the list and of settings.
    fn report_node_changes(&self, want: &WantedPolicy, drift: &Drift) {
        // The first comparison cannot know whether addresses changed.
        let is_first = self.known.node.is_none() && drift.reasons.contains(&ADDRESSES);
        if drift.reasons.contains(&CLUSTER) {
            let words =
                messages::describe_cluster(self.known.cluster.as_ref(), &want.cluster.ranges());
            words
                .iter()
                .for_each(|words| eprint(format_args!("note: {words}")));
        }
        if let Some(reasons) = drift.other_reasons(is_first) {
            let entries = want.list.entries().len();
            eprint(format_args!(
                "note: {reasons}; in force: {}",
                in_ranges(entries)
            ));
        }
    }

    /// Reports a policy that another command put in force, and that is the one of the files.
    fn note_other_author(&self, maps: &Maps, have: &InForce, want: &WantedPolicy) {
        let generation = have.record.generation;
        if self.known.generation != generation {
            save_policy_in_force(&self.context, maps);
        }
        let now = messages::PolicySnapshot {
            list: want.list.clone(),
            settings: have.settings.clone(),
        };
        let by = maps.author(have.slot).ok().flatten();
        self.known.report_change(generation, by, &now);
        // Comments may have been edited, which makes no difference to packets.
        if self.known.state.is_some()
            && let Some(path) = edited_file(&self.context, &want.lists)
        {
            History::of(&path).record(&Author::of_edit(&path));
        }
    }

    /// Reports a trial that another command began.
    fn report_trial(&self, maps: &Maps, waiting: &Waiting) {
        // A trial of settings alone brings no list.
        let pending = waiting.pending.read();
        let now = self.context.read_lists().map(|read| read.lists);
        let list = pending.and_then(|file| Ok(now?.with(&waiting.name, file).union()));
        let list = list.ok();
        let seen = self.known.policy.as_ref();
        if let Some(list) = list.or_else(|| seen.map(|seen| seen.list.clone())) {
            let settings = maps.settings(waiting.slot).ok();
            let by = maps.author(waiting.slot).ok().flatten();
            messages::report_other_author(by, seen, &messages::PolicySnapshot { list, settings });
        }
        eprint("note: a change is on trial; `apifence confirm` keeps it");
    }
}
