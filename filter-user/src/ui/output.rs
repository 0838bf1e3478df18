//! Data on stdout, as text or for programs; messages on stderr. All output goes through here. A
//! failed write never panics, and a terminal gets no control character from a file, a name or a
//! peer.

use std::{
    fmt::Display,
    io::{self, Write as _},
    os::fd::AsFd as _,
    panic,
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
    json::Numbered,
    log::{self as json_log, Level},
    page::{Page, Records, Screen},
    style,
    table::Table,
    visible::{is_hidden, visible, visible_in_line},
};

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For people, with more columns
    Wide,
    /// For programs: one object
    Json,
    /// The same as YAML
    Yaml,
    /// For spreadsheets: rows of values
    Csv,
}

impl Output {
    /// Whether people read it.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }

    /// Writes the result of a change for programs; people read it on stderr as it happens.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn result<T: Serialize>(self, data: &T) -> Result<()> {
        self.object(data)?.map_or(Ok(()), print)
    }

    /// Writes one of many items, a line each, as long as the command runs.
    ///
    /// # Errors
    /// If stdout cannot be written; [`ReaderGone`] if its reader has gone.
    pub fn line<T: Serialize + Display>(self, data: &T) -> Result<()> {
        let text = self.item(data)?;
        write_item(&text.unwrap_or_else(|| visible(&data.to_string()).into_owned()))
    }

    /// Writes one of many items like [`line`](Self::line), as lines of a page.
    ///
    /// # Errors
    /// If stdout cannot be written; [`ReaderGone`] if its reader has gone.
    pub fn lines<T: Serialize + Screen>(self, data: &T) -> Result<()> {
        let text = self.item(data)?;
        write_item(&text.unwrap_or_else(|| self.page(data)))
    }

    /// Writes a line of the log of `run`: text to stderr, others to stdout. `data` has a `time`.
    ///
    /// # Errors
    /// If stdout cannot be written; [`ReaderGone`] if its reader has gone.
    pub fn log<T: Serialize + Display>(self, level: Level, data: &T) -> Result<()> {
        let text = match json_log::is_json() {
            true => Some(json_log::timed_line(level, data).context(WRITE_JSON)?),
            false => self.item(data)?,
        };
        match text {
            Some(text) => write_item(&text),
            None => {
                eprint(data);
                Ok(())
            }
        }
    }

    /// Writes `data` to stdout.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn write<T: Serialize + Display>(self, data: &T) -> Result<()> {
        match self.object(data)? {
            Some(text) => print(text),
            None => print(data),
        }
    }

    /// Writes `data` to stdout as a page.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn screen<T: Serialize + Screen>(self, data: &T) -> Result<()> {
        let text = match (self, self.object(data)?) {
            (_, Some(text)) => text,
            (Self::Csv, None) => csv(&data.records().unwrap_or_default()),
            (_, None) => self.page(data),
        };
        print_unescaped(&text)
    }

    /// `data` as a page for stdout.
    pub fn page<T: Screen>(self, data: &T) -> String {
        let mut page = Page::for_stdout(self == Self::Wide);
        data.show(&mut page);
        page.text_for_stdout()
    }

    /// `data` for programs; none if people read it, or a spreadsheet.
    fn object<T: Serialize>(self, data: &T) -> Result<Option<String>> {
        Ok(match self {
            Self::Text | Self::Wide | Self::Csv => None,
            Self::Json => Some(json(data)?),
            Self::Yaml => Some(yaml(data)?),
        })
    }

    /// The same for one of many items.
    fn item<T: Serialize>(self, data: &T) -> Result<Option<String>> {
        Ok(match self {
            Self::Text | Self::Wide | Self::Csv => None,
            Self::Json => Some(Numbered::new(data).line().context(WRITE_JSON)?),
            Self::Yaml => Some(format!("---\n{}", yaml(data)?.trim_end())),
        })
    }
}

const WRITE_JSON: &str = "write JSON";

fn write_item(text: &str) -> Result<()> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context(WRITE),
    }
}

/// The verb of a failed write.
const WRITE: &str = "write to stdout";

/// The reader of stdout has gone, as `head` does: an endless command ends without an error.
#[derive(Debug, thiserror::Error)]
#[error("write to stdout: the reader has gone")]
pub struct ReaderGone;

fn json<T: Serialize>(data: &T) -> Result<String> {
    Numbered::new(data).pretty().context(WRITE_JSON)
}

/// YAML with one line for each value. Where a value has hidden characters it is JSON, which is YAML
/// and can escape them all.
fn yaml<T: Serialize>(data: &T) -> Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let numbered = Numbered::new(data);
    let text = serde_saphyr::to_string_with_options(&numbered, options).context("write YAML")?;
    match text.contains(|letter| letter != '\n' && is_hidden(letter)) {
        true => json(data),
        false => Ok(text),
    }
}

/// Comma-separated values (RFC 4180), with the names of the columns first.
fn csv(records: &Records) -> String {
    let names = records.names.iter().map(|name| (*name).to_owned());
    let rows = records.rows.iter().cloned();
    let rows = [names.collect()].into_iter().chain(rows);
    let rows = rows.map(|row: Vec<String>| {
        let values: Vec<String> = row.iter().map(|value| csv_value(value)).collect();
        values.join(",")
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn csv_value(value: &str) -> String {
    let value = visible_in_line(value);
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.into_owned(),
    }
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
    style::choose_from_words();
    let text = error.render().to_string();
    if json_log::is_json() && error.use_stderr() {
        eprint(text);
        return Ok(EXIT_INPUT);
    }
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
    eprint_line(message(&text.to_string()));
}

/// A message as it is written.
fn message(text: &str) -> String {
    if json_log::is_json() {
        return json_log::message(text) + "\n";
    }
    let line = format!("{}\n", visible(text));
    match style::on_stderr() {
        true => style::message(&line),
        false => line,
    }
}

fn eprint_line(line: String) {
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

/// From now on each message of this process is a JSON object, that of a panic as well.
pub fn log_as_json() {
    if !json_log::begin_json() {
        panic::set_hook(Box::new(|panic| eprint(format_args!("error: {panic}"))));
    }
}

/// Writes a message with fields of its own to stderr.
pub fn eprint_fields<T: Serialize + Display>(level: Level, data: &T) {
    match json_log::is_json().then(|| json_log::line(level, data)) {
        Some(Ok(line)) => eprint_line(line + "\n"),
        _ => eprint(data),
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
                    let text =
                        format!("warning: {lost} lines are missing here: the reader was too slow");
                    write(Stream::Err, &message(&text));
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

/// Whether the reader of our stdout has gone, even without a write.
pub fn is_closed() -> bool {
    let stdout = io::stdout();
    let mut ask = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut ask, PollTimeout::ZERO).is_ok()
        && ask[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// A table of texts without colours, which fits the terminal.
pub fn table(header: &[&'static str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut page = Page::for_stdout(false);
    page.table(&Table::of(header, rows));
    page.text(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_quoted_where_a_spreadsheet_needs_it() {
        let records = Records {
            names: &["range", "comment"],
            rows: vec![
                vec!["192.0.2.1/32".to_owned(), "a, \"b\"\n\u{1b}".to_owned()],
                vec!["2001:db8::/32".to_owned(), String::new()],
            ],
        };
        assert_eq!(
            csv(&records),
            "range,comment\n192.0.2.1/32,\"a, \"\"b\"\"\\u{a}\\u{1b}\"\n2001:db8::/32,"
        );
    }

    #[test]
    fn yaml_has_a_line_for_each_value_and_no_hidden_character() {
        let data = json!({"a": [{"b": "no", "c": null}], "d": "two\nlines"});
        let text = yaml(&data).expect("YAML");
        assert_eq!(
            text,
            "schema: 1\na:\n- b: \"no\"\n  c: null\nd: \"two\\nlines\"\n"
        );
        let hidden = yaml(&json!({"a": "\u{202e}\u{1b}[31m"})).expect("YAML");
        assert!(hidden.is_ascii() && !hidden.contains('\x1b'), "{hidden}");
    }
}
