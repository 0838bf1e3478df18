//! The vocabulary of the model: verdicts and policies, commands, and their answers.

use std::net::IpAddr;

use ipnet::IpNet;

use super::list::List;

/// Sources that are authorized by any list.
pub(crate) const IMPLICIT: [(&str, &str); 3] = [
    ("192.0.2.10/32", "node"),
    ("2001:db8::10/128", "node"),
    ("203.0.113.64/26", "cluster"),
];

/// Connections that are open all the time.
pub(crate) const HELD: [&str; 2] = ["203.0.113.9", "203.0.113.10"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Enforce,
    Monitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    WouldDrop,
    Drop,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) list: List,
    pub(crate) mode: Mode,
}

/// Lifetime of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    Expired,
    Until(i64),
    Forever,
}

impl Life {
    fn from_expiry(expires: Option<i64>, now: i64) -> Self {
        match expires {
            None => Self::Forever,
            Some(time) if time <= now => Self::Expired,
            Some(time) => Self::Until(time),
        }
    }
}

impl Policy {
    /// Lifetime of `range`: that of the longest-lived range that holds it.
    pub(crate) fn life(&self, range: IpNet, now: i64) -> Option<Life> {
        let listed = self
            .list
            .entries()
            .filter(|entry| entry.range.contains(&range));
        let listed = listed.map(|entry| Life::from_expiry(entry.expires, now));
        let implicit = IMPLICIT
            .iter()
            .filter(|(held, _)| net(held).contains(&range));
        listed.chain(implicit.map(|_| Life::Forever)).max()
    }

    pub(crate) fn verdict(&self, source: IpAddr, now: i64) -> Verdict {
        let life = self.life(source.into(), now);
        match self.mode {
            _ if self.list.is_off() || life.is_some_and(|life| life > Life::Expired) => {
                Verdict::Pass
            }
            Mode::Monitor => Verdict::WouldDrop,
            Mode::Enforce => Verdict::Drop,
        }
    }

    /// Its word in `status`.
    pub(crate) fn state(&self) -> &'static str {
        match self.mode {
            _ if self.list.is_off() => "off",
            Mode::Enforce => "enforcing",
            Mode::Monitor => "monitoring",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Verb {
    Add {
        ranges: Vec<IpNet>,
        expires: Expires,
        comment: Option<&'static str>,
    },
    Remove(Vec<IpNet>),
    Set(Vec<IpNet>),
    SetFile(List),
    Prune,
    Clear,
    Reload,
    Attach,
    Rollback(Option<usize>),
    Mode(Mode),
    Confirm,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Expires {
    AsItWas,
    Never,
    At(i64),
    In(i64),
}

#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    /// Seconds.
    pub(crate) within: Option<u32>,
}

/// The JSON answer of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) added: Vec<IpNet>,
    pub(crate) removed: Vec<IpNet>,
    pub(crate) changed: Vec<IpNet>,
    pub(crate) edited: Vec<IpNet>,
    pub(crate) unchanged: usize,
    pub(crate) cut: usize,
    pub(crate) kept: usize,
    pub(crate) refused: bool,
    pub(crate) dry_run: bool,
    pub(crate) on_trial: bool,
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a range of ours")
}
