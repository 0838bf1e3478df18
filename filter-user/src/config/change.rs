//! How settings differ, and what the difference does to packets.

use std::fmt;

use ipnet::IpNet;

use super::{PolicyMode, Settings, join};

/// A setting that is another one than before.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// What it is, and what it was.
    text: String,
    /// What it opens, or whom it keeps out; empty if it does neither.
    effect: String,
    /// Whether it must be insisted on.
    dangerous: bool,
}

/// As it is told: a warning if it has an effect.
impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.effect.is_empty() {
            write!(f, "note: {}", self.text)
        } else {
            write!(f, "warning: {}: {}", self.text, self.effect)
        }
    }
}

impl SettingChange {
    /// What it is, and what it was.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it does, if that must be insisted on: it opens more than it says, or keeps out who was let in whatever the list says.
    pub fn danger(&self) -> Option<&str> {
        self.dangerous.then_some(&*self.effect)
    }
}

impl Settings {
    /// How these settings differ from `other`, the ones in force until now.
    pub fn changes_from(&self, other: &Self) -> Vec<SettingChange> {
        let mut changes = Vec::new();
        let mut note = |name: &str, now: String, before: String, effect: (String, bool)| {
            if now != before {
                changes.push(SettingChange {
                    text: format!("{name} {now} (was {before})"),
                    effect: effect.0,
                    dangerous: effect.1,
                });
            }
        };
        let none = || (String::new(), false);
        // Also where nothing is dropped now: it comes true with the mode, when nobody thinks of it any more.
        let opens = |what: Option<String>| {
            what.map_or_else(none, |what| (format!("opens {what} to everyone"), true))
        };
        let cuts = |whom: Option<String>| {
            whom.map_or_else(none, |whom| {
                (format!("nothing but the list lets {whom} in"), true)
            })
        };
        let ports = other.ports.difference(&self.ports);
        note(
            "ports",
            join(&self.ports),
            join(&other.ports),
            opens(named(ports).map(|ports| format!("TCP {ports}"))),
        );
        let destinations = match (&self.destinations[..], &other.destinations[..]) {
            ([], _) => None,
            (_, []) => Some("every other address".to_owned()),
            (now, before) => named(missing(before, now)),
        };
        note(
            "destinations",
            ranges(&self.destinations, "any"),
            ranges(&other.destinations, "any"),
            opens(destinations),
        );
        let mode = match self.mode {
            PolicyMode::Monitor => ("nothing is dropped".to_owned(), false),
            PolicyMode::Enforce => none(),
        };
        note("mode", mode_name(self.mode), mode_name(other.mode), mode);
        let own = (!self.node_addresses).then(|| "the node's own addresses".to_owned());
        note(
            "node addresses authorized",
            self.node_addresses.to_string(),
            other.node_addresses.to_string(),
            cuts(own),
        );
        let implicit = [&self.outbound[..], &self.cluster].concat();
        note(
            "outbound addresses",
            ranges(&self.outbound, "none"),
            ranges(&other.outbound, "none"),
            cuts(named(missing(&other.outbound, &implicit))),
        );
        note(
            "cluster CIDRs",
            ranges(&self.cluster, "none"),
            ranges(&other.cluster, "none"),
            cuts(named(missing(&other.cluster, &implicit))),
        );
        note(
            "max ranges",
            self.max_ranges.to_string(),
            other.max_ranges.to_string(),
            none(),
        );
        changes
    }
}

/// Those of `before` that are in none of `now`.
fn missing<'a>(before: &'a [IpNet], now: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> {
    let covered = |range: &IpNet| now.iter().any(|outer| outer.contains(range));
    before.iter().filter(move |range| !covered(range))
}

/// `items`, separated by commas; nothing if there are none.
fn named<T: ToString>(items: impl Iterator<Item = T>) -> Option<String> {
    Some(join(items)).filter(|names| !names.is_empty())
}

fn ranges(ranges: &[IpNet], none: &str) -> String {
    named(ranges.iter()).unwrap_or_else(|| none.to_owned())
}

fn mode_name(mode: PolicyMode) -> String {
    match mode {
        PolicyMode::Enforce => "enforce".to_owned(),
        PolicyMode::Monitor => "monitor".to_owned(),
    }
}
