//! The policy in force is held against what the files say.

use anyhow::Result;
use filter_common::{Mode, map::Basis};
use ipnet::IpNet;

use super::{
    super::super::{
        change::{Staging, clear_up, put_in_force},
        leap::look,
        policy::{examine, keep, keep_in_force, policy},
        settle::settle,
    },
    Follower,
};
use crate::{
    clock::Moment,
    datapath::{Maps, Standing},
    output::say,
    problem::Problem,
    progress::Progress,
    ranges::List,
    state::{History, Seen, WriterLock, read_ranges, refuse_other_writers},
};

/// How far the clocks may drift apart before somebody must have set one, in nanoseconds.
const SET_BY_HAND: i128 = 1_000_000_000;

/// What a policy in force was made from.
#[derive(Default)]
pub(super) struct Known {
    pub(super) standing: Option<Standing>,
    pub(super) generation: u64,
    pub(super) basis: Basis,
    /// The node's addresses; none if they are not known.
    pub(super) node: Option<Vec<IpNet>>,
    /// By how much the wall clock was ahead: expiries are kept on the other one.
    pub(super) ahead: i128,
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

/// What came of following the files.
pub(super) enum Outcome {
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
    pub(super) async fn doubt_policy(&mut self, thorough: bool) {
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
    pub(super) fn open_maps(&mut self) -> Option<&Maps> {
        if self.open.is_none() {
            let place = Seen::of(&self.context.pins.maps());
            let maps = Maps::in_use(&self.context.pins).ok().flatten()?;
            self.open = Some((place, maps));
        }
        self.open.as_ref().map(|(_, maps)| maps)
    }

    /// Closes the maps if others are in their place.
    pub(super) fn close_lost_maps(&mut self) {
        let place = Seen::of(&self.context.pins.maps());
        self.open.take_if(|(of, _)| *of != place);
    }

    /// Puts in force what the files say, if that is not what is in force.
    pub(super) async fn follow_policy(&mut self) -> Result<Outcome> {
        let context = &self.context;
        let path = &context.global.ranges_file;
        // Before the lock: a disk that takes its time keeps no other writer out.
        let seen = Seen::of(path);
        let read = refuse_other_writers(path).and_then(|()| read_ranges(path));
        let Some(_lock) = WriterLock::take_now(path, context.pins.root())? else {
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
            (have, Basis::Files | Basis::LastInForce | Basis::DefaultSettings) => {
                context.settings(have.as_ref())
            }
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
        // That settings were lost has to be seen by somebody, who asks for the files then.
        let stays = Basis::of(record.basis) == Basis::DefaultSettings && !self.asked;
        let is_of_files = stays || Basis::of(record.basis) == Basis::Files;
        if self.has_config && !is_of_files && reasons.is_empty() {
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
            if !self.has_config || stays {
                policy.basis = Basis::of(record.basis);
            }
            look(&self.net, Some(&maps), &policy)
                .await?
                .lines(false)
                .iter()
                .for_each(say);
            maps.expect_change()?;
            let staging = Staging {
                policy: &policy,
                file: None,
                kept: if stays {
                    None
                } else {
                    keep(context, &file, &want, self.has_config)
                },
                within: None,
            };
            put_in_force(&mut maps, staging, &Progress::start(), |_, _| Ok(()))?;
            say(format_args!(
                "{} changed: in force: {}",
                reasons.join(" and "),
                in_words(&list)
            ));
            History::of(path).record(&policy.by);
            clear_up(&mut maps);
        } else {
            if self.known.generation != record.generation {
                keep_in_force(context, &maps);
            }
            if let Some(news) = self.known.news(record.generation) {
                say(format_args!("{news}: {}", in_words(&list)));
            }
        }
        self.asked = false;
        self.known = Known {
            basis: Basis::of(maps.record(maps.in_force()?)?.basis),
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
}

fn in_words(list: &List) -> String {
    match list {
        List::Off => "enforcement is off, everyone passes".to_owned(),
        List::Ranges(entries) => format!("{} in the list", entries.len()),
    }
}
