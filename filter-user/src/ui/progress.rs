//! A progress bar on stderr for a long change.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::is_json;

/// A faster change shows no bar.
const DELAY: Duration = Duration::from_secs(1);

/// Progress of a change. Appears after one second, if stderr is a terminal; leaves no trace.
pub struct Progress {
    /// When it began; none if it is never shown.
    since: Option<Instant>,
    bar: ProgressBar,
}

impl Progress {
    /// Starts with the change. A log for programs has no bar.
    pub fn start() -> Self {
        Self::since((!is_json()).then(Instant::now))
    }

    /// Never appears: a view has the terminal.
    pub fn hidden() -> Self {
        Self::since(None)
    }

    fn since(since: Option<Instant>) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} ranges")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            since,
            bar: bar.with_style(style),
        }
    }

    /// Sets the number of ranges.
    pub fn expect(&self, ranges: usize) {
        self.bar.set_length(ranges as u64);
    }

    /// Adds finished ranges.
    pub fn advance(&self, ranges: usize) {
        self.bar.inc(ranges as u64);
        let is_due = self.since.is_some_and(|since| since.elapsed() > DELAY);
        if self.bar.is_hidden() && is_due {
            // Stays hidden where stderr is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.tick();
        }
    }

    /// Removes the bar before a message.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
