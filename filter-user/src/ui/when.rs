//! Times and durations as people read them.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use super::number::count;
use crate::clock::to_second;

static UTC: AtomicBool = AtomicBool::new(false);

/// From now on times are shown in UTC, as RFC 3339 has them, and not relative to now.
pub fn show_utc() {
    UTC.store(true, Ordering::Relaxed);
}

/// Whether times are shown in UTC.
pub fn is_utc() -> bool {
    UTC.load(Ordering::Relaxed)
}

/// `time` as `2 min ago` or `in 29 d`; in UTC if that is asked for.
pub fn when(time: Timestamp, now: Timestamp) -> String {
    match is_utc() {
        true => to_second(time).to_string(),
        false => relative(time, now),
    }
}

/// `time` as `2 min ago`, `in 29 d` or `now`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds.unsigned_abs())),
        _ => format!("{} ago", span(seconds.unsigned_abs())),
    }
}

/// A duration in its largest unit: `43 s`, `12 min`, `3 h`, `29 d`.
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let (size, unit) = UNITS
        .into_iter()
        // Two days at least: `30 h` says more than `1 d`.
        .find(|(size, unit)| seconds >= *size * if *unit == "d" { 2 } else { 1 })
        .unwrap_or((1, "s"));
    format!("{} {unit}", count(seconds / size))
}

/// A time of day to the millisecond, always with three digits: columns stay aligned.
pub fn to_the_millisecond(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn the_largest_unit_says_enough() {
        let now = Timestamp::UNIX_EPOCH;
        for (seconds, want) in [
            (0, "now"),
            (43, "in 43 s"),
            (-59, "59 s ago"),
            (-125, "2 min ago"),
            (3600 * 3 + 5, "in 3 h"),
            (-3600 * 47, "47 h ago"),
            (86_400 * 29 + 600, "in 29 d"),
            (-86_400 * 1500, "1,500 d ago"),
        ] {
            let time = now + SignedDuration::from_secs(seconds);
            assert_eq!(relative(time, now), want);
        }
        let time = now + SignedDuration::from_millis(1250);
        assert_eq!(to_the_millisecond(time), "1970-01-01T00:00:01.250Z");
    }
}
