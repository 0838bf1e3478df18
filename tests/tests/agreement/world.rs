//! The effect of a command by the manual, and the state afterwards.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    list::{Entry, Line, List},
    model::{Answer, Command, Expires, HELD, Mode, Policy, Verb, Verdict},
};

/// A change that is on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) before: Policy,
    /// The list that a confirmation writes into the file; none if only the mode is on trial.
    pub(crate) list: Option<List>,
}

/// Whether the last change was a trial that was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lapsed {
    No,
    Yes,
    /// A command was killed since then.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) file: List,
    pub(crate) policy: Policy,
    pub(crate) trial: Option<Trial>,
    pub(crate) lapsed: Lapsed,
    /// Lists that were in the file, and whether each has a known author; the last one is the
    /// newest.
    pub(crate) history: Vec<(String, bool)>,
    /// True between a boot and `attach`: no filter is attached.
    pub(crate) booted: bool,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// None where the manual promises nothing.
    pub(crate) answer: Option<Answer>,
    pub(crate) world: World,
}

const DONE: i32 = 0;
const INPUT: i32 = 2;
const FAILED: i32 = 3;
/// The list in force and ten before it.
const KEPT: usize = 11;

impl World {
    /// Adds the file's list to the history.
    fn keep(&mut self) {
        let text = self.file.text();
        if self.history.last().is_none_or(|(last, _)| *last != text) {
            self.history.push((text, false));
        }
    }

    /// Adds it with a known author.
    pub(crate) fn record(&mut self) {
        self.keep();
        if let Some((_, noted)) = self.history.last_mut() {
            *noted = true;
        }
        let most = self.history.len().saturating_sub(KEPT);
        self.history.drain(..most);
    }

    /// The lists before the one in the file, the newest first.
    pub(crate) fn before(&self) -> Vec<(List, bool)> {
        let mut kept = &self.history[..];
        if let Some(((last, _), rest)) = kept.split_last()
            && *last == self.file.text()
        {
            kept = rest;
        }
        let lists = kept.iter().rev();
        lists
            .map(|(text, noted)| (List::read(text), *noted))
            .collect()
    }

    fn replace(&mut self, list: &List) {
        if self.file != *list {
            self.keep();
            self.file = list.clone();
        }
    }

    /// The list in force as its author wrote it, comments included, before it becomes `new`.
    fn as_written(&self, new: &List) -> Option<List> {
        // Either the file is unchanged since its list came into force, or the change brings another
        // list.
        let kept = self.history.last();
        let is_edited = kept.is_none_or(|(last, _)| *last != self.file.text());
        if self.file.means(&self.policy.list) && (self.file != *new || !is_edited) {
            return Some(self.file.clone());
        }
        let mut kept = self.before().into_iter().map(|(list, _)| list);
        kept.find(|list| list.means(&self.policy.list))
    }

    /// The possible results of the command at `now`: several if the state is not known.
    pub(crate) fn outcomes(&self, command: &Command, now: i64) -> Vec<Outcome> {
        if self.lapsed != Lapsed::Unknown {
            return vec![self.outcome(command, now)];
        }
        let as_if = |lapsed| {
            Self {
                lapsed,
                ..self.clone()
            }
            .outcome(command, now)
        };
        let mut both = vec![as_if(Lapsed::No), as_if(Lapsed::Yes)];
        for outcome in &mut both {
            if outcome.world.policy == self.policy && outcome.world.file == self.file {
                outcome.world.lapsed = Lapsed::Unknown;
            }
        }
        both
    }

    fn nothing(&self, code: i32) -> Outcome {
        Outcome {
            code,
            answer: None,
            world: self.clone(),
        }
    }

    fn outcome(&self, command: &Command, now: i64) -> Outcome {
        let mut list = self.file.clone();
        match &command.verb {
            Verb::Confirm => return self.confirm(),
            Verb::Mode(mode) => return self.set_mode(*mode, command, now),
            Verb::Rollback(None) if self.trial.is_some() => return self.take_back(command),
            Verb::Rollback(None)
                if self.lapsed == Lapsed::Yes && self.file.means(&self.policy.list) =>
            {
                return self.nothing(DONE);
            }
            Verb::Rollback(number) => {
                let mut before = self.before().into_iter().map(|(kept, _)| kept);
                let kept = match number {
                    None => before.find(|kept| !kept.is_broken()),
                    Some(number) => before.nth(number - 1).filter(|kept| !kept.is_broken()),
                };
                match kept {
                    Some(kept) => list = kept,
                    None => return self.nothing(INPUT),
                }
            }
            // These commands build on the file's list.
            Verb::Add { .. } | Verb::Remove(_) | Verb::Prune | Verb::Reload | Verb::Attach
                if list.is_broken() =>
            {
                return self.nothing(INPUT);
            }
            Verb::Add {
                ranges,
                expires,
                comment,
            } => {
                let expires = match *expires {
                    Expires::AsItWas => None,
                    Expires::Never => Some(None),
                    Expires::At(time) => Some(Some(time)),
                    Expires::In(seconds) => Some(Some(now + seconds)),
                };
                for range in ranges {
                    list.add(*range, expires, *comment, now);
                }
            }
            Verb::Remove(ranges) => {
                if !list.remove(ranges) {
                    return self.nothing(INPUT);
                }
            }
            Verb::Set(ranges) if ranges.is_empty() => list = List(vec![Line::Nobody]),
            Verb::Set(ranges) => {
                list = List::from_entries(ranges.iter().map(|range| Entry {
                    range: *range,
                    expires: None,
                    comment: None,
                }));
            }
            Verb::SetFile(file) => list = file.clone(),
            Verb::Prune => list.prune(now),
            Verb::Clear => list = List::off(),
            Verb::Reload | Verb::Attach => {}
        }
        self.change(&list, command, now)
    }

    /// Replaces the list by `list`.
    fn change(&self, list: &List, command: &Command, now: i64) -> Outcome {
        if self.trial.is_some() {
            return self.nothing(FAILED);
        }
        let new = Policy {
            list: list.clone(),
            mode: self.policy.mode,
        };
        let mut answer = self.compare(&new, now);
        if self.booted {
            // No policy was in force.
            answer = Answer {
                added: Vec::new(),
                removed: Vec::new(),
                changed: Vec::new(),
                edited: Vec::new(),
                unchanged: list.ranges().len(),
                ..answer
            };
        }
        self.make(new, Some(list), answer, command)
    }

    /// Replaces it, if the command does that.
    fn make(
        &self,
        new: Policy,
        list: Option<&List>,
        mut answer: Answer,
        command: &Command,
    ) -> Outcome {
        answer.dry_run = command.dry_run;
        answer.refused = !command.force && answer.cut > 0 && answer.kept == 0;
        let mut world = self.clone();
        if answer.refused || command.dry_run {
            let code = if answer.refused { INPUT } else { DONE };
            return Outcome {
                code,
                answer: Some(answer),
                world,
            };
        }
        answer.on_trial = command.within.is_some();
        if answer.on_trial {
            if list.is_some() && !world.put_back() {
                return self.nothing(FAILED);
            }
            world.trial = Some(Trial {
                before: self.policy.clone(),
                list: list.cloned(),
            });
        } else if let Some(list) = list {
            world.replace(list);
            world.record();
        }
        world.policy = new;
        world.lapsed = Lapsed::No;
        world.booted = false;
        Outcome {
            code: DONE,
            answer: Some(answer),
            world,
        }
    }

    /// During a trial the file holds the list for a reboot. False if no file ever held that.
    fn put_back(&mut self) -> bool {
        if self.file.means(&self.policy.list) {
            self.keep();
            return true;
        }
        let list = &self.policy.list;
        let mut before = self.before().into_iter();
        match before.find(|(kept, _)| kept.means(list)) {
            Some((kept, noted)) => {
                self.keep();
                self.file = kept;
                if noted {
                    self.record();
                }
                true
            }
            None => list.is_off(),
        }
    }

    fn compare(&self, new: &Policy, now: i64) -> Answer {
        let (had, has) = (self.policy.list.ranges(), new.list.ranges());
        let both = |range: &&IpNet| had.contains(range);
        let changed: Vec<IpNet> = has.iter().filter(both).copied().collect();
        let (changed, same): (Vec<IpNet>, Vec<IpNet>) = changed
            .into_iter()
            .partition(|range| self.policy.life(*range, now) != new.life(*range, now));
        let written = self.as_written(&new.list);
        let (edited, unchanged): (Vec<IpNet>, Vec<IpNet>) = same.into_iter().partition(|range| {
            let before = written.as_ref().map(|list| list.of_range(*range));
            before.is_some_and(|before| !before.is_empty() && before != new.list.of_range(*range))
        });
        let (cut, kept) = self.impact(new, now);
        Answer {
            added: has
                .iter()
                .filter(|range| !had.contains(range))
                .copied()
                .collect(),
            removed: had
                .iter()
                .filter(|range| !has.contains(range))
                .copied()
                .collect(),
            changed,
            edited,
            unchanged: unchanged.len(),
            cut,
            kept,
            refused: false,
            dry_run: false,
            on_trial: false,
        }
    }

    /// Numbers of open connections that are cut, and that are kept.
    fn impact(&self, new: &Policy, now: i64) -> (usize, usize) {
        let held = HELD.map(|source| source.parse::<IpAddr>().expect("an address"));
        let drops = |policy: &Policy, source| policy.verdict(source, now) == Verdict::Drop;
        let had = |source| self.booted || !drops(&self.policy, source);
        let stop = held.iter().filter(|source| drops(new, **source));
        let cut = stop.clone().filter(|source| had(**source)).count();
        (cut, held.len() - stop.count())
    }

    fn set_mode(&self, mode: Mode, command: &Command, now: i64) -> Outcome {
        if self.trial.is_some() {
            return self.nothing(FAILED);
        }
        if mode == Mode::Enforce && self.policy.list.is_off() {
            return self.nothing(INPUT);
        }
        if mode == self.policy.mode {
            return self.nothing(DONE);
        }
        let new = Policy {
            mode,
            ..self.policy.clone()
        };
        let (cut, kept) = self.impact(&new, now);
        let answer = Answer {
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            edited: Vec::new(),
            unchanged: self.policy.list.ranges().len(),
            cut,
            kept,
            refused: false,
            dry_run: false,
            on_trial: false,
        };
        self.make(new, None, answer, command)
    }

    fn confirm(&self) -> Outcome {
        let Some(trial) = &self.trial else {
            return self.nothing(FAILED);
        };
        let mut world = self.clone();
        world.trial = None;
        if let Some(list) = &trial.list {
            world.replace(list);
            world.record();
        }
        Outcome {
            code: DONE,
            answer: None,
            world,
        }
    }

    fn take_back(&self, command: &Command) -> Outcome {
        if command.dry_run {
            return self.nothing(DONE);
        }
        let mut world = self.clone();
        if let Some(trial) = world.trial.take() {
            world.policy = trial.before;
        }
        Outcome {
            code: DONE,
            answer: None,
            world,
        }
    }

    /// The trial was not confirmed.
    pub(crate) fn lapse(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.policy = trial.before;
            self.lapsed = Lapsed::Yes;
        }
    }

    /// The machine reboots.
    pub(crate) fn boot(&mut self) {
        self.lapse();
        self.lapsed = Lapsed::No;
        self.booted = true;
    }

    /// Every time at which an entry expires.
    pub(crate) fn expiries(&self) -> Vec<i64> {
        let trial = self.trial.iter().map(|trial| &trial.before.list);
        let lists = [&self.file, &self.policy.list].into_iter().chain(trial);
        lists
            .flat_map(List::entries)
            .filter_map(|entry| entry.expires)
            .collect()
    }
}
