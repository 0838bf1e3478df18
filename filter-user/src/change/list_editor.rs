//! A change of the list: ranges file and kernel both hold the new list, or both the old one.

use std::{mem, panic::resume_unwind, thread, thread::JoinHandle};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::PolicyRecord};
use jiff::Timestamp;

use super::{
    build::{examine, policy, read_cluster},
    changed::Change,
    guarded::guard_changes,
    impact::{Impact, assess},
    lists_before::Before,
    proposal::{ListChange, Proposal, exit_status},
    put_back::put_back_edited,
    recovery::{Waiting, recover},
    transaction::{Transaction, clean_up},
    words::{FoundLists, PreviousList, difference_from, in_words, listed, on_trial},
};
use crate::{
    cli::ChangeArgs,
    clock::{Clocks, to_second},
    config::Settings,
    context::Context,
    kernel::{
        bpf::{Maps, Staging},
        links::strays::strays_at_rest,
    },
    policy::{Difference, Policy, Prefixes, Sources, author::Author, compile},
    ranges::{Entry, List, ListName, Lists, RangesFile, in_ranges},
    store::{FileStamp, History, ListFile, Staged, WriterLock, holds},
    ui::{error::UserError, explain::NEEDS_RIGHTS, output::eprint, progress::Progress},
};

/// Changes a list, under the writer's lock.
pub(crate) struct ListEditor<'a> {
    context: &'a Context,
    name: ListName,
    /// The file of the list.
    path: ListFile,
    maps: Option<Maps>,
    settings: Option<Settings>,
    waiting: Option<Waiting>,
    /// The change as it was begun, unless another one waits.
    staging: Option<Staging>,
    progress: Progress,
    /// The stamp of the list's file before it was read.
    seen: FileStamp,
    /// The thread that reads the lists.
    reading: Option<JoinHandle<Result<Before>>>,
    before: Option<Before>,
    /// The first lines of the report of the change.
    words: Vec<String>,
    /// The author of the change.
    by: Author,
    _lock: WriterLock,
}

impl<'a> ListEditor<'a> {
    /// Takes the lock for a change of the list `name`, and recovers from an interrupted change.
    pub(crate) fn new(context: &'a Context, name: &ListName) -> Result<Self> {
        let lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
        let mut maps = context.maps()?;
        let (mut settings, mut waiting, mut staging) = (None, None, None);
        if let Some(maps) = &mut maps {
            waiting = recover(context, maps)?;
            if waiting.is_none() {
                staging = Some(maps.begin()?);
            }
            settings = Some(maps.settings(maps.active_slot()?)?);
        }
        let path = context.list_files().file(name);
        let seen = FileStamp::of(&path);
        let (reader, own) = (context.clone(), name.clone());
        let reading = thread::Builder::new()
            .spawn(move || Before::read(&reader, &own))
            .context("start thread")?;
        Ok(Self {
            context,
            name: name.clone(),
            path,
            maps,
            settings,
            waiting,
            staging,
            progress: Progress::start(),
            seen,
            reading: Some(reading),
            before: None,
            words: Vec::new(),
            by: Author::of_this_process(),
            _lock: lock,
        })
    }

    /// Shows the progress of the change with `progress`, which may have begun before.
    pub(crate) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Records `by` as the author of the change.
    pub(crate) fn by(self, by: Author) -> Self {
        Self { by, ..self }
    }

    /// The change that waits for its confirmation; it blocks every other change.
    pub(crate) fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// The file of the list, for a change that builds on it; `None` if there is none.
    pub(crate) fn file(&mut self) -> Result<Option<RangesFile>> {
        let is_needed = self.name.is_default() && self.maps.is_some();
        let path = self.path.clone();
        let before = self.before()?;
        match mem::replace(&mut before.own, Ok(None))? {
            None if is_needed => Err(UserError::failed(
                format!("read ranges file `{}`: no such file", path.display()),
                "the list stays in force; `apifence ranges set CIDR,...` writes a new file",
            )),
            file => {
                before.own = Ok(file.clone());
                Ok(file)
            }
        }
    }

    /// Whether the list has a file, or was in force.
    pub(crate) fn is_known(&mut self) -> Result<bool> {
        let name = self.name.clone();
        let before = self.before()?;
        Ok(before.own.is_err() || before.all.get(&name).is_some())
    }

    /// The list as its file says, or as it was last in force.
    pub(crate) fn last_good(&mut self) -> Result<Option<RangesFile>> {
        let name = self.name.clone();
        Ok(self.before()?.all.get(&name).cloned())
    }

    /// The lists before the change.
    fn before(&mut self) -> Result<&mut Before> {
        if let Some(reading) = self.reading.take() {
            let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
            self.before = Some(read?);
        }
        self.before.as_mut().context("the lists cannot be read")
    }

    /// Reports `words` before the rest of the change.
    pub(crate) fn with_words(self, words: Vec<String>) -> Self {
        Self { words, ..self }
    }

    /// Whether a change waits for its confirmation.
    pub(crate) const fn has_pending(&self) -> bool {
        self.waiting.is_some()
    }

    /// Rolls back the change that waits for its confirmation; false if none does.
    pub(crate) fn roll_back(&mut self) -> Result<bool> {
        let (Some(maps), Some(waiting)) = (&mut self.maps, self.waiting.take()) else {
            return Ok(false);
        };
        maps.mark(waiting.slot, false)?;
        maps.select(waiting.slot.other())?;
        waiting.pending.remove();
        Ok(true)
    }

    /// The time at which the last change rolled back without a confirmation, if the ranges file
    /// holds the list in force since then. No change is left to roll back.
    pub(crate) fn lapsed(&mut self) -> Result<Option<Timestamp>> {
        let record = self.record()?;
        let list = self.before().ok();
        let list = list.map(|before| before.all.digest());
        let (Some(maps), Some(record)) = (&self.maps, record) else {
            return Ok(None);
        };
        let Some(since) = maps.lapsed()?.filter(|_| list == Some(record.list)) else {
            return Ok(None);
        };
        Ok(Some(to_second(Clocks::now()?.wall_at_boot(since))))
    }

    /// The record in force, if a filter is attached.
    fn record(&self) -> Result<Option<PolicyRecord>> {
        let maps = self.maps.as_ref();
        maps.map(|maps| maps.record(maps.active_slot()?))
            .transpose()
    }

    /// The last step, after the report of the new policy.
    pub(crate) fn clean_up(mut self) {
        if let Some(maps) = &mut self.maps {
            clean_up(maps);
        }
    }

    /// Puts `file` in force as the list; a dry run reports the effects instead.
    pub(crate) fn change(self, file: &RangesFile, args: &ChangeArgs) -> Result<u8> {
        let files = self.context.list_files();
        files.refuse_others(&self.name)?;
        files.examine(&self.name, file)?;
        if args.confirm_within.is_some() && !files.allows_trial(&self.name) {
            return Err(UserError::input(
                format!(
                    "start trial: another user can write to the folder of the list `{}`",
                    self.name
                ),
                "leave `--confirm-within` out; `--dry-run` shows the effect of the change; nothing changed",
            ));
        }
        self.apply(Some(file), args)
    }

    /// Takes the list away, with its file; a dry run reports the effects instead.
    pub(crate) fn delete(self, args: &ChangeArgs) -> Result<u8> {
        self.apply(None, args)
    }

    fn apply(mut self, file: Option<&RangesFile>, args: &ChangeArgs) -> Result<u8> {
        if let Some(waiting) = &self.waiting {
            return Err(waiting.problem()?);
        }
        let name = self.name.clone();
        let lists = self.before()?.others.with_own(&name, file);
        let list = lists.union();
        let policy = self.compile(&lists, &list, args)?;
        let mut proposal = self.compare(&lists, &list, policy.as_ref())?;
        let attached = self.maps.is_some();
        let now = Timestamp::now();
        let expired = |entry: &&Entry| entry.expires.is_some_and(|time| time <= now);
        let expired = list.entries().iter().filter(expired).count();
        let changed = |proposal, confirm_until| Change {
            proposal,
            ranges: list.entries().len(),
            expired,
            attached,
            confirm_until,
        };
        // A change that the disk refuses is not reported as made.
        let staged = match args {
            ChangeArgs { dry_run: true, .. } => Ok(None),
            ChangeArgs { confirm_within, .. } => self.write(file, confirm_within.is_some()),
        };
        let staged = staged.map_err(|error| without_disk(error, list == List::Off))?;
        let output = self.context.global.output;
        if !proposal.put(args, true, output, |proposal| changed(proposal, None))? {
            return Ok(0);
        }
        let until = self.make(file, &lists, staged, policy.as_ref(), args)?;
        // The change is made: a later failure does not change the exit status.
        self.progress.clear();
        let change = changed(proposal, until);
        change.close(args);
        let done = exit_status(output.result(&change));
        if args.confirm_within.is_none() {
            History::of(&self.path).record(&self.by);
        }
        self.clean_up();
        Ok(done)
    }

    /// The policy of `lists`, whose union is `list`, under the settings in force; `None` if no
    /// filter is attached.
    fn compile(&self, lists: &Lists, list: &List, args: &ChangeArgs) -> Result<Option<Policy>> {
        let most = match &self.settings {
            Some(settings) => settings.max_ranges,
            None if self.context.config.has_unreadable(&["max_ranges"]) => {
                return Err(UserError::input(
                    "set ranges: `max_ranges` cannot be read",
                    "fix `max_ranges` in the config file or `APIFENCE_MAX_RANGES` (`apifence config` shows the error); nothing changed",
                ));
            }
            None => *self.context.config.max_ranges,
        };
        examine(list, most)?;
        let Some(settings) = &self.settings else {
            if args.confirm_within.is_some() {
                return Err(UserError::input(
                    "start trial: no filter is attached, so nothing could revert",
                    "leave `--confirm-within` out, or run `apifence attach` first; nothing changed",
                ));
            }
            // A filter without pins keeps its list: no command can change that.
            let (strays, _) = strays_at_rest(&self.context.pins)?;
            return match strays.first() {
                Some(stray) => Err(stray.problem("change list")),
                None => Ok(None),
            };
        };
        let guarded = self.context.pins.interfaces()?.into_iter().collect();
        let cluster = read_cluster(self.context, settings);
        let mut policy = policy(lists, settings, &cluster, &guarded)?;
        policy.by = self.by.clone();
        Ok(Some(policy))
    }

    /// The difference between the wanted `lists`, whose union is `list`, and those in force, which
    /// need not be those of the files. Without an attached filter: from the files.
    fn compare(&mut self, lists: &Lists, list: &List, policy: Option<&Policy>) -> Result<Proposal> {
        let record = self.record()?;
        // A file that cannot be used is replaced, and kept in the history.
        let found = self.before().map(|before| FoundLists {
            lists: before.all.clone(),
            is_wanted: before.all == *lists,
            is_broken: before.own.is_err(),
        })?;
        let is_known = !found.lists.is_empty() || found.is_broken;
        let before = PreviousList::find(self.context, is_known.then_some(found), record.as_ref());
        let now = Timestamp::now();
        // Without an attached filter: the prefixes of the list alone.
        let compiled = match policy {
            Some(_) => Prefixes::default(),
            None => compile(list.entries(), &Sources::default()),
        };
        let sources = policy.map_or(&compiled, Policy::sources);
        let (mut difference, impact) = match (&self.maps, &mut self.staging, policy) {
            (Some(maps), Some(staging), Some(policy)) => {
                let want = listed(sources.iter(), now);
                let difference = Difference::between(listed(staging.active_ranges()?, now), want);
                let guarded = self.context.pins.interfaces()?.into_iter().collect();
                let impact = assess(self.context, Some(maps), policy, &guarded)?;
                (difference, impact)
            }
            _ => (
                difference_from(before.entries(), sources, now),
                Impact::default(),
            ),
        };
        difference.note_edits(before.entries(), list.entries());
        let mut words = in_words(&difference, &before, list, sources, now);
        words.entries.splice(..0, mem::take(&mut self.words));
        let change = ListChange {
            list,
            was_off: record.is_some_and(|record| record.mode == Mode::Off as u8),
            words,
            difference,
            guards: match (&self.maps, policy) {
                (Some(maps), Some(policy)) => guard_changes(maps, policy)?,
                _ => Vec::new(),
            },
        };
        Ok(Proposal::new(Vec::new(), change, impact))
    }

    /// Writes `file` next to the list's file, for the change that follows. A provisional change
    /// writes its file later, after `put_back_edited`; for it this only tries the disk.
    fn write(&self, file: Option<&RangesFile>, is_provisional: bool) -> Result<Option<Staged>> {
        let Some(file) = file else {
            return match self.path.symlink_metadata() {
                Ok(_) => Staged::removal(&self.path).map(Some),
                Err(_) => Ok(None),
            };
        };
        // A file that holds the list already stays: it may be the user's edit, or not writable (a
        // ConfigMap).
        if holds(&self.path, file) {
            return Ok(None);
        }
        let staged = Staged::write(&self.path, file)?;
        Ok((!is_provisional).then(|| staged.based_on(self.seen)))
    }

    /// Makes the change, all of it or nothing, with the file that is `staged` for it. Returns the
    /// deadline if it is provisional.
    fn make(
        &mut self,
        file: Option<&RangesFile>,
        lists: &Lists,
        staged: Option<Staged>,
        policy: Option<&Policy>,
        args: &ChangeArgs,
    ) -> Result<Option<Timestamp>> {
        let path = &self.path;
        let within = args.confirm_within;
        if within.is_some()
            && let Some(maps) = &self.maps
        {
            put_back_edited(self.context, maps, &self.name)?;
            self.seen = FileStamp::of(path);
        }
        let opens = lists.is_off();
        let staged = match (within, file) {
            (None, _) | (_, None) => staged,
            (Some(_), Some(file)) => {
                let staged = Staged::write(path, file).map_err(|error| without_disk(error, opens));
                Some(staged?.based_on(self.seen))
            }
        };
        let (Some(maps), Some(begun), Some(policy)) = (&mut self.maps, self.staging.take(), policy)
        else {
            if let Some(staged) = staged {
                staged.commit()?;
            }
            return Ok(None);
        };
        let change = Transaction {
            file: staged,
            saves: Some(lists),
            within,
            ..Transaction::new(self.context, begun, policy)
        };
        change
            .put_in_force(maps, &self.progress)
            .map_err(|error| without_disk(error, opens))
    }
}

impl Change {
    /// The number of entries, and how many of them have expired.
    fn total(&self) -> String {
        match self.expired {
            0 => in_ranges(self.ranges),
            expired => format!(
                "{}, {expired} of them expired (`apifence ranges prune` removes them)",
                in_ranges(self.ranges)
            ),
        }
    }

    /// Reports that the change is made.
    fn close(&self, args: &ChangeArgs) {
        match self.confirm_until {
            _ if !self.attached => {
                eprint("the list is saved; it has no effect until `apifence attach`");
            }
            Some(until) => eprint(on_trial(args, until)),
            None => eprint(format_args!("in force: {}", self.total())),
        }
    }
}

/// The same failure. If the change `opens` the port, its hint names the way that needs no disk,
/// unless this process lacks the rights for that way, too.
fn without_disk(error: anyhow::Error, opens: bool) -> anyhow::Error {
    match error.downcast::<UserError>() {
        Ok(problem) if opens && problem.hint != NEEDS_RIGHTS => UserError {
            hint: "`apifence monitor` also allows every source, and does not need the disk; nothing changed"
                .to_owned(),
            ..problem
        }
        .into(),
        Ok(problem) => problem.into(),
        Err(error) => error,
    }
}
