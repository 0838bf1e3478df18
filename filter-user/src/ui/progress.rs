//! A bar on stderr, for a change that takes its time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a change has come. Shows itself once it takes more than a second, if stderr is a terminal; leaves no trace.
pub struct Progress {
    since: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// The change begins.
    pub fn start() -> Self {
        let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} ranges")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            since: Instant::now(),
            bar: bar.with_style(style),
        }
    }

    /// It is about this many ranges.
    pub fn expect(&self, ranges: usize) {
        self.bar.set_length(ranges as u64);
    }

    /// This many more of them are done.
    pub fn advance(&self, ranges: usize) {
        self.bar.inc(ranges as u64);
        if self.bar.is_hidden() && self.since.elapsed() > PATIENCE {
            // Stays hidden where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.tick();
        }
    }

    /// Takes the bar away, for what there is to say.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
