//! Data on stdout, as text or as JSON; messages on stderr. All output goes through here. A failed
//! write never panics, and a terminal gets no control character from a file, a name or a peer.

use std::{
    fmt::Display,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::{
    error::{EXIT_FAILED, EXIT_INPUT, InputErrors, UserError, errno, hint},
    explain::io_error,
    held::hold,
    visible::{is_hidden, visible, visible_in_line, visible_json},
};

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs: one object
    Json,
}

impl Output {
    /// Writes the result of a change for programs; people read it on stderr as it happens.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn result<T: Serialize>(self, data: &T) -> Result<()> {
        match self {
            Self::Text => Ok(()),
            Self::Json => print(json(data)?),
        }
    }

    /// Writes one of many items, a line each, as long as the command runs.
    ///
    /// # Errors
    /// If stdout cannot be written; [`ReaderGone`] if its reader has gone.
    pub fn line<T: Serialize + Display>(self, data: &T) -> Result<()> {
        let text = match self {
            Self::Text => visible(&data.to_string()).into_owned(),
            Self::Json => visible_json(serde_json::to_string(data).context("write JSON")?),
        };
        match write(&text) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
            written => written.context(WRITE),
        }
    }

    /// Writes `data` to stdout.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn write<T: Serialize + Display>(self, data: &T) -> Result<()> {
        match self {
            Self::Text => print(data),
            Self::Json => print(json(data)?),
        }
    }
}

/// The verb of a failed write.
const WRITE: &str = "write to stdout";

/// The reader of stdout has gone, as `head` does: an endless command ends without an error.
#[derive(Debug, thiserror::Error)]
#[error("write to stdout: the reader has gone")]
pub struct ReaderGone;

fn json<T: Serialize>(data: &T) -> Result<String> {
    Ok(visible_json(
        serde_json::to_string_pretty(data).context("write JSON")?,
    ))
}

/// Writes `data` to stdout. It is not an error if the reader has gone.
///
/// # Errors
/// If stdout cannot be written.
pub fn print(data: impl Display) -> Result<()> {
    print_unescaped(&visible(&data.to_string()))
}

/// Writes a text without foreign words to stdout unescaped: a script may need its tabs.
///
/// # Errors
/// If stdout cannot be written.
pub fn print_unescaped(text: &str) -> Result<()> {
    ignore_closed_pipe(write(text.trim_end_matches('\n')))
}

/// Writes the text of `clap` in place of a command: help and version to stdout, wrong usage to
/// stderr. Returns the exit code.
///
/// # Errors
/// If stdout cannot be written.
pub fn usage(error: &clap::Error) -> Result<u8> {
    let text = error.render().to_string();
    if text.contains(|letter| letter != '\n' && is_hidden(letter)) {
        // An argument with control characters. Help has none.
        eprint(text.trim_end());
        return Ok(EXIT_INPUT);
    }
    // `clap` knows the colours of a terminal.
    let printed = error.print();
    if error.use_stderr() {
        return Ok(EXIT_INPUT);
    }
    ignore_closed_pipe(printed.and_then(|()| io::stdout().flush())).map(|()| 0)
}

fn write(text: &str) -> io::Result<()> {
    if hold(text) {
        return Ok(());
    }
    if let Some(queue) = QUEUE.get() {
        queue.put(Stream::Out, format!("{text}\n"));
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn ignore_closed_pipe(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(WRITE),
    }
}

/// Writes a message, not data.
pub fn eprint(text: impl Display) {
    let text = text.to_string();
    let line = format!("{}\n", visible(&text));
    if hold(&line) {
        return;
    }
    match QUEUE.get() {
        Some(queue) => queue.put(Stream::Err, line),
        // In one call, so that lines of several threads do not mix. Without stderr an error cannot
        // be reported.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Writes `error` with its hints; returns the exit code.
pub fn report_error(error: &anyhow::Error) -> u8 {
    if error.is::<ReaderGone>() {
        return 0;
    }
    if let Some(refusals) = error.downcast_ref::<InputErrors>() {
        refusals.lines().iter().for_each(eprint);
        return EXIT_INPUT;
    }
    let causes: Vec<String> = error
        .chain()
        .map(|cause| {
            cause
                .downcast_ref()
                .map_or_else(|| cause.to_string(), errno)
        })
        .collect();
    let causes = causes.join(": ");
    let Some(problem) = error.downcast_ref::<UserError>() else {
        let shown = "`apifence status` shows what is in force";
        let hint = io_error(&**error).map_or(shown, |error| hint(error, shown));
        eprint(format_args!("error: {causes}\nhint: {hint}"));
        return EXIT_FAILED;
    };
    let word = if problem.refused { "refused" } else { "error" };
    eprint(format_args!("{word}: {causes}\nhint: {}", problem.hint));
    problem.details.iter().for_each(eprint);
    problem.exit
}

/// The maximum number of lines that wait for the reader.
const QUEUE_LEN: usize = 1024;
/// The time limit for the last lines at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Lines for the writer thread, which alone waits for the reader.
struct Queue {
    lines: SyncSender<QueuedLine>,
    /// The number of lines that found no room.
    lost: AtomicU64,
}

enum QueuedLine {
    Text(Stream, String),
    /// Answered once all earlier lines are written.
    Last(SyncSender<()>),
}

enum Stream {
    Out,
    Err,
}

impl Queue {
    fn put(&self, stream: Stream, line: String) {
        if self.lines.try_send(QueuedLine::Text(stream, line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// From now on a separate thread writes. A reader that does not read, or a terminal that is
/// stopped, blocks nothing else. Lines without room are counted, and the count is written once
/// there is room.
///
/// # Errors
/// If the thread cannot be started.
pub fn write_behind() -> Result<()> {
    let (lines, taken) = sync_channel(QUEUE_LEN);
    let lost = AtomicU64::new(0);
    if QUEUE.set(Queue { lines, lost }).is_err() {
        return Ok(());
    }
    let write = |stream, text: &str| {
        // An error is ignored: the filter does not depend on a reader.
        let _ = match stream {
            Stream::Out => io::stdout().write_all(text.as_bytes()),
            Stream::Err => io::stderr().write_all(text.as_bytes()),
        };
    };
    thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || {
            for line in taken {
                match line {
                    QueuedLine::Text(stream, text) => write(stream, &text),
                    QueuedLine::Last(answer) => drop(answer.send(())),
                }
                let lost = QUEUE
                    .get()
                    .map(|queue| queue.lost.swap(0, Ordering::Relaxed));
                if let Some(lost @ 1..) = lost {
                    write(
                        Stream::Err,
                        &format!(
                            "warning: {lost} lines are missing here: nobody took them in time\n"
                        ),
                    );
                }
            }
        })
        .context("start thread")?;
    Ok(())
}

/// Waits until all output is written, if the reader reads it.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    let (answer, answered) = sync_channel(1);
    let mut last = QueuedLine::Last(answer);
    while let Err(TrySendError::Full(line)) = queue.lines.try_send(last) {
        if Instant::now() >= deadline {
            return;
        }
        last = line;
        thread::sleep(Duration::from_millis(5));
    }
    let _ = answered.recv_timeout(FLUSH_TIMEOUT);
}

/// Writes the log of other crates and of the kernel program: warnings, or with `verbose`
/// everything.
pub fn init_logger(verbose: bool) {
    let level = if verbose {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Warn
    };
    // It can be set once in a process: the first one stays.
    if log::set_logger(&Logs).is_ok() {
        log::set_max_level(level);
    }
}

struct Logs;

impl log::Log for Logs {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("apifence");
        own || metadata.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            eprint(format_args!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Whether the reader of our stdout has gone, even without a write.
pub fn is_closed() -> bool {
    let stdout = io::stdout();
    let mut ask = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut ask, PollTimeout::ZERO).is_ok()
        && ask[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// A table without borders, its columns aligned.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header);
    // Escaped before the columns are measured.
    let visible = |cell: String| visible_in_line(&cell).into_owned();
    let rows = rows.into_iter();
    table.add_rows(rows.map(|row| row.into_iter().map(visible).collect::<Vec<_>>()));
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}
