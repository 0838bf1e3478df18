//! One moment on several clocks: the wall clock, which can be set, and the kernel's, which cannot.

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp, Unit};
use nix::time::{ClockId, clock_gettime};

/// Several clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Wall-clock time.
    pub wall: Timestamp,
    /// Nanoseconds since boot, suspend included: the program compares expiries with it.
    pub boot: u64,
    /// Nanoseconds since boot without suspend: the program records it with each packet.
    pub monotonic: u64,
}

impl Clocks {
    /// Reads the clocks.
    ///
    /// # Errors
    /// If the kernel has no such clock.
    pub fn now() -> Result<Self> {
        Ok(Self {
            wall: Timestamp::now(),
            boot: read(ClockId::CLOCK_BOOTTIME)?,
            monotonic: read(ClockId::CLOCK_MONOTONIC)?,
        })
    }

    /// How far the wall clock is ahead of the boot clock, in nanoseconds; changes when the wall
    /// clock is set.
    pub fn wall_minus_boot(&self) -> i128 {
        self.wall.as_nanosecond() - i128::from(self.boot)
    }

    /// The boot clock at the wall-clock time `wall`; 0 if that was before boot. Correct until the
    /// wall clock is set.
    pub fn boot_at(&self, wall: Timestamp) -> u64 {
        let away = wall.duration_since(self.wall).as_nanos();
        (i128::from(self.boot) + away).clamp(0, i128::from(u64::MAX)) as u64
    }

    /// The wall-clock time at `boot` on the boot clock.
    pub fn wall_at_boot(&self, boot: u64) -> Timestamp {
        self.wall_in(i128::from(boot) - i128::from(self.boot))
    }

    /// The wall-clock time at `monotonic` on the monotonic clock.
    pub fn wall_at_monotonic(&self, monotonic: u64) -> Timestamp {
        self.wall_in(i128::from(monotonic) - i128::from(self.monotonic))
    }

    fn wall_in(&self, nanoseconds: i128) -> Timestamp {
        let away = SignedDuration::from_nanos_i128(nanoseconds);
        self.wall.saturating_add(away).unwrap_or(Timestamp::MAX)
    }
}

/// Rounds to the nearest second, for people and programs.
pub fn to_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}

fn read(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock).context("read clock")?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_on_a_moment() {
        let now = Clocks::now().expect("clocks");
        let later = now.wall + SignedDuration::from_secs(90);
        assert_eq!(now.boot_at(later), now.boot + 90_000_000_000);
        assert_eq!(now.wall_at_boot(now.boot + 90_000_000_000), later);
        assert_eq!(now.wall_at_monotonic(now.monotonic), now.wall);
        assert_eq!(now.boot_at(Timestamp::MIN), 0);
        let centuries = SignedDuration::from_hours(500 * 365 * 24);
        assert!(now.wall_at_boot(u64::MAX) > now.wall + centuries);
    }
}
