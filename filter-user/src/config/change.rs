//! The difference between settings, and its effect on packets.

use std::fmt;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::{ClusterCidr, Guard, PolicyMode, Settings, guards, join};
use crate::ranges::Lists;

/// A setting with another value than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SettingChange {
    /// Its key in the config file; `outbound` for both keys of outbound addresses together.
    key: &'static str,
    /// The change, in words.
    text: String,
    /// The new value, as text.
    now: String,
    /// The old value, as text.
    was: String,
    #[serde(skip)]
    name: &'static str,
    /// The effects that need a warning, in words; null if there are none.
    #[serde(rename = "effect", serialize_with = "serialize_effects")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    effects: Vec<Effect>,
}

/// Effects of settings that a list cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// These ports or destinations are open to every source.
    Opens(String),
    /// This range authorizes every source of its family.
    Admits(String),
    /// These sources are no longer authorized without the list.
    Cuts(String),
    /// These ports are open to the sources of all lists.
    Widens(String),
    /// These ports are open to the sources of some lists alone.
    Narrows(String, String),
    /// No packet is dropped.
    DropsNothing,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opens(what) => write!(f, "opens {what} to everyone"),
            Self::Admits(all) => write!(f, "{all} allows every source of its family"),
            Self::Cuts(sources) => write!(f, "only the list still allows {sources}"),
            Self::Widens(ports) => write!(f, "opens {ports} to all lists"),
            Self::Narrows(ports, lists) => {
                write!(f, "closes {ports} to all but this node and the {lists}")
            }
            Self::DropsNothing => f.write_str("nothing is dropped"),
        }
    }
}

impl Effect {
    /// The text of the effect if the change were made.
    fn would(&self) -> String {
        match self {
            Self::Opens(what) => format!("would open {what} to everyone"),
            Self::Admits(all) => format!("{all} would allow every source of its family"),
            Self::Cuts(sources) => format!("only the list would still allow {sources}"),
            Self::Widens(ports) => format!("would open {ports} to all lists"),
            Self::Narrows(ports, lists) => {
                format!("would close {ports} to all but this node and the {lists}")
            }
            Self::DropsNothing => "nothing would be dropped".to_owned(),
        }
    }
}

/// The effects in words; `None` without one.
fn in_words(effects: &[Effect], words: impl Fn(&Effect) -> String) -> Option<String> {
    let words: Vec<String> = effects.iter().map(words).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn serialize_effects<S: Serializer>(effects: &[Effect], serializer: S) -> Result<S::Ok, S::Error> {
    in_words(effects, Effect::to_string).serialize(serializer)
}

/// The text for a change that is made: a warning if it has an effect.
impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match in_words(&self.effects, Effect::to_string) {
            None => write!(f, "note: {}", self.text),
            Some(effect) => write!(f, "warning: {}: {effect}", self.text),
        }
    }
}

impl SettingChange {
    fn new(
        (key, name): (&'static str, &'static str),
        now: String,
        was: String,
        effects: impl IntoIterator<Item = Effect>,
    ) -> Self {
        Self {
            key,
            text: format!("{name} {now} (was {was})"),
            now,
            was,
            name,
            effects: effects.into_iter().collect(),
        }
    }

    /// The new and the old value.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text for a change that is not made.
    pub fn would(&self) -> String {
        let Self { name, now, was, .. } = self;
        let text = format!("{name} would be {now} (now {was})");
        match in_words(&self.effects, Effect::would) {
            None => format!("note: {text}"),
            Some(effect) => format!("warning: {text}: {effect}"),
        }
    }

    /// The effect, if it needs `--force`: it opens more than the value shows, or drops sources that
    /// were authorized without the list.
    pub fn risk(&self) -> Option<String> {
        let mut risks = self.effects.clone();
        risks.retain(|effect| *effect != Effect::DropsNothing);
        in_words(&risks, Effect::to_string)
    }
}

impl Settings {
    fn outbound_cidrs(&self) -> Vec<ClusterCidr> {
        let ranges = self.outbound.iter().copied();
        ranges.map(ClusterCidr::Range).collect()
    }

    /// The differences to `other`, the active settings until now.
    pub fn changes_from(&self, other: &Self) -> Vec<SettingChange> {
        // Also in monitor mode: the effect comes with the later change of mode, when it is
        // forgotten.
        let open = &other.protected() - &self.protected();
        let ports = named(open.intersection(&other.ports));
        let destinations = match (&self.destinations[..], &other.destinations[..]) {
            ([], _) => None,
            (_, []) => Some("every other address".to_owned()),
            (now, before) => named(uncovered(before, now)),
        };
        let own = (!self.node_addresses).then(|| "the node's own addresses".to_owned());
        let (now_outbound, had_outbound) = (self.outbound_cidrs(), other.outbound_cidrs());
        let implicit = [&now_outbound[..], &self.cluster].concat();
        let mut changes = vec![
            SettingChange::new(
                ("ports", "ports"),
                join(&self.ports),
                join(&other.ports),
                ports.map(|ports| Effect::Opens(format!("TCP {ports}"))),
            ),
            self.guards_from(other),
            SettingChange::new(
                ("destinations", "destinations"),
                ranges(&self.destinations, "any"),
                ranges(&other.destinations, "any"),
                destinations.map(Effect::Opens),
            ),
            SettingChange::new(
                ("mode", "mode"),
                self.mode.name().to_owned(),
                other.mode.name().to_owned(),
                (self.mode == PolicyMode::Monitor).then_some(Effect::DropsNothing),
            ),
            SettingChange::new(
                ("node_addresses", "node addresses authorized"),
                self.node_addresses.to_string(),
                other.node_addresses.to_string(),
                own.map(Effect::Cuts),
            ),
            SettingChange::new(
                ("outbound", "outbound addresses"),
                ranges(&self.outbound, "none"),
                ranges(&other.outbound, "none"),
                implicit_effect(&now_outbound, &had_outbound, &implicit),
            ),
            SettingChange::new(
                ("cluster_cidrs", "cluster CIDRs"),
                named(self.cluster.iter()).unwrap_or_else(|| "none".to_owned()),
                named(other.cluster.iter()).unwrap_or_else(|| "none".to_owned()),
                implicit_effect(&self.cluster, &other.cluster, &implicit),
            ),
            SettingChange::new(
                ("max_ranges", "max ranges"),
                self.max_ranges.to_string(),
                other.max_ranges.to_string(),
                None,
            ),
        ];
        changes.retain(|change| change.now != change.was);
        changes
    }

    /// The difference of the guards to those of `other`.
    fn guards_from(&self, other: &Self) -> SettingChange {
        let mut effects = Vec::new();
        let left = other.guards.iter().flat_map(|guard| &guard.ports);
        let left = left.filter(|port| self.guard_of(**port).is_none());
        let (kept, open): (Vec<u16>, Vec<u16>) = left.partition(|port| self.protects(**port));
        let ports = |ports: &[u16]| named(ports.iter()).map(|ports| format!("TCP {ports}"));
        // A port that `ports` had, too, is told with those.
        let open: Vec<u16> = open
            .into_iter()
            .filter(|port| !other.ports.contains(port))
            .collect();
        effects.extend(ports(&open).map(Effect::Opens));
        effects.extend(ports(&kept).map(Effect::Widens));
        for guard in &self.guards {
            let had = |port: &&u16| other.protects(**port) && other.guard_of(**port).is_none();
            let had: Vec<u16> = guard.ports.iter().filter(had).copied().collect();
            let lists = guards::named(&guard.lists);
            effects.extend(ports(&had).map(|ports| Effect::Narrows(ports, lists)));
        }
        let all = |guards: &[Guard]| named(guards.iter()).unwrap_or_else(|| "none".to_owned());
        let (now, was) = (all(&self.guards), all(&other.guards));
        SettingChange::new(("guard", "guards"), now, was, effects)
    }
}

/// The effect of another value of a setting that authorizes sources without the list. `implicit`
/// are all of those sources. The files behind names are no settings, and count for nothing here.
fn implicit_effect(
    now: &[ClusterCidr],
    was: &[ClusterCidr],
    implicit: &[ClusterCidr],
) -> Option<Effect> {
    let everyone = now.iter().filter(|cidr| {
        let range = cidr.ranges(&Lists::default());
        !was.contains(cidr) && range.iter().any(|range| range.prefix_len() == 0)
    });
    let of_names = Lists::default();
    let now: Vec<IpNet> = implicit
        .iter()
        .flat_map(|cidr| cidr.ranges(&of_names))
        .collect();
    let lost = was.iter().filter(|cidr| {
        let ranges = cidr.ranges(&of_names);
        !implicit.contains(cidr)
            && (cidr.file().is_some() || uncovered(&ranges, &now).next().is_some())
    });
    named(everyone)
        .map(Effect::Admits)
        .or_else(|| named(lost).map(Effect::Cuts))
}

/// Those of `before` that no range in `now` holds.
fn uncovered<'a>(before: &'a [IpNet], now: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> {
    let covered = |range: &IpNet| now.iter().any(|outer| outer.contains(range));
    before.iter().filter(move |range| !covered(range))
}

/// `items`, separated by commas; `None` without items.
fn named<T: ToString>(items: impl Iterator<Item = T>) -> Option<String> {
    Some(join(items)).filter(|names| !names.is_empty())
}

fn ranges(ranges: &[IpNet], none: &str) -> String {
    named(ranges.iter()).unwrap_or_else(|| none.to_owned())
}
