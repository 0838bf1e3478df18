//! Bounds of a list: what its writers can authorize at most.

use std::{collections::BTreeMap, fmt};

use clap::ArgMatches;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use toml::{Spanned, de::DeValue};

use super::{
    parse_duration,
    value::{Expected, Value, ValueErrors, number, refusal, string, wrong_type},
};
use crate::ranges::{Entry, InputError, ListName, distinct};

/// The bounds of a list; `None` for one that is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bounds {
    /// The most ranges; missing if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ranges: Option<u32>,
    /// The shortest prefix lengths; missing if they are not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widest: Option<Widest>,
    /// How far in the future an entry may expire, as `720h`; each must expire. Missing if it is
    /// not set.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "serialize_duration"
    )]
    #[cfg_attr(test, schemars(with = "String"))]
    pub max_expires: Option<SignedDuration>,
}

/// The shortest prefix length of each family; `None` for any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Widest {
    /// Of IPv4 ranges; missing for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u8>,
    /// Of IPv6 ranges; missing for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u8>,
}

fn serialize_duration<S: serde::Serializer>(
    duration: &Option<SignedDuration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = duration.map(|duration| format!("{duration:#}"));
    text.serialize(serializer)
}

impl Bounds {
    /// The bounds of a file of the cluster, or of a directory of lists: `self`, with a default for
    /// what is not set, so that its writer cannot open the port with one range. `max_ranges` is the
    /// most in all lists.
    #[must_use]
    pub fn of_cluster(&self, max_ranges: u32) -> Self {
        let own = self.widest.unwrap_or_default();
        Self {
            max_ranges: self.max_ranges.or(Some(max_ranges)),
            widest: Some(Widest {
                ipv4: own.ipv4.or(Some(8)),
                ipv6: own.ipv6.or(Some(16)),
            }),
            ..self.clone()
        }
    }

    /// Those within both `self` and `other`: the tighter of each.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        fn both<T: Copy>(one: Option<T>, other: Option<T>, tighter: fn(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(tighter(one, other)),
                (one, other) => one.or(other),
            }
        }
        let [own, others] = [self, other].map(|bounds| bounds.widest.unwrap_or_default());
        let widest = Widest {
            ipv4: both(own.ipv4, others.ipv4, u8::max),
            ipv6: both(own.ipv6, others.ipv6, u8::max),
        };
        Self {
            max_ranges: both(self.max_ranges, other.max_ranges, u32::min),
            widest: (widest != Widest::default()).then_some(widest),
            max_expires: both(self.max_expires, other.max_expires, SignedDuration::min),
        }
    }

    /// How `entries` exceed the bounds at `now`; `None` if they do not.
    pub fn exceeded(&self, entries: &[Entry], now: Timestamp) -> Option<String> {
        if let Some(most) = self.max_ranges
            && entries.len() > most as usize
            && distinct(entries) > most as usize
        {
            return Some(format!(
                "it has {} ranges; the maximum is {most}",
                distinct(entries)
            ));
        }
        entries.iter().find_map(|entry| {
            let Entry { range, expires, .. } = entry;
            let widest = self.widest.and_then(|widest| match range {
                IpNet::V4(_) => widest.ipv4,
                IpNet::V6(_) => widest.ipv6,
            });
            if let Some(len) = widest.filter(|len| range.prefix_len() < *len) {
                return Some(format!("`{range}` is wider than /{len}, the limit"));
            }
            let most = self.max_expires?;
            match expires {
                None => Some(format!("`{range}` does not expire; every range here must")),
                Some(time) if time.duration_since(now) > most => Some(format!(
                    "`{range}` expires in more than {most:#}, the limit"
                )),
                Some(_) => None,
            }
        })
    }
}

/// In words.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.widest.unwrap_or_default();
        let words = [
            self.max_ranges.map(|most| format!("{most} ranges")),
            widest.ipv4.map(|len| format!("IPv4 /{len}")),
            widest.ipv6.map(|len| format!("IPv6 /{len}")),
            self.max_expires.map(|most| format!("{most:#}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        f.write_str(&words.join(", "))
    }
}

/// The tables `[lists.NAME]`.
impl Value for BTreeMap<ListName, Bounds> {
    const EXAMPLE: &'static str = "{ office = { max_ranges = 100, widest = { ipv4 = 24, ipv6 = 48 }, max_expires = \"30d\" } }";
    const KIND: &'static str = "tables";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let DeValue::Table(tables) = value.get_ref() else {
            return Err(wrong_type::<Self>(key, value, Expected::Whole("tables")));
        };
        let (mut bounds, mut errors) = (Self::new(), ValueErrors::new());
        for (name, table) in tables {
            let of_cluster = ListName::of_cluster(name.get_ref()).map(Ok);
            let parsed = of_cluster.unwrap_or_else(|| name.get_ref().parse());
            let parsed = parsed.map_err(|why: String| {
                let cause = format!("`{key}.{}`: invalid list name", name.get_ref());
                vec![(name.span(), refusal(cause, why))]
            });
            let key = format!("{key}.{}", name.get_ref());
            match parsed.and_then(|name| Ok((name, one(&key, table)?))) {
                Ok((name, found)) if name.is_of_cluster() && found.max_expires.is_some() => {
                    let cause = format!("`{key}.max_expires`: its ranges never expire");
                    let hint = "leave it out: the ranges stay until the file no longer has them";
                    errors.push((table.span(), refusal(cause, hint)));
                }
                Ok((name, found)) => drop(bounds.insert(name, found)),
                Err(more) => errors.extend(more),
            }
        }
        match errors.is_empty() {
            true => Ok(bounds),
            false => Err(errors),
        }
    }

    /// The config file alone sets them.
    fn from_args(_: &ArgMatches, _: &str) -> Result<Self, Vec<InputError>> {
        Ok(Self::new())
    }

    fn json(&self) -> serde_json::Value {
        let tables = self.iter().filter_map(|(name, bounds)| {
            let bounds = serde_json::to_value(bounds).ok()?;
            Some((name.to_string(), bounds))
        });
        serde_json::Value::Object(tables.collect())
    }
}

/// The fault of a key that no table of a list has.
fn unknown(key: &str, name: &Spanned<std::borrow::Cow<'_, str>>, known: &str) -> ValueErrors {
    let cause = format!("unknown key `{key}.{}`", name.get_ref());
    vec![(name.span(), refusal(cause, format!("the keys are {known}")))]
}

/// The bounds in one table.
fn one(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Bounds, ValueErrors> {
    type All = BTreeMap<ListName, Bounds>;
    let DeValue::Table(table) = value.get_ref() else {
        return Err(wrong_type::<All>(key, value, Expected::Whole("a table")));
    };
    let (mut bounds, mut errors) = (Bounds::default(), ValueErrors::new());
    for (name, value) in table {
        let own = format!("{key}.{}", name.get_ref());
        let read = match &**name.get_ref() {
            "max_ranges" => u32::from_toml(&own, value).map(|most| bounds.max_ranges = Some(most)),
            "widest" => widest(&own, value).map(|widest| bounds.widest = Some(widest)),
            "max_expires" => string::<All>(&own, value, Expected::Whole("a duration"))
                .and_then(|text| {
                    parse_duration(text).map_err(|why| {
                        let cause = format!("invalid value `{text}` for `{own}`");
                        vec![(value.span(), refusal(cause, why))]
                    })
                })
                .map(|most| bounds.max_expires = Some(most)),
            _ => Err(unknown(key, name, "`max_ranges`, `widest`, `max_expires`")),
        };
        errors.extend(read.err().into_iter().flatten());
    }
    match errors.is_empty() {
        true => Ok(bounds),
        false => Err(errors),
    }
}

/// The shortest prefix lengths in a table.
fn widest(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Widest, ValueErrors> {
    type All = BTreeMap<ListName, Bounds>;
    let DeValue::Table(table) = value.get_ref() else {
        return Err(wrong_type::<All>(
            key,
            value,
            Expected::Whole("a table like `{ ipv4 = 24, ipv6 = 48 }`"),
        ));
    };
    let (mut widest, mut errors) = (Widest::default(), ValueErrors::new());
    for (name, value) in table {
        let (place, longest) = match &**name.get_ref() {
            "ipv4" => (&mut widest.ipv4, 32),
            "ipv6" => (&mut widest.ipv6, 128),
            _ => {
                errors.extend(unknown(key, name, "`ipv4` and `ipv6`"));
                continue;
            }
        };
        let own = format!("{key}.{}", name.get_ref());
        match number::<All>(&own, value, Expected::Whole("a prefix length")) {
            Ok(Some(len)) if (0..=longest).contains(&len) => *place = u8::try_from(len).ok(),
            Ok(_) => errors.push((
                value.span(),
                refusal(
                    format!("`{own}` is not a prefix length"),
                    format!("use a number from 0 to {longest}"),
                ),
            )),
            Err(more) => errors.extend(more),
        }
    }
    match errors.is_empty() {
        true => Ok(widest),
        false => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, ranges::RangesFile};

    fn bounds(text: &str) -> Bounds {
        let mut config = Config::default();
        assert_eq!(config.read_file("f", text), [], "{text}");
        let name = "office".parse().expect("a name");
        config.lists.get(&name).cloned().unwrap_or_default()
    }

    #[test]
    fn a_list_beyond_its_bounds_is_refused_with_the_bound() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let all = "[lists.office]\nmax_ranges = 2\nwidest = { ipv4 = 24, ipv6 = 48 }\nmax_expires = \"30d\"\n";
        let by = |bounds: &Bounds, text: &str| {
            let list = RangesFile::parse(text).expect(text).list();
            bounds.exceeded(list.entries(), now)
        };
        let bounds = bounds(all);
        let soon = "expires=2026-01-20T00:00:00Z";
        let fine = format!("192.0.2.0/24 {soon}\n192.0.2.0/24 {soon}\n2001:db8::/48 {soon}\n");
        assert_eq!(by(&bounds, &fine), None);
        for (text, want) in [
            (format!("{fine}192.0.2.7 {soon}\n"), "it has 3 ranges"),
            (format!("192.0.2.0/23 {soon}\n"), "`192.0.2.0/23` is wider"),
            (format!("2001:db8::/47 {soon}\n"), "wider than /48"),
            ("192.0.2.1\n".to_owned(), "does not expire"),
            (
                "192.0.2.1 expires=2026-02-01T00:00:01Z\n".to_owned(),
                "expires in more than",
            ),
        ] {
            let cause = by(&bounds, &text).expect(&text);
            assert!(cause.contains(want), "{cause}");
        }
        assert_eq!(by(&Bounds::default(), "0.0.0.0/0\n"), None);
    }

    #[test]
    fn the_tighter_of_two_bounds_holds() {
        let own = |text: &str| bounds(&format!("[lists.office]\n{text}"));
        let one = own("max_ranges = 2\nwidest = { ipv4 = 24 }\n");
        let other =
            own("max_ranges = 9\nwidest = { ipv4 = 16, ipv6 = 48 }\nmax_expires = \"1d\"\n");
        let both = own("max_ranges = 2\nwidest = { ipv4 = 24, ipv6 = 48 }\nmax_expires = \"1d\"\n");
        assert_eq!(one.and(&other), both);
        assert_eq!(other.and(&one), both);
        assert_eq!(both.and(&Bounds::default()), both);
    }

    #[test]
    fn faults_of_bounds_are_named() {
        for (text, want) in [
            ("lists = 3\n", "`lists` is a number"),
            ("[lists.\"a b\"]\n", "invalid list name"),
            ("[lists.a]\nmax = 3\n", "unknown key `lists.a.max`"),
            ("[lists.a]\nmax_ranges = 0\n", "`lists.a.max_ranges` is 0"),
            ("[lists.a]\nwidest = 24\n", "a table like"),
            ("[lists.a]\nwidest = { ipv4 = 33 }\n", "not a prefix length"),
            (
                "[lists.a]\nmax_expires = \"soon\"\n",
                "invalid value `soon`",
            ),
            ("[lists.\"@nodes\"]\nmax_expires = \"8h\"\n", "never expire"),
            ("[lists.\"@office\"]\n", "invalid list name"),
        ] {
            let mut config = Config::default();
            let faults = config.read_file("f", text);
            assert!(
                faults.iter().any(|(cause, _)| cause.contains(want)),
                "{faults:?}"
            );
            assert!(config.has_unreadable(&["lists"]), "{text}");
        }
    }
}
