//! What is being done, said on stderr while it lasts.

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
    /// Of a part that begins now.
    pub(crate) fn new(part: &'static str) -> Self {
        Self {
            part,
            since: Instant::now(),
            terminal: stderr().is_terminal(),
        }
    }

    /// Says what is done next: in place of what was said before on a terminal, a line each in a log.
    pub(crate) fn say(&self, what: impl Display) {
        let seconds = self.elapsed().as_secs();
        let line = format!("{} {}:{:02}  {what}", self.part, seconds / 60, seconds % 60);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Says which round is next; those after the last one planned make up for disturbed ones.
    pub(crate) fn round(&self, round: usize, planned: usize) {
        let more = if round <= planned {
            ""
        } else {
            ", to make up for disturbed ones"
        };
        self.say(format_args!("round {round} of {planned}{more}"));
    }

    /// How long the part lasts so far.
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
