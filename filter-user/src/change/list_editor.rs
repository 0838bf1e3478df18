//! A change of the list: ranges file and kernel both hold the new list, or both the old one.

use std::{fs, mem, panic::resume_unwind, path::Path, thread, thread::JoinHandle};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::PolicyRecord};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    build::{examine, policy},
    impact::{Impact, assess},
    proposal::{ListChange, Proposal, exit_status},
    recovery::{Waiting, recover},
    transaction::{Transaction, clean_up},
    words::{PreviousList, ReadList, difference_from, in_words, listed},
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
    ranges::{Entry, List, RangesFile},
    store::{FileStamp, History, Staged, WriterLock, read_ranges},
    ui::{error::UserError, explain::NEEDS_RIGHTS, output::eprint, progress::Progress},
};

/// The ranges file as it was before a change.
struct PreviousFile {
    file: RangesFile,
    list: ReadList,
}

impl PreviousFile {
    fn new(file: RangesFile) -> Self {
        let list = ReadList::new(file.list());
        Self { file, list }
    }
}

/// Changes the list, under the writer's lock.
pub(crate) struct ListEditor<'a> {
    context: &'a Context,
    maps: Option<Maps>,
    settings: Option<Settings>,
    waiting: Option<Waiting>,
    /// The change as it was begun, unless another one waits.
    staging: Option<Staging>,
    progress: Progress,
    /// The stamp of the ranges file before it was read.
    seen: FileStamp,
    /// The thread that reads the ranges file.
    reading: Option<JoinHandle<Result<Option<PreviousFile>>>>,
    /// The ranges file; `None` if it cannot be read.
    previous: Option<PreviousFile>,
    /// The first lines of the report of the change.
    words: Vec<String>,
    _lock: WriterLock,
}

impl<'a> ListEditor<'a> {
    /// Takes the lock, and recovers from an interrupted change.
    pub(crate) fn new(context: &'a Context) -> Result<Self> {
        let path = &context.global.ranges_file;
        let lock = WriterLock::take(path, context.pins.root())?;
        let mut maps = context.maps()?;
        let (mut settings, mut waiting, mut staging) = (None, None, None);
        if let Some(maps) = &mut maps {
            waiting = recover(context, maps)?;
            if waiting.is_none() {
                staging = Some(maps.begin()?);
            }
            settings = Some(maps.settings(maps.active_slot()?)?);
        }
        let seen = FileStamp::of(path);
        let path = path.clone();
        let reading = thread::Builder::new()
            .spawn(move || Ok(read_ranges(&path)?.map(PreviousFile::new)))
            .context("start thread")?;
        Ok(Self {
            context,
            maps,
            settings,
            waiting,
            staging,
            progress: Progress::start(),
            seen,
            reading: Some(reading),
            previous: None,
            words: Vec::new(),
            _lock: lock,
        })
    }

    /// Shows the progress of the change with `progress`, which may have begun before.
    pub(crate) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// The change that waits for its confirmation; it blocks every other change.
    pub(crate) fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// The ranges file, for a change that builds on it.
    pub(crate) fn file(&mut self) -> Result<Option<RangesFile>> {
        let attached = self.maps.is_some();
        match self.read()? {
            None if attached => Err(UserError::failed(
                format!(
                    "read ranges file `{}`: no such file",
                    self.context.global.ranges_file.display()
                ),
                "the list in force stays in force; `apifence ranges set CIDR,...` writes a new one",
            )),
            previous => Ok(previous.map(|previous| previous.file.clone())),
        }
    }

    /// The content of the ranges file. Only the first call returns the error of an unreadable file;
    /// later calls return `None`.
    fn read(&mut self) -> Result<Option<&PreviousFile>> {
        if let Some(reading) = self.reading.take() {
            self.previous = reading
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(self.previous.as_ref())
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
        let list = self
            .read()
            .ok()
            .flatten()
            .map(|previous| previous.list.digest);
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

    /// Puts the list of `file` in force; a dry run reports the effects instead.
    pub(crate) fn change(mut self, file: &RangesFile, args: &ChangeArgs) -> Result<u8> {
        if let Some(waiting) = &self.waiting {
            return Err(waiting.problem()?);
        }
        let list = file.list();
        let policy = self.compile(&list, args)?;
        let mut proposal = self.compare(file, &list, policy.as_ref())?;
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
        let until = self.make(file, staged, policy.as_ref(), args)?;
        // The change is made: a later failure does not change the exit status.
        self.progress.clear();
        let change = changed(proposal, until);
        change.close();
        let done = exit_status(output.result(&change));
        if args.confirm_within.is_none() {
            let by = Author::of_this_process();
            History::of(&self.context.global.ranges_file).record(&by);
        }
        self.clean_up();
        Ok(done)
    }

    /// The policy of `list` under the settings in force; `None` if no filter is attached.
    fn compile(&self, list: &List, args: &ChangeArgs) -> Result<Option<Policy>> {
        let most = match &self.settings {
            Some(settings) => settings.max_ranges,
            None if self.context.config.has_unreadable(&["max_ranges"]) => {
                return Err(UserError::input(
                    "set ranges: how many there may be cannot be read",
                    "mend `max_ranges` in the config file (`apifence config` says what is wrong), or `APIFENCE_MAX_RANGES`; nothing changed",
                ));
            }
            None => *self.context.config.max_ranges,
        };
        examine(list, most)?;
        let Some(settings) = &self.settings else {
            if args.confirm_within.is_some() {
                return Err(UserError::input(
                    "set ranges provisionally: no filter is attached that could go back",
                    "leave `--confirm-within` out, or `apifence attach` first; nothing changed",
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
        policy(list, settings, &guarded).map(Some)
    }

    /// The difference between `list`, which `file` holds, and the list in force, which need not be
    /// the one in the ranges file. Without an attached filter: from the ranges file.
    fn compare(
        &mut self,
        file: &RangesFile,
        list: &List,
        policy: Option<&Policy>,
    ) -> Result<Proposal> {
        let path = &self.context.global.ranges_file;
        let record = self.record()?;
        // A file that cannot be read is not compared. It is replaced, and kept in the history.
        let _ = self.read();
        let previous = self.previous.take();
        let previous = previous.map(|previous| (previous.file == *file, previous.list));
        let before = PreviousList::find(path, previous, record.as_ref());
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
        };
        Ok(Proposal::new(Vec::new(), change, impact))
    }

    /// Writes `file` next to the ranges file, for the change that follows. A provisional change
    /// writes its file later, after `put_back_edited`; for it this only tries the disk.
    fn write(&self, file: &RangesFile, is_provisional: bool) -> Result<Option<Staged>> {
        let path = &self.context.global.ranges_file;
        // A file that holds the list already stays: it may be the user's edit, or not writable (a
        // ConfigMap).
        if fs::read_to_string(path).is_ok_and(|text| file.is(&text)) {
            return Ok(None);
        }
        let staged = Staged::write(path, file)?;
        Ok((!is_provisional).then(|| staged.based_on(self.seen)))
    }

    /// Makes the change, all of it or nothing, with the file that is `staged` for it. Returns the
    /// deadline if it is provisional.
    fn make(
        &mut self,
        file: &RangesFile,
        staged: Option<Staged>,
        policy: Option<&Policy>,
        args: &ChangeArgs,
    ) -> Result<Option<Timestamp>> {
        let path = &self.context.global.ranges_file;
        let within = args.confirm_within;
        if within.is_some()
            && let Some(maps) = &self.maps
        {
            put_back_edited(maps, path)?;
            self.seen = FileStamp::of(path);
        }
        let opens = file.list() == List::Off;
        let staged = match within {
            None => staged,
            Some(_) => {
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
            saves: Some(file),
            within,
            ..Transaction::new(self.context, begun, policy)
        };
        change
            .put_in_force(maps, &self.progress)
            .map_err(|error| without_disk(error, opens))
    }
}

/// The result of a change of the list.
#[derive(Serialize)]
struct Change {
    #[serde(flatten)]
    proposal: Proposal,
    /// The entries of the list.
    ranges: usize,
    /// The expired ones among them.
    expired: usize,
    /// Whether a filter with this list is attached.
    attached: bool,
    /// When the list before returns, unless `apifence confirm` comes first.
    confirm_until: Option<Timestamp>,
}

impl Change {
    /// The number of entries, and how many of them have expired.
    fn total(&self) -> String {
        match self.expired {
            0 => format!("{} in the list", self.ranges),
            expired => format!(
                "{} in the list, {expired} of them expired (`apifence ranges prune` takes those out)",
                self.ranges
            ),
        }
    }

    /// Reports that the change is made.
    fn close(&self) {
        match self.confirm_until {
            _ if !self.attached => {
                eprint(
                    "no filter is attached: the list is in the file alone until `apifence attach`",
                );
            }
            Some(until) => eprint(format_args!(
                "in force until {until}: then the list before returns by itself, unless you run `apifence confirm`"
            )),
            None => eprint(format_args!("in force: {}", self.total())),
        }
    }
}

/// The same failure. If the change `opens` the port, its hint names the way that needs no disk,
/// unless this process lacks the rights for that way, too.
fn without_disk(error: anyhow::Error, opens: bool) -> anyhow::Error {
    match error.downcast::<UserError>() {
        Ok(problem) if opens && problem.hint != NEEDS_RIGHTS => UserError {
            hint: "`apifence monitor` lets everyone in, and needs no disk; nothing changed"
                .to_owned(),
            ..problem
        }
        .into(),
        Ok(problem) => problem.into(),
        Err(error) => error,
    }
}

/// Before a trial, replaces an edited ranges file that is not in force by the list in force, so
/// that this list returns after a reboot, too. The edited file is in the history.
pub(crate) fn put_back_edited(maps: &Maps, path: &Path) -> Result<()> {
    let list = maps.record(maps.active_slot()?)?.list;
    let says = |file: &RangesFile| file.list().digest() == list;
    let history = History::of(path);
    if read_ranges(path).is_ok_and(|file| file.as_ref().is_some_and(says)) {
        // This copy shows whether the file is edited during the trial.
        let _ = history.keep();
        return Ok(());
    }
    let kept = history.before()?.into_iter();
    let Some((file, by)) = kept
        .filter_map(|kept| Some((kept.read().ok()?, kept.by)))
        .find(|(file, _)| says(file))
    else {
        if list == List::Off.digest() {
            // An unconfirmed first attach went back to no filter, which no file ever held.
            return Ok(());
        }
        return Err(UserError::failed(
            "change policy provisionally: the list in force is in no file, to which a reboot could go back",
            "leave `--confirm-within` out; nothing changed",
        ));
    };
    Staged::write(path, &file)?.commit()?;
    if let Some(by) = by {
        history.record(&by);
    }
    eprint(
        "note: the ranges file was edited, and is not in force: during the trial it holds the list in force again; the edit is number 1 in `apifence ranges history`",
    );
    Ok(())
}
