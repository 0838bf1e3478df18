//! The state that only the process knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{codes::Code, ranges::ListName};

/// The state of `run`. The process writes it through a watch channel; monitoring reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The names of the interfaces to guard, present or not.
    pub interfaces: Vec<String>,
    /// Why some of them are unguarded, by name.
    pub refused: BTreeMap<String, String>,
    /// The ifindexes of the guarded ones.
    pub guarded: BTreeSet<u32>,
    /// Whether every interface was tried once, with a policy in the kernel.
    pub started: bool,
    /// The policy in force instead of unusable files, and why; none once the files are in force.
    pub fallback: Option<String>,
    /// How often the files could not be put in force.
    pub reload_failures: u64,
    /// Why that failed the last time; none if it succeeded.
    pub reload_error: Option<String>,
    /// How the kernel differs from the files; none if it does not.
    pub drift: Option<String>,
    /// Other faults of the filter; empty if there are none.
    pub fault: String,
    /// The number of warnings, by code and by whether they are acknowledged.
    pub warnings: BTreeMap<(Code, bool), u64>,
    /// The lists.
    pub lists: BTreeMap<ListName, ListHealth>,
    /// The policy in force, in a line for the service manager.
    pub summary: String,
}

/// A list as it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHealth {
    /// Whether its file can be used; if not, its last good entries count. By default it cannot.
    pub usable: bool,
    /// Its ranges.
    pub ranges: usize,
    /// The times at which some of them expire, sorted.
    pub expiries: Arc<[Timestamp]>,
}

impl ListHealth {
    /// The list that consists of these entries; each is its expiry, if it has one.
    pub fn of(usable: bool, entries: impl Iterator<Item = Option<Timestamp>>) -> Self {
        let mut ranges = 0;
        let mut expiries: Vec<Timestamp> = entries.inspect(|_| ranges += 1).flatten().collect();
        expiries.sort_unstable();
        Self {
            usable,
            ranges,
            expiries: expiries.into(),
        }
    }

    /// The number of ranges that have expired at `now`, and the time when the next one expires.
    pub fn expiry(&self, now: Timestamp) -> (usize, Option<Timestamp>) {
        let expired = self.expiries.partition_point(|time| *time <= now);
        (expired, self.expiries.get(expired).copied())
    }
}

impl Health {
    /// Records that the files were put in force, or why not.
    pub fn reloaded(&mut self, error: Option<String>) {
        self.reload_failures += u64::from(error.is_some());
        self.reload_error = error;
    }

    /// Why the node may not be guarded as its files say, as far as the process knows.
    pub fn problems(&self) -> Vec<String> {
        let starting = (!self.started).then(|| "starting: the files are not compared with the kernel yet; an attached filter stays in force".to_owned());
        let reload = self.reload_error.as_ref().map(|error| {
            format!("the files are not in force; the previous policy stays in force: {error}")
        });
        let drift = self.drift.as_ref().map(|drift| format!("drift: {drift}"));
        let cluster = self.lists.iter().filter(|(name, _)| name.is_of_cluster());
        let cluster = cluster.filter(|(_, list)| !list.usable).map(|(name, _)| {
            format!("the file `{name}` is invalid: its last good ranges stay in force")
        });
        let fault = (!self.fault.is_empty()).then(|| self.fault.clone());
        [starting, self.fallback.clone(), reload, drift, fault]
            .into_iter()
            .flatten()
            .chain(cluster)
            .collect()
    }
}

/// When each loop of the process last ran. A loop that hangs in a system call does not stop the
/// others, so its age is the only sign.
#[derive(Debug)]
pub struct Heartbeats {
    began: Instant,
    guard: AtomicU64,
    follower: AtomicU64,
}

/// A loop that runs as long as the process.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// Keeps the filter on the interfaces.
    Guard,
    /// Puts the files in force.
    Follower,
}

/// The limit for the guard. It runs several times a second, and waits for nothing but the kernel.
const GUARD_LIMIT: Duration = Duration::from_secs(10);
/// The limit for the follower. A million ranges take it some seconds.
const FOLLOWER_LIMIT: Duration = Duration::from_secs(60);

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            guard: AtomicU64::new(0),
            follower: AtomicU64::new(0),
        }
    }
}

impl Heartbeats {
    /// Records that the loop runs now.
    pub fn beat(&self, which: Loop) {
        let now = self.began.elapsed().as_millis() as u64;
        self.time_of(which).store(now, Ordering::Relaxed);
    }

    /// The failure if the guard hangs: the process cannot keep the port guarded.
    pub fn guard_stall(&self) -> Option<String> {
        self.stalled_for(Loop::Guard, GUARD_LIMIT)
            .map(|time| format!("the thread that guards the interfaces has not run for {time} s"))
    }

    /// The same for any loop.
    pub fn problems(&self) -> Vec<String> {
        let follower = self
            .stalled_for(Loop::Follower, FOLLOWER_LIMIT)
            .map(|time| format!("the thread that follows the files has not run for {time} s"));
        self.guard_stall().into_iter().chain(follower).collect()
    }

    fn time_of(&self, which: Loop) -> &AtomicU64 {
        match which {
            Loop::Guard => &self.guard,
            Loop::Follower => &self.follower,
        }
    }

    /// The seconds since the last run, if they exceed `limit`.
    fn stalled_for(&self, which: Loop, limit: Duration) -> Option<u64> {
        let last = Duration::from_millis(self.time_of(which).load(Ordering::Relaxed));
        let time = self.began.elapsed().saturating_sub(last);
        (time > limit).then_some(time.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_last_until_every_fault_is_fixed() {
        let mut health = Health::default();
        assert_eq!(
            health.problems(),
            [
                "starting: the files are not compared with the kernel yet; an attached filter stays in force"
            ]
        );
        health.started = true;
        assert_eq!(health.problems(), [""; 0]);
        for _ in 0..2 {
            health.reloaded(Some("ranges:1: nonsense".to_owned()));
        }
        health.drift = Some("another list".to_owned());
        health.fallback = Some("the policy last in force".to_owned());
        assert_eq!(health.problems().len(), 3);
        health.drift = None;
        health.fallback = None;
        health.reloaded(None);
        assert_eq!(health.problems(), [""; 0]);
        assert_eq!(health.reload_failures, 2, "failures stay counted");
    }

    #[test]
    fn the_next_expiry_is_the_first_that_is_not_past() {
        let time = |second| Timestamp::from_second(second).expect("a time");
        let entries = [Some(30), None, Some(10), Some(20)];
        let list = ListHealth::of(true, entries.into_iter().map(|second| second.map(time)));
        assert_eq!(list.ranges, 4);
        assert_eq!(list.expiry(time(9)), (0, Some(time(10))));
        assert_eq!(list.expiry(time(10)), (1, Some(time(20))));
        assert_eq!(list.expiry(time(30)), (3, None));
        assert_eq!(ListHealth::default().expiry(time(0)), (0, None));
    }

    #[test]
    fn a_hanging_loop_is_reported() {
        let Some(began) = Instant::now().checked_sub(GUARD_LIMIT * 2) else {
            panic!("the machine was started just now");
        };
        let heartbeats = Heartbeats {
            began,
            ..Heartbeats::default()
        };
        assert!(
            heartbeats
                .guard_stall()
                .is_some_and(|message| message.contains("20 s"))
        );
        assert_eq!(
            heartbeats.problems().len(),
            1,
            "the follower may take longer"
        );
        heartbeats.beat(Loop::Guard);
        assert_eq!(heartbeats.problems(), [""; 0]);
    }
}
