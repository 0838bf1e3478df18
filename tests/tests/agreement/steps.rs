//! The operator's next step, at random.

use fastrand::Rng;
use ipnet::IpNet;

use super::{
    list::{Entry, Line, List},
    model::{Command, Expires, Mode, Policy, Verb, net},
    world::{Lapsed, World},
};

/// Few ranges, so that they collide: nested, adjacent, around and inside an implicit one.
const RANGES: [&str; 12] = [
    "203.0.113.0/24",
    "203.0.113.0/28",
    "203.0.113.8/30",
    "203.0.113.9/32",
    "203.0.113.10/32",
    "203.0.113.64/26",
    "203.0.113.77/32",
    "198.51.100.0/24",
    "2001:db8:bb::/48",
    "2001:db8:bb::/64",
    "2001:db8:bb::9/128",
    "2001:db8:bb:1::/64",
];

const COMMENTS: [&str; 3] = ["office", "a guest", "über #2"];

const FILES: &str = "fsync,renameat,rename,linkat,link,unlink,write";

/// The next step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Run(Command),
    /// A change on trial without a confirmation.
    Lapse(Command),
    /// A command, killed at one of these system calls.
    Kill(Command, &'static str, usize),
    /// An edit of the ranges file by hand.
    Edit(List),
    /// A wait until the next entry has expired.
    Wait,
    /// A reboot; then `attach` runs, and once more with `--force` if it was refused.
    Boot,
}

pub(crate) fn first_world() -> World {
    let file = List::from_entries(
        [
            ("203.0.113.0/24", Some("office")),
            ("2001:db8:bb::/48", None),
        ]
        .map(|(range, comment)| Entry {
            range: net(range),
            expires: None,
            comment: comment.map(str::to_owned),
        }),
    );
    let mut world = World {
        policy: Policy {
            list: file.clone(),
            mode: Mode::Enforce,
        },
        file,
        trial: None,
        lapsed: Lapsed::No,
        history: Vec::new(),
        booted: false,
    };
    world.record();
    world
}

fn ranges(rng: &mut Rng, most: usize) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = RANGES.map(net).to_vec();
    rng.shuffle(&mut all);
    all.truncate(rng.usize(1..=most));
    all
}

fn some<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// A time: soon, far, or past.
fn time(rng: &mut Rng, now: i64) -> i64 {
    match rng.u8(..10) {
        0 => now - 3600,
        1..=4 => now + 4,
        _ => now + 3600 * i64::from(rng.u8(1..4)),
    }
}

fn entry(rng: &mut Rng, range: IpNet, now: i64) -> Entry {
    let expires = rng.bool().then(|| time(rng, now));
    let comment = rng.bool().then(|| some(rng, &COMMENTS).to_owned());
    Entry {
        range,
        expires,
        comment,
    }
}

/// A list as a person writes it: some ranges twice, some in other notations, with lines in between.
fn list(rng: &mut Rng, now: i64) -> List {
    let mut lines = Vec::new();
    for range in ranges(rng, 6) {
        if rng.u8(..4) == 0 {
            lines.push(Line::Text(
                some(rng, &["# ours", "", "  # and theirs"]).to_owned(),
            ));
        }
        for _ in 0..=u8::from(rng.u8(..6) == 0) {
            let entry = entry(rng, range, now);
            lines.push(
                match (&entry.expires, range.prefix_len() == range.max_prefix_len()) {
                    (None, true) if entry.comment.is_none() => {
                        Line::Entry(range.addr().to_string(), entry)
                    }
                    _ => Line::from_entry(entry),
                },
            );
        }
    }
    List(lines)
}

/// The file of `world`, slightly changed.
fn edited(rng: &mut Rng, world: &World, now: i64) -> List {
    let mut list = world.file.clone();
    let has_switch = list.entries().next().is_none();
    match rng.u8(..7) {
        _ if has_switch || list.is_broken() => return self::list(rng, now),
        0 => return self::list(rng, now),
        1 => {
            let text = some(rng, &["# by hand", "203.0.113.9/33", "office 203.0.113.9"]);
            list.0.insert(
                0,
                match text.starts_with('#') {
                    true => Line::Text(text.to_owned()),
                    false => Line::Broken(text.to_owned()),
                },
            );
        }
        2 | 3 => {
            let range = some(rng, &RANGES.map(net));
            let entry = entry(rng, range, now);
            list.0.push(Line::from_entry(entry));
        }
        4 | 5 => {
            let range = some(rng, &list.ranges());
            let mut fewer = list.clone();
            if fewer.remove(&[range]) {
                list = fewer;
            }
        }
        _ => {
            // A comment alone.
            let place = list.0.iter().rposition(|line| line.entry().is_some());
            if let Some(Line::Entry(text, entry)) = place.and_then(|place| list.0.get_mut(place)) {
                entry.comment = Some("by hand".to_owned());
                *text = match Line::from_entry(entry.clone()) {
                    Line::Entry(text, _) => text,
                    _ => unreachable!("it is an entry"),
                };
            }
        }
    }
    list
}

fn verb(rng: &mut Rng, world: &World, now: i64) -> Verb {
    let listed = world.file.ranges();
    match rng.u8(..40) {
        0..=11 => Verb::Add {
            ranges: if rng.bool() && !listed.is_empty() {
                vec![some(rng, &listed)]
            } else {
                ranges(rng, 3)
            },
            expires: match rng.u8(..10) {
                0..=3 => Expires::AsItWas,
                4 => Expires::Never,
                5 | 6 => Expires::In(4),
                7 => Expires::At(now + 5),
                _ => Expires::At(now + 3600 * i64::from(rng.u8(1..4))),
            },
            comment: match rng.u8(..6) {
                0..=2 => None,
                3 => Some(""),
                _ => Some(some(rng, &COMMENTS)),
            },
        },
        12..=16 => Verb::Remove(if rng.u8(..6) > 0 && !listed.is_empty() {
            vec![some(rng, &listed)]
        } else {
            ranges(rng, 2)
        }),
        17..=19 => Verb::Set(if rng.u8(..8) == 0 {
            Vec::new()
        } else {
            ranges(rng, 6)
        }),
        20..=23 => Verb::SetFile(list(rng, now)),
        24 | 25 => Verb::Prune,
        26 => Verb::Clear,
        27..=29 => Verb::Reload,
        30 => Verb::Attach,
        31 | 32 => Verb::Rollback(None),
        33 | 34 => Verb::Rollback(Some(rng.usize(1..5))),
        35..=38 => Verb::Mode(if rng.bool() {
            Mode::Enforce
        } else {
            Mode::Monitor
        }),
        _ => Verb::Confirm,
    }
}

fn command(rng: &mut Rng, world: &World, now: i64) -> Command {
    let verb = match world.trial {
        // With a limit, so that it ends.
        Some(_) if rng.u8(..3) == 0 => {
            if rng.bool() {
                Verb::Confirm
            } else {
                Verb::Rollback(None)
            }
        }
        _ => verb(rng, world, now),
    };
    let plain = matches!(verb, Verb::Confirm);
    Command {
        dry_run: !plain && rng.u8(..8) == 0,
        force: !plain && rng.u8(..3) == 0,
        within: (!plain && rng.u8(..6) == 0).then_some(3600),
        verb,
    }
}

/// Chooses the next step.
pub(crate) fn next(rng: &mut Rng, world: &World, now: i64) -> Step {
    match rng.u8(..40) {
        0..=4 => Step::Edit(edited(rng, world, now)),
        5 if !world.file.is_broken() => Step::Boot,
        6..=8
            if world
                .expiries()
                .iter()
                .any(|time| (now..now + 8).contains(time)) =>
        {
            Step::Wait
        }
        9 | 10 if world.trial.is_none() => {
            let mut command = command(rng, world, now);
            command.dry_run = false;
            command.within = (!matches!(command.verb, Verb::Confirm)).then_some(2);
            Step::Lapse(command)
        }
        11..=14 => {
            let mut command = command(rng, world, now);
            if rng.u8(..4) == 0 {
                command.verb = Verb::Mode(match world.policy.mode {
                    Mode::Enforce => Mode::Monitor,
                    Mode::Monitor => Mode::Enforce,
                });
            }
            // Where it writes files, it makes few of these calls.
            match rng.bool() {
                true => Step::Kill(command, "bpf", rng.usize(1..90)),
                false => Step::Kill(command, FILES, rng.usize(1..20)),
            }
        }
        _ => Step::Run(command(rng, world, now)),
    }
}
