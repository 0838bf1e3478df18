//! The growth rate of a count over the last few samples.

use std::{collections::VecDeque, time::Duration};

/// The number of samples in a rate, so that one packet a second does not flicker.
pub(crate) const WINDOW: usize = 6;

/// The times of the last samples, the newest last. Every [`Meter`] has its counts at these times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(VecDeque<Duration>);

impl Times {
    pub(crate) fn push(&mut self, at: Duration) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(at);
    }

    pub(crate) fn last(&self) -> Option<Duration> {
        self.0.back().copied()
    }

    /// The time between the first and the last of them, in seconds.
    fn span(&self) -> f64 {
        match (self.0.front(), self.0.back()) {
            (Some(first), Some(last)) => last.saturating_sub(*first).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// A count at the last samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter([u64; WINDOW]);

impl Meter {
    /// A count that was `before` until now.
    pub(crate) const fn new(before: u64) -> Self {
        Self([before; WINDOW])
    }

    /// Adds the present total. A total that decreases belongs to a new counter from zero.
    pub(crate) fn push(&mut self, total: u64) {
        if total < self.total() {
            *self = Self::new(0);
        }
        self.0.rotate_left(1);
        self.0[WINDOW - 1] = total;
    }

    pub(crate) const fn total(&self) -> u64 {
        self.0[WINDOW - 1]
    }

    /// The growth since the sample before.
    pub(crate) const fn step(&self) -> u64 {
        self.total() - self.0[WINDOW - 2]
    }

    /// Growth per second over all `times`; 0 while there is only one.
    pub(crate) fn rate(&self, times: &Times) -> f64 {
        let span = times.span();
        let oldest = WINDOW - times.0.len().max(1);
        if span > 0.0 {
            (self.total() - self.0[oldest]) as f64 / span
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spans_the_window_and_restarts_with_its_count() {
        let mut times = Times::default();
        let mut meter = Meter::new(1000);
        times.push(Duration::from_secs(1));
        meter.push(1000);
        assert_eq!(meter.rate(&times), 0.0);
        times.push(Duration::from_secs(3));
        meter.push(1010);
        assert_eq!(meter.rate(&times), 5.0);
        assert_eq!(meter.step(), 10);
        for second in 4..20 {
            times.push(Duration::from_secs(second));
            meter.push(meter.total() + 7);
        }
        assert_eq!(meter.rate(&times), 7.0);
        meter.push(35);
        assert_eq!((meter.total(), meter.rate(&times)), (35, 7.0));
    }
}
