//! A change of the list as a transaction: file and kernel both go by the new list, or both by the old one.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use filter_common::{Mode, map::Origin};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Context,
    leap::{Leap, look},
    policy::{examine, keep, policy, told},
    settle::{Waiting, settle},
};
use crate::{
    cli::ChangeArgs,
    clock::{Moment, to_second},
    config::Settings,
    datapath::{Maps, Policy, Slot, Standing},
    net::Net,
    output::{Output, print, say},
    problem::Problem,
    progress::Progress,
    ranges::{Difference, Entry, List, Prefix, RangesFile},
    state::{Committed, History, Staged, StagedPolicy, WriterLock, read_ranges},
    strays::strays_at_rest,
};

/// The one who may change the list.
pub(super) struct Writer<'a> {
    context: &'a Context,
    net: Net,
    maps: Option<Maps>,
    settings: Option<Settings>,
    waiting: Option<Waiting>,
    progress: Progress,
    _lock: WriterLock,
}

impl<'a> Writer<'a> {
    /// Takes the lock, and puts in order what the last writer left.
    pub(super) fn new(context: &'a Context) -> Result<Self> {
        let net = Net::open()?;
        let lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
        let mut maps = context.maps()?;
        let (mut settings, mut waiting) = (None, None);
        if let Some(maps) = &mut maps {
            waiting = settle(context, maps)?;
            maps.expect_change()?;
            settings = Some(maps.settings(maps.in_force()?)?);
        }
        Ok(Self {
            context,
            net,
            maps,
            settings,
            waiting,
            progress: Progress::start(),
            _lock: lock,
        })
    }

    /// Shows how far the change has come with `progress`, which may have begun before.
    pub(super) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// The ranges file, for a change that builds on it.
    pub(super) fn file(&self) -> Result<Option<RangesFile>> {
        match read_ranges(&self.context.global.ranges_file)? {
            None if self.maps.is_some() => Err(Problem::failed(
                format!(
                    "read ranges file `{}`: no such file",
                    self.context.global.ranges_file.display()
                ),
                "the list in force stays in force; `apifence ranges set CIDR,...` writes a new one",
            )),
            file => Ok(file),
        }
    }

    /// Takes the change back that waits for its confirmation; false if none does.
    pub(super) fn take_back(&mut self) -> Result<bool> {
        let (Some(maps), Some(waiting)) = (&mut self.maps, self.waiting.take()) else {
            return Ok(false);
        };
        maps.mark(waiting.slot, false)?;
        maps.select(waiting.slot.other())?;
        waiting.pending.remove();
        Ok(true)
    }

    /// The last step, once it is told what is in force.
    pub(super) fn clear_up(mut self) {
        if let Some(maps) = &mut self.maps {
            clear_up(maps);
        }
    }

    /// Makes `file` the list, or says what that would do.
    pub(super) async fn change(mut self, file: &RangesFile, args: &ChangeArgs) -> Result<u8> {
        if let Some(waiting) = &self.waiting {
            return Err(still_waiting(waiting)?);
        }
        let list = file.list();
        let most = match &self.settings {
            Some(settings) => settings.max_ranges,
            None if self.context.config.doubts(&["max_ranges"]) => {
                return Err(Problem::input(
                    "set ranges: how many there may be cannot be read",
                    "mend `max_ranges` in the config file (`apifence config` says what is wrong), or `APIFENCE_MAX_RANGES`; nothing changed",
                ));
            }
            None => *self.context.config.max_ranges,
        };
        examine(&list, most)?;
        if self.maps.is_none() && args.confirm_within.is_some() {
            return Err(Problem::input(
                "set ranges provisionally: no filter is attached that could go back",
                "leave `--confirm-within` out, or `apifence attach` first; nothing changed",
            ));
        }
        if self.maps.is_none() {
            // A filter without pins goes by the list that it has, and no command could change that.
            let (strays, _) = strays_at_rest(&self.context.pins, &self.net).await?;
            if let Some(stray) = strays.first() {
                return Err(stray.problem("change list"));
            }
        }
        let policy = match &self.settings {
            Some(settings) => {
                let guarded = self.context.pins.interfaces()?.into_iter().collect();
                Some(policy(&self.net, &list, settings, &guarded).await?)
            }
            None => None,
        };
        let path = &self.context.global.ranges_file;
        let (difference, was_off) = self.difference(&list, policy.as_ref())?;
        let mut change = Change {
            difference,
            ranges: list.entries().len(),
            enforced: list != List::Off,
            attached: self.maps.is_some(),
            dry_run: args.dry_run,
            leap: Leap::default(),
            confirm_until: None,
        };
        if let (Some(maps), Some(policy)) = (&self.maps, &policy) {
            change.leap = look(&self.net, Some(maps), policy).await?;
        }
        change.tell(self.context.global.output, was_off)?;
        if args.dry_run {
            self.context.global.output.result(&change)?;
            return Ok(0);
        }
        change.leap.insist(args.force)?;
        let within = args.confirm_within;
        if within.is_some()
            && let Some(maps) = &self.maps
        {
            put_back_edited(maps, path)?;
        }
        // A file that says it already is left as it is: it may be the user's edit, or not be ours to write (a ConfigMap).
        let said = || fs::read_to_string(path).is_ok_and(|text| file.is(&text));
        let staged = match within {
            None if said() => None,
            _ => Some(Staged::write(path, file)?),
        };
        match (&mut self.maps, &policy) {
            (Some(maps), Some(policy)) => {
                let staging = Staging {
                    policy,
                    file: staged,
                    kept: match within {
                        None => keep(self.context, file, &policy.settings, false),
                        Some(_) => None,
                    },
                    within,
                };
                let ((), until) = put_in_force(maps, staging, &self.progress, |_, _| Ok(()))?;
                self.progress.clear();
                change.confirm_until = until;
            }
            _ => {
                if let Some(staged) = staged {
                    staged.commit()?;
                }
            }
        }
        change.close();
        let told = self.context.global.output.result(&change);
        if within.is_none() {
            History::of(path).record();
        }
        self.clear_up();
        told.map(|()| 0)
    }

    /// What sets `list` apart from the one in force: from what packets met until now, which need not be what the file says. Where no filter
    /// is attached, from the file. And whether that one is the off switch.
    fn difference(&mut self, list: &List, policy: Option<&Policy>) -> Result<(Difference, bool)> {
        let (Some(maps), Some(policy)) = (&mut self.maps, policy) else {
            // One that cannot be read is no list to compare with.
            let file = read_ranges(&self.context.global.ranges_file).ok().flatten();
            let before = file.map_or(List::Ranges(Vec::new()), |file| file.list());
            let difference = Difference::new(before.entries(), list.entries());
            return Ok((difference, before == List::Off));
        };
        let now = Timestamp::now();
        let want = listed(policy.sources().iter(), now);
        let difference = Difference::between(listed(maps.known()?, now), want);
        let record = maps.record(maps.in_force()?)?;
        Ok((difference, record.mode == Mode::Off as u8))
    }
}

/// Before a trial: a file that was edited, and is not in force, makes way for the list that is, so that this one returns after a
/// reboot, too. The edited one is in the history.
pub(super) fn put_back_edited(maps: &Maps, path: &Path) -> Result<()> {
    let list = maps.record(maps.in_force()?)?.list;
    let says = |file: &RangesFile| file.list().digest() == list;
    if read_ranges(path).is_ok_and(|file| file.as_ref().is_some_and(says)) {
        return Ok(());
    }
    let kept = History::of(path).before()?.into_iter();
    let Some(file) = kept.filter_map(|kept| kept.read().ok()).find(says) else {
        if list == List::Off.digest() {
            // A first attach on trial that was not confirmed went back to no filter: no file ever said that.
            return Ok(());
        }
        return Err(Problem::failed(
            "change policy provisionally: the list in force is in no file, to which a reboot could go back",
            "leave `--confirm-within` out; nothing changed",
        ));
    };
    Staged::write(path, &file)?.commit()?;
    History::of(path).record();
    Ok(())
}

/// The user's ranges among `prefixes`, each with the time that it lives, those around it included. All that expired before `now` did so then:
/// the kernel does not know a time before it was started.
fn listed<'a>(
    prefixes: impl Iterator<Item = &'a Prefix>,
    now: Timestamp,
) -> impl Iterator<Item = (IpNet, Option<Timestamp>)> {
    let listed = prefixes.filter(|prefix| prefix.origins & Origin::List as u8 != 0);
    listed.map(move |prefix| {
        let expires = prefix.expires.map(|time| to_second(time.max(now)));
        (prefix.range, expires)
    })
}

/// The refusal of a change while another one waits.
pub(super) fn still_waiting(waiting: &Waiting) -> Result<anyhow::Error> {
    let now = Moment::now()?;
    Ok(Problem::failed(
        format!(
            "change policy: another change waits for its confirmation until {}, for {} s more",
            to_second(now.wall_at_boot(waiting.until)),
            waiting
                .until
                .saturating_sub(now.boot)
                .div_ceil(1_000_000_000)
        ),
        "`apifence confirm` keeps it, `apifence ranges rollback` takes it back; then try again",
    ))
}

/// What is to be in force together.
pub(super) struct Staging<'a> {
    pub(super) policy: &'a Policy,
    /// Its list, if it goes into the ranges file with it.
    pub(super) file: Option<Staged>,
    /// The same policy for the state directory; not with a provisional one, which a reboot ends.
    pub(super) kept: Option<StagedPolicy>,
    /// Makes it provisional; then there must be a list.
    pub(super) within: Option<Duration>,
}

/// Puts all of `change` in force, or nothing; `between` is done while the policy lies in its slot, and nothing is
/// changed yet. Returns the deadline if it is provisional.
///
/// Whatever line this dies after: until `select` packets meet the old list; and what is then half done, `settle` completes or
/// takes back. Once it is told that the policy is in force, [`clear_up`] and the history are to follow.
pub(super) fn put_in_force<T>(
    maps: &mut Maps,
    change: Staging<'_>,
    progress: &Progress,
    between: impl FnOnce(&mut Maps, Slot) -> Result<T>,
) -> Result<(T, Option<Timestamp>)> {
    let Staging {
        policy,
        file: staged,
        kept,
        within,
    } = change;
    progress.expect(policy.sources().len());
    let done = |more| progress.advance(more);
    let Some(time) = within else {
        let slot = maps
            .stage(policy, None, staged.is_some(), &done)
            .inspect_err(|_| forget(maps))?;
        let put = between(maps, slot).and_then(|between| {
            let committed = staged.map(Staged::commit).transpose()?;
            let kept = kept.and_then(|kept| told(kept.commit()));
            if let Err(error) = maps.select(slot) {
                if let Some(kept) = kept {
                    kept.undo();
                }
                committed.map_or(Ok(()), Committed::undo)?;
                return Err(error);
            }
            Ok(between)
        });
        return Ok((put.inspect_err(|_| forget(maps))?, None));
    };
    let pending = staged
        .context("put policy in force: a provisional one without a list to confirm")?
        .park()?;
    let put = maps
        .stage(policy, Some(time), false, &done)
        .and_then(|slot| {
            let between = between(maps, slot)?;
            maps.select_provisionally(slot)?;
            Ok((between, maps.record(slot)?.fallback_at))
        });
    match put {
        Ok((between, until)) => {
            let until = to_second(Moment::now()?.wall_at_boot(until));
            Ok((between, Some(until)))
        }
        Err(error) => {
            forget(maps);
            pending.remove();
            Err(error)
        }
    }
}

/// A generation that failed on its way must not be taken for one that lacks the last step alone, and gives back what it took.
fn forget(maps: &mut Maps) {
    // The failure that brought us here is the one to tell.
    if let Ok(Standing::Settled(current)) = maps.standing() {
        let _ = maps.mark(current.other(), false);
        let _ = maps.prepare();
    }
}

/// What comes once a policy is in force, and can wait: room for the next one, and for the usage of the ranges in force. The policy does not
/// depend on it.
pub(super) fn clear_up(maps: &mut Maps) {
    if let Err(error) = maps.prepare() {
        say(format_args!(
            "warning: clear up after the generation before: {error:#}: the next change does it"
        ));
    }
    if let Err(error) = maps.make_room_for_usage() {
        say(format_args!(
            "warning: {error:#}: what some ranges are used for is not counted"
        ));
    }
}

/// What a change of the list comes to.
#[derive(Serialize)]
pub(super) struct Change {
    #[serde(flatten)]
    pub(super) difference: Difference,
    /// How many entries are in the list.
    pub(super) ranges: usize,
    /// False if the list is the off switch.
    pub(super) enforced: bool,
    /// Whether a filter is attached, and judges by the list.
    pub(super) attached: bool,
    /// Whether this is only what would be.
    pub(super) dry_run: bool,
    #[serde(flatten)]
    pub(super) leap: Leap,
    /// When the list before returns, unless `apifence confirm` comes first.
    pub(super) confirm_until: Option<Timestamp>,
}

/// How many ranges or connections are named one by one.
pub(super) const NAMED: usize = 20;

/// The first lines of many.
pub(super) fn first_lines(lines: impl Iterator<Item = String>, count: usize) -> Vec<String> {
    let mut first: Vec<String> = lines.take(NAMED).collect();
    if count > NAMED {
        first.push(format!("and {} more", count - NAMED));
    }
    first
}

impl Change {
    /// Says it before it is done.
    fn tell(&self, output: Output, was_off: bool) -> Result<()> {
        let difference = &self.difference;
        let count = difference.added.len() + difference.removed.len() + difference.changed.len();
        let mut lines = first_lines(difference.signed(), count);
        lines.push(format!(
            "{} added, {} removed, {} unchanged{}",
            difference.added.len(),
            difference.removed.len(),
            difference.unchanged,
            match difference.changed.len() {
                0 => String::new(),
                changed => format!(", {changed} with another expiry"),
            }
        ));
        if !self.enforced {
            lines.push("warning: enforcement is off with this list: everyone passes".to_owned());
        } else if was_off {
            lines.push(
                "warning: enforcement was off; with this list everyone else is dropped".to_owned(),
            );
        }
        lines.extend(self.leap.lines());
        // A dry run is asked for these lines; otherwise they are talk.
        if self.dry_run && output == Output::Text {
            print(lines.join("\n"))?;
        } else {
            say(lines.join("\n"));
        }
        Ok(())
    }

    /// Says that it is done.
    fn close(&self) {
        match self.confirm_until {
            _ if !self.attached => {
                say("no filter is attached: the list is in the file alone until `apifence attach`");
            }
            Some(until) => say(format_args!(
                "in force until {until}: then the list before returns by itself, unless you run `apifence confirm`"
            )),
            None => say(format_args!("in force: {} in the list", self.ranges)),
        }
    }
}

/// The ranges that `ranges` names, each with what else is known.
pub(super) fn entries(
    ranges: &[IpNet],
    comment: Option<&String>,
    expires: Option<Timestamp>,
) -> impl Iterator<Item = Entry> {
    ranges.iter().map(move |range| Entry {
        range: *range,
        expires,
        comment: comment.cloned(),
    })
}
