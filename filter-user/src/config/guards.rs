//! Ports with lists of their own: the tables `[[guard]]`.

use std::{collections::BTreeSet, fmt};

use clap::ArgMatches;
use filter_common::layout::MAX_GUARDS;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::{Spanned, de::DeValue};

use super::{
    Settings, join,
    value::{Expected, Value, ValueErrors, list, refusal, string, wrong_type},
};
use crate::ranges::{InputError, ListName};

/// Ports that are open only to the sources of some lists, and to the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Guard {
    /// Its TCP ports; at least one, and none of another guard.
    pub ports: BTreeSet<u16>,
    /// The names of its lists; at least one.
    pub lists: BTreeSet<ListName>,
}

impl Guard {
    /// The ports as messages name them: `TCP 2379, 2380`.
    pub fn ports(&self) -> String {
        format!("TCP {}", join(&self.ports))
    }
}

/// For use in a sentence: ``TCP 2379, 2380 (lists `control-plane`, `backup`)``.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.ports(), named(&self.lists))
    }
}

/// ``list `a` ``, or ``lists `a`, `b` ``.
pub fn named(lists: &BTreeSet<ListName>) -> String {
    let word = if lists.len() == 1 { "list" } else { "lists" };
    let names = lists.iter().map(|name| format!("`{name}`"));
    format!("{word} {}", join(names))
}

impl Settings {
    /// All protected ports: those of `ports`, and those of guards.
    pub fn protected(&self) -> BTreeSet<u16> {
        let guards = self.guards.iter().flat_map(|guard| &guard.ports);
        self.ports.iter().chain(guards).copied().collect()
    }

    /// Whether `port` is protected.
    pub fn protects(&self, port: u16) -> bool {
        self.ports.contains(&port) || self.guard_of(port).is_some()
    }

    /// The number of the guard that `port` belongs to; `None` if it goes by all lists. A port of
    /// `ports` that a guard names goes by the guard.
    pub fn guard_of(&self, port: u16) -> Option<usize> {
        let mut guards = self.guards.iter();
        guards.position(|guard| guard.ports.contains(&port))
    }

    /// The ports of `ports` that go by all lists.
    pub fn unguarded_ports(&self) -> BTreeSet<u16> {
        let ports = self.ports.iter().copied();
        ports
            .filter(|port| self.guard_of(*port).is_none())
            .collect()
    }
}

impl Value for Vec<Guard> {
    const EXAMPLE: &'static str = "[{ ports = [2379, 2380], lists = [\"control-plane\"] }]";
    const KIND: &'static str = "tables";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let mut guards = list::<Self, _>(key, value, |value| one(key, value))?;
        // Their order makes no difference.
        guards.sort_unstable();
        let mut seen = BTreeSet::new();
        let all = guards.iter().flat_map(|guard| &guard.ports);
        if let Some(port) = all.copied().find(|port| !seen.insert(*port)) {
            let cause = format!("`{key}.ports`: two guards have port {port}");
            let hint = "a guard can have several lists: merge the two guards";
            return Err(vec![(value.span(), refusal(cause, hint))]);
        }
        if guards.len() > MAX_GUARDS as usize {
            let cause = format!(
                "there are {} guards; the maximum is {MAX_GUARDS}",
                guards.len()
            );
            let hint = "put ports with the same lists into one guard";
            return Err(vec![(value.span(), refusal(cause, hint))]);
        }
        Ok(guards)
    }

    /// The config file alone sets them.
    fn from_args(_: &ArgMatches, _: &str) -> Result<Self, Vec<InputError>> {
        Ok(Self::new())
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// The guard in one table.
fn one(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Guard, ValueErrors> {
    type All = Vec<Guard>;
    let DeValue::Table(table) = value.get_ref() else {
        return Err(wrong_type::<All>(key, value, Expected::ListOf("tables")));
    };
    let (mut ports, mut lists, mut errors) = (None, None, ValueErrors::new());
    for (name, value) in table {
        let own = format!("{key}.{}", name.get_ref());
        let read = match &**name.get_ref() {
            "ports" => BTreeSet::from_toml(&own, value).map(|found| ports = Some(found)),
            "lists" => names(&own, value).map(|found| lists = Some(found)),
            _ => {
                let cause = format!("unknown key `{own}`");
                Err(vec![(
                    name.span(),
                    refusal(cause, "the keys are `ports` and `lists`"),
                )])
            }
        };
        errors.extend(read.err().into_iter().flatten());
    }
    let missing = |what: &str, example: &str| {
        let cause = format!("`{key}` has no `{what}`");
        let hint = format!("write it like `{what} = {example}`");
        (value.span(), refusal(cause, hint))
    };
    if errors.is_empty() && ports.is_none() {
        errors.push(missing("ports", "[2379, 2380]"));
    }
    if errors.is_empty() && lists.is_none() {
        errors.push(missing("lists", "[\"control-plane\"]"));
    }
    match (ports, lists) {
        (Some(ports), Some(lists)) if errors.is_empty() => Ok(Guard { ports, lists }),
        _ => Err(errors),
    }
}

/// The names of lists.
fn names(key: &str, value: &Spanned<DeValue<'_>>) -> Result<BTreeSet<ListName>, ValueErrors> {
    type All = Vec<Guard>;
    let names = list::<All, _>(key, value, |value| {
        let text = string::<All>(key, value, Expected::ListOf("names of lists"))?;
        text.parse::<ListName>().map_err(|why| {
            let cause = format!("`{key}`: invalid list name `{text}`");
            vec![(value.span(), refusal(cause, why))]
        })
    })?;
    if names.is_empty() {
        let cause = format!("`{key}` is empty: its ports would be closed to everyone");
        let hint = "name at least one list, like `[\"control-plane\"]`; `apifence ranges lists` shows them";
        return Err(vec![(value.span(), refusal(cause, hint))]);
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn guards_are_read_in_any_order() {
        let mut config = Config::default();
        let text = "ports = [6443]\n[[guard]]\nports = [4001, 2380]\nlists = ['b', 'a', 'b']\n\
                    [[guard]]\nports = [2379]\nlists = ['default']\n";
        assert_eq!(config.read_file("f", text), []);
        let settings = config.settings();
        let ports: Vec<String> = settings.guards.iter().map(Guard::to_string).collect();
        assert_eq!(
            ports,
            [
                "TCP 2379 (list `default`)",
                "TCP 2380, 4001 (lists `a`, `b`)"
            ]
        );
        assert_eq!(settings.protected(), [2379, 2380, 4001, 6443].into());
        assert_eq!(
            (settings.guard_of(4001), settings.guard_of(6443)),
            (Some(1), None)
        );
    }

    #[test]
    fn faults_of_guards_are_named() {
        let own = |number: u32| format!("[[guard]]\nports = [{number}]\nlists = ['a']\n");
        let many: String = (1..=MAX_GUARDS + 1).map(own).collect();
        for (text, want) in [
            ("guard = 3\n", "`guard` is a number, not a list"),
            ("guard = [3]\n", "`guard` has a number"),
            (
                "[guard]\nports = [1]\nlists = ['a']\n",
                "`guard` is a table",
            ),
            ("[[guard]]\nlists = ['a']\n", "`guard` has no `ports`"),
            (
                "[[guard]]\nports = []\nlists = ['a']\n",
                "`guard.ports` is empty",
            ),
            (
                "[[guard]]\nports = [70000]\nlists = ['a']\n",
                "70000, which is not a port",
            ),
            ("[[guard]]\nports = [1]\n", "`guard` has no `lists`"),
            (
                "[[guard]]\nports = [1]\nlists = []\n",
                "`guard.lists` is empty",
            ),
            (
                "[[guard]]\nports = [1]\nlists = ['a.b.c']\n",
                "invalid list name `a.b.c`",
            ),
            (
                "[[guard]]\nport = [1]\nlists = ['a']\n",
                "unknown key `guard.port`",
            ),
            (&(own(1) + &own(1)), "two guards have port 1"),
            (&many, "there are 9 guards; the maximum is 8"),
        ] {
            let mut config = Config::default();
            let faults = config.read_file("f", text);
            assert!(
                faults.iter().any(|(cause, _)| cause.contains(want)),
                "{text}: {faults:?}"
            );
            assert!(config.has_unreadable(&["guard"]), "{text}");
        }
    }
}
