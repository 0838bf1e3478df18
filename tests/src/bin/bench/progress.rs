//! Progress of the measurement, on stderr.

use std::{
    fmt::Display,
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

/// The progress of a part.
pub(crate) struct Progress {
    part: &'static str,
    since: Instant,
    terminal: bool,
}

impl Progress {
    /// Starts a part.
    pub(crate) fn new(part: &'static str) -> Self {
        Self {
            part,
            since: Instant::now(),
            terminal: stderr().is_terminal(),
        }
    }

    /// Shows the next step: on a terminal in place of the previous one, in a log on a line of its
    /// own.
    pub(crate) fn show(&self, what: impl Display) {
        let seconds = self.elapsed().as_secs();
        let line = format!("{} {}:{:02}  {what}", self.part, seconds / 60, seconds % 60);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Shows the next round; those after the last planned one make up for disturbed ones.
    pub(crate) fn round(&self, round: usize, planned: usize) {
        let more = if round <= planned {
            ""
        } else {
            ", to make up for disturbed ones"
        };
        self.show(format_args!("round {round} of {planned}{more}"));
    }

    /// Time since the part started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
