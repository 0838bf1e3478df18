//! `apifence ranges edit`: the list in an editor, checked when that is closed, and then a change like any other.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, change::Writer};
use crate::{
    cli::{ChangeArgs, EditArgs},
    output::{say, tell},
    pins::make_private,
    problem::{EXIT_INPUT, Problem, errno},
    ranges::{List, RangesFile},
    state::{Input, read_ranges, written},
};

/// How long an edit is on trial, unless told otherwise: as long as it takes to try the connection that matters.
const TRIAL: Duration = Duration::from_secs(60);

/// Runs the command.
pub(super) async fn run(context: &Context, args: EditArgs) -> Result<u8> {
    let mut edit = Edit::open(context)?;
    edit.begin(args.discard)?;
    let mut change = args.change;
    if change.confirm_within.is_none() && !args.no_trial && context.maps()?.is_some() {
        change.confirm_within = Some(TRIAL);
    }
    loop {
        edit.run_editor()?;
        let error = match edit.take(&change).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let exit = tell(&error);
        match edit.ask("e: edit again, q: quit; the edit is kept").await {
            Some('e') => {}
            _ => {
                edit.leave();
                return Ok(exit);
            }
        }
    }
}

/// A copy of the ranges file that somebody edits. It stays until what it says is in the ranges file: whatever ends the terminal, or a trial that
/// nobody confirms, loses nothing of it.
struct Edit<'a> {
    context: &'a Context,
    copy: PathBuf,
    /// The ranges file as the copy was made from it.
    base: Vec<u8>,
    /// Whatever is typed in the editor must not end this process.
    interrupt: Signal,
    _lock: File,
}

impl<'a> Edit<'a> {
    fn open(context: &'a Context) -> Result<Self> {
        let directory = &context.config.state_dir;
        let explain = |error: io::Error| {
            Problem::failed(
                format!(
                    "edit ranges in `{}`: {}",
                    directory.display(),
                    errno(&error)
                ),
                "name a directory that can be written with `--state-dir`; nothing changed",
            )
        };
        make_private(directory).map_err(explain)?;
        // One for each ranges file.
        let name = context.global.ranges_file.display().to_string();
        let copy = directory.join(format!("edit{}", name.replace('/', "-")));
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(copy.with_extension("lock"))
            .map_err(explain)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Problem::failed(
                    "edit ranges: somebody else is at it",
                    "`apifence ranges add` and `remove` work meanwhile; nothing changed",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(explain(error)),
        }
        Ok(Self {
            context,
            copy,
            base: Vec::new(),
            interrupt: signal(SignalKind::interrupt()).context("wait for signals")?,
            _lock: lock,
        })
    }

    /// Makes the copy; or goes on with one that is there, if it says something else than the file.
    fn begin(&mut self, discard: bool) -> Result<()> {
        let path = &self.context.global.ranges_file;
        self.base = read(path)?;
        let kept = fs::read(&self.copy).ok().filter(|kept| *kept != self.base);
        match kept {
            Some(_) if !discard => {
                let since = written(&self.copy).unwrap_or(Timestamp::UNIX_EPOCH);
                say(format_args!(
                    "note: going on with the edit of {since:.0}, which is not in force (`ranges edit --discard` begins anew)"
                ));
                Ok(())
            }
            _ => self.write(),
        }
    }

    fn write(&self) -> Result<()> {
        let text: &[u8] = if self.base.is_empty() {
            b"# One entry a line: CIDR [expires=2027-01-31T18:00:00Z] [# comment]\n"
        } else {
            &self.base
        };
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.copy)
            .with_context(|| format!("write `{}`", self.copy.display()))?;
        file.write_all(text)
            .with_context(|| format!("write `{}`", self.copy.display()))
    }

    fn run_editor(&mut self) -> Result<()> {
        let editor = ["SUDO_EDITOR", "VISUAL", "EDITOR"]
            .iter()
            .filter_map(|name| env::var(name).ok())
            .find(|editor| !editor.trim().is_empty())
            .unwrap_or_else(|| "vi".to_owned());
        // The variable may hold arguments, too.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$1\""))
            .args(["sh".as_ref(), self.copy.as_os_str()])
            .status()
            .with_context(|| format!("start editor `{editor}`"))?;
        if status.success() {
            return Ok(());
        }
        Err(Problem::failed(
            format!("edit ranges: the editor `{editor}` failed ({status})"),
            format!(
                "`EDITOR` names another one; what was saved is in `{}`; nothing changed",
                self.copy.display()
            ),
        ))
    }

    /// Makes what was edited the list.
    async fn take(&mut self, change: &ChangeArgs) -> Result<u8> {
        let path = &self.context.global.ranges_file;
        let text = read(&self.copy)?;
        if text == self.base {
            self.forget();
            say("nothing was edited: nothing changed");
            return Ok(0);
        }
        let input = Input::read(&self.copy)?;
        let file = input.parse()?;
        let now = read(path)?;
        if now != self.base {
            self.tell_meanwhile(&now);
            let answer = self
                .ask("e: edit again, y: replace what the file says now (it stays in the history), q: quit")
                .await;
            match answer {
                Some('y') => {}
                Some('e') => {
                    self.base = now;
                    self.run_editor()?;
                    return Box::pin(self.take(change)).await;
                }
                _ => {
                    self.leave();
                    return Ok(EXIT_INPUT);
                }
            }
            self.base = now;
        }
        let done = Writer::new(self.context)?.change(&file, change).await?;
        if read_ranges(path).is_ok_and(|said| said.as_ref() == Some(&file)) {
            self.forget();
        }
        Ok(done)
    }

    /// Says what somebody else changed in the file, which says `now` what was not copied.
    fn tell_meanwhile(&self, now: &[u8]) {
        let list = |bytes: &[u8]| -> Option<List> {
            let file = RangesFile::parse(std::str::from_utf8(bytes).ok()?).ok()?;
            Some(file.list())
        };
        let difference = list(&self.base)
            .zip(list(now))
            .map(|(before, now)| crate::ranges::Difference::new(before.entries(), now.entries()));
        let what = difference.map_or_else(String::new, |difference| format!(": {difference}"));
        say(format_args!(
            "warning: the ranges file was changed while you edited it{what}; your edit does not have that"
        ));
    }

    /// Asks, where somebody is there to answer.
    async fn ask(&mut self, question: &str) -> Option<char> {
        if !io::stdin().is_terminal() {
            return None;
        }
        say(format_args!("{question}"));
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).ok()?;
            line.trim().chars().next()
        });
        tokio::select! {
            answer = answer => answer.ok().flatten(),
            _ = self.interrupt.recv() => None,
        }
    }

    /// Says where the edit is.
    fn leave(&self) {
        say(format_args!(
            "note: the edit is kept in `{}`: `apifence ranges edit` goes on with it, `--discard` begins anew",
            self.copy.display()
        ));
    }

    fn forget(&self) {
        // What says the same as the file is not gone on with.
        let _ = fs::remove_file(&self.copy);
    }
}

/// The bytes of a file; none if there is no file.
fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("read `{}`", path.display())),
    }
}
