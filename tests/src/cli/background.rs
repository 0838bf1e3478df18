//! Commands that run until they are ended.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::Child,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::schema::Asked;
use crate::wait::{PATIENCE, until_ended};

/// An `apifence` in the background. Killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    /// Each line; an error if it is not as its schema says.
    lines: Receiver<Result<String, String>>,
}

impl Background {
    /// A process that was started with both streams in pipes.
    pub fn from_child(child: Child) -> Result<Self> {
        Self::checked(child, None)
    }

    /// The same, with the lines that its command line asks for.
    pub(super) fn checked(mut child: Child, asked: Option<Asked>) -> Result<Self> {
        let (sender, lines) = mpsc::channel();
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().context("no stdout")?);
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().context("no stderr")?);
        let messages = asked.clone().filter(|asked| asked.json && asked.is_log());
        for (stream, asked) in [(stdout, asked), (stderr, messages)] {
            let sender = sender.clone();
            thread::spawn(move || read_lines(stream, asked.as_ref(), &sender));
        }
        Ok(Self { child, lines })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"))
    }

    /// Waits for a line of either stream that `wanted` accepts, and returns it.
    pub fn line(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(Err(fault)) => bail!("{fault}"),
                Ok(Ok(line)) if wanted(&line) => return Ok(line),
                Ok(Ok(line)) => seen = format!("{seen}{line}\n"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no such line in {PATIENCE:?}, only:\n{seen}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("ended without such a line, only:\n{seen}")
                }
            }
        }
    }

    /// Its output until a line that contains `end`.
    pub fn log_until(&mut self, end: &str) -> Result<String> {
        let mut log = String::new();
        while !log
            .lines()
            .next_back()
            .is_some_and(|line| line.contains(end))
        {
            log += &format!("{}\n", self.line(|_| true)?);
        }
        Ok(log)
    }

    /// What it printed since the last line that was waited for.
    ///
    /// # Panics
    /// If a line is not as its schema says.
    pub fn output(&self) -> String {
        let lines = self.lines.try_iter();
        let lines = lines.map(|line| line.unwrap_or_else(|fault| panic!("{fault}")));
        lines.map(|line| line + "\n").collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Waits for its end; the exit code, or `None` if a signal ended it.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        Ok(until_ended(&mut self.child)?.code())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Whether it has ended before does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            // The lines that no test waited for.
            drop(self.output());
        }
    }
}

/// Sends each line of `stream`, until its end or until no test waits.
fn read_lines(stream: impl Read, asked: Option<&Asked>, sender: &Sender<Result<String, String>>) {
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while stream
        .read_until(b'\n', &mut bytes)
        .is_ok_and(|len| len > 0)
    {
        let is_whole = bytes.ends_with(b"\n");
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\n').to_owned();
        // A process that was killed may have written a part.
        let checked = match asked {
            Some(asked) if is_whole && is_object(asked, &line) => asked.check(&line),
            _ => Ok(()),
        };
        let line = checked.map(|()| line).map_err(|fault| format!("{fault:#}"));
        if sender.send(line).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Whether the line is a whole object: most commands spread theirs over several lines.
fn is_object(asked: &Asked, line: &str) -> bool {
    let each = ["events", "run", "stats-watch"];
    each.contains(&asked.schema.as_str()) && (asked.json || line.starts_with('{'))
}

/// A process of ours that must not outlive the test.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Whether it has ended before does not matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
