//! Commands that run until they are ended.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::Child,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::{PATIENCE, until_ended};

/// An `apifence` in the background. Killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    lines: Receiver<String>,
}

impl Background {
    /// A process that was started with both streams in pipes.
    pub fn from_child(mut child: Child) -> Result<Self> {
        let (sender, lines) = mpsc::channel();
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().context("no stdout")?);
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().context("no stderr")?);
        for stream in [stdout, stderr] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
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
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(line) => seen = format!("{seen}{line}\n"),
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
    pub fn output(&self) -> String {
        self.lines.try_iter().map(|line| line + "\n").collect()
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
    }
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
