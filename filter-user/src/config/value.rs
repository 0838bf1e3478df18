//! The types of settings: how each is read from the file and from the command line, and shown.

use std::{collections::BTreeSet, net::IpAddr, ops::Range, path::PathBuf};

use clap::ArgMatches;
use ipnet::IpNet;
use serde_json::json;
use toml::{Spanned, de::DeValue};

use super::{ClusterCidr, MAX_MAX_RANGES, MetricsListen, Window};
use crate::{
    codes::Acknowledgement,
    ranges::{InputError, parse_range, typed_items},
};

/// The faults of a value in the file, each with its byte range.
pub(super) type ValueErrors = Vec<(Range<usize>, InputError)>;

/// The type of a setting.
pub(super) trait Value: Clone {
    /// Example of the syntax in the file.
    const EXAMPLE: &'static str;

    /// The type in words.
    const KIND: &'static str;

    /// Reads the value of `key` in the file; returns all faults otherwise.
    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors>;

    /// Reads the value that `matches` have for `id`, from a flag or from the environment; `clap`
    /// has parsed it.
    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>>;

    /// The type in words, with all values if it has few.
    fn kind() -> String {
        Self::KIND.to_owned()
    }

    /// The JSON form. It is also the form in the file, except for spaces after commas.
    fn json(&self) -> serde_json::Value;
}

/// The single value in `matches`.
pub(super) fn single<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str) -> T {
    matches
        .get_one(id)
        .cloned()
        .expect("a setting that was given has a value")
}

/// The strings in `matches`; an empty one stands for an empty list.
fn strings(matches: &ArgMatches, id: &str) -> Vec<String> {
    let given = matches.get_many::<String>(id).into_iter().flatten();
    given.filter(|text| !text.is_empty()).cloned().collect()
}

pub(super) fn refusal(cause: String, hint: impl Into<String>) -> InputError {
    InputError {
        cause,
        hint: hint.into(),
    }
}

/// The expected value in the file.
#[derive(Clone, Copy)]
pub(super) enum Expected {
    /// The value of a setting.
    Whole(&'static str),
    /// An element of a list, which is the value of a setting.
    ListOf(&'static str),
}

/// The refusal of a value of the wrong type.
pub(super) fn wrong_type<T: Value>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    wanted: Expected,
) -> ValueErrors {
    let is = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let cause = match wanted {
        Expected::Whole(what) => format!("`{key}` is {is}, not {what}"),
        Expected::ListOf(what) => format!("`{key}` has {is} in it, not only {what}"),
    };
    let hint = format!("write it like `{key} = {}`", T::EXAMPLE);
    vec![(value.span(), refusal(cause, hint))]
}

/// A string in the file.
pub(super) fn string<'a, T: Value>(
    key: &str,
    value: &'a Spanned<DeValue<'_>>,
    wanted: Expected,
) -> Result<&'a str, ValueErrors> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(wrong_type::<T>(key, value, wanted)),
    }
}

/// A whole number in the file; `None` beyond 64 bits.
pub(super) fn number<T: Value>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    wanted: Expected,
) -> Result<Option<i64>, ValueErrors> {
    match value.get_ref() {
        DeValue::Integer(digits) => Ok(i64::from_str_radix(digits.as_str(), digits.radix()).ok()),
        _ => Err(wrong_type::<T>(key, value, wanted)),
    }
}

/// A list in the file, each element read by `item`.
pub(super) fn list<T: Value, I>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    item: impl Fn(&Spanned<DeValue<'_>>) -> Result<I, ValueErrors>,
) -> Result<Vec<I>, ValueErrors> {
    let DeValue::Array(values) = value.get_ref() else {
        return Err(wrong_type::<T>(key, value, Expected::Whole("a list")));
    };
    let mut items = Vec::new();
    let mut misfits = ValueErrors::new();
    for value in values {
        match item(value) {
            Ok(item) => items.push(item),
            Err(more) => misfits.extend(more),
        }
    }
    if misfits.is_empty() {
        Ok(items)
    } else {
        Err(misfits)
    }
}

/// The refusal of an element of `key`.
fn refuse_element(
    key: &str,
    span: Range<usize>,
    InputError { cause, hint }: InputError,
) -> ValueErrors {
    vec![(span, refusal(format!("`{key}`: {cause}"), hint))]
}

/// An address that can be the source of packets, like a range.
fn address(text: &str) -> Result<IpAddr, InputError> {
    let Ok(address) = text.parse() else {
        return Err(refusal(
            format!("`{text}` is not an IP address"),
            "write it like `198.51.100.7`; for CIDRs use `outbound_ip_prefixes` or `--outbound-ip-prefixes`",
        ));
    };
    parse_range(text).map(|_| address)
}

/// A whole number in the file, as written.
fn digits(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::Integer(digits) => digits.to_string(),
        _ => String::new(),
    }
}

/// Reads each typed element by `item`; returns all refusals otherwise.
fn read_each<T>(
    texts: &[String],
    item: impl Fn(&str) -> Result<T, InputError>,
) -> Result<Vec<T>, Vec<InputError>> {
    let mut items = Vec::new();
    let mut refusals = Vec::new();
    for text in texts.iter().flat_map(|text| typed_items(text)) {
        match item(&text) {
            Ok(item) => items.push(item),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() {
        Ok(items)
    } else {
        Err(refusals)
    }
}

impl Value for PathBuf {
    const EXAMPLE: &'static str = "\"/a/path\"";
    const KIND: &'static str = "path";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let text = string::<Self>(key, value, Expected::Whole("a path"))?;
        if !text.starts_with('/') {
            // A relative path would mean different files to a service and to a shell.
            let cause = format!("`{key}` is `{text}`, which does not start with `/`");
            let hint = "write the whole path";
            return Err(vec![(value.span(), refusal(cause, hint))]);
        }
        Ok(text.into())
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(single(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        self.to_string_lossy().into()
    }
}

impl Value for bool {
    const EXAMPLE: &'static str = "true";
    const KIND: &'static str = "boolean";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(wrong_type::<Self>(
                key,
                value,
                Expected::Whole("`true` or `false`"),
            )),
        }
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(single(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// The limit of the list.
impl Value for u32 {
    const EXAMPLE: &'static str = "10000";
    const KIND: &'static str = "number";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let number = number::<Self>(key, value, Expected::Whole("a number"))?;
        number
            .and_then(|number| Self::try_from(number).ok())
            .filter(|number| (1..=MAX_MAX_RANGES).contains(number))
            .ok_or_else(|| {
                let digits = digits(value);
                let cause = format!("`{key}` is {digits}, not from 1 to {MAX_MAX_RANGES}");
                let hint = format!("write it like `{key} = {}`", Self::EXAMPLE);
                vec![(value.span(), refusal(cause, hint))]
            })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(single(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// Ports.
impl Value for BTreeSet<u16> {
    const EXAMPLE: &'static str = "[443, 6443]";
    const KIND: &'static str = "list of ports";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let ports: Self = list::<Self, _>(key, value, |value| {
            number::<Self>(key, value, Expected::ListOf("ports"))?
                .and_then(|number| u16::try_from(number).ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| {
                    let cause = format!("`{key}` has {}, which is not a port", digits(value));
                    vec![(value.span(), refusal(cause, "ports are from 1 to 65535"))]
                })
        })?
        .into_iter()
        .collect();
        if ports.is_empty() {
            let cause = format!("`{key}` is empty: no port would be protected");
            let hint = "`apifence ranges clear` switches enforcement off; leave the key out for the default";
            return Err(vec![(value.span(), refusal(cause, hint))]);
        }
        Ok(ports)
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        let ports = matches.get_many::<u16>(id).into_iter().flatten();
        Ok(ports.copied().collect())
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// Names of interfaces.
impl Value for Vec<String> {
    const EXAMPLE: &'static str = "[\"eth0\"]";
    const KIND: &'static str = "list of names";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        list::<Self, _>(key, value, |value| {
            let name = string::<Self>(key, value, Expected::ListOf("names"))?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                let cause = match name {
                    "" => format!("`{key}` has an empty name"),
                    name => format!("`{key}` has `{name}`: a name cannot have a space"),
                };
                let hint = "`ip link` lists the interfaces";
                return Err(vec![(value.span(), refusal(cause, hint))]);
            }
            Ok(name.to_owned())
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(strings(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// Ranges.
impl Value for Vec<IpNet> {
    const EXAMPLE: &'static str = "[\"198.51.100.0/24\"]";
    const KIND: &'static str = "list of CIDRs";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        list::<Self, _>(key, value, |value| {
            let text = string::<Self>(key, value, Expected::ListOf("CIDRs"))?;
            parse_range(text).map_err(|refusal| refuse_element(key, value.span(), refusal))
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        read_each(&strings(matches, id), parse_range)
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// CIDRs and presets.
impl Value for Vec<ClusterCidr> {
    const EXAMPLE: &'static str = "[\"198.51.100.0/24\", \"@nodes\"]";
    const KIND: &'static str = "list of CIDRs and names";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        list::<Self, _>(key, value, |value| {
            let text = string::<Self>(key, value, Expected::ListOf("CIDRs and names"))?;
            ClusterCidr::parse(text).map_err(|refusal| refuse_element(key, value.span(), refusal))
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        read_each(&strings(matches, id), ClusterCidr::parse)
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// Addresses.
impl Value for Vec<IpAddr> {
    const EXAMPLE: &'static str = "[\"198.51.100.7\"]";
    const KIND: &'static str = "list of addresses";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        list::<Self, _>(key, value, |value| {
            let text = string::<Self>(key, value, Expected::ListOf("addresses"))?;
            address(text).map_err(|refusal| refuse_element(key, value.span(), refusal))
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        read_each(&strings(matches, id), address)
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

/// Acknowledged warnings.
impl Value for Vec<Acknowledgement> {
    const EXAMPLE: &'static str = "[\"W11\", \"W08:wg0\"]";
    const KIND: &'static str = "list of codes";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        list::<Self, _>(key, value, |value| {
            let text = string::<Self>(key, value, Expected::ListOf("codes"))?;
            acknowledgement(text).map_err(|refusal| refuse_element(key, value.span(), refusal))
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        read_each(&strings(matches, id), acknowledgement)
    }

    fn json(&self) -> serde_json::Value {
        self.iter().map(ToString::to_string).collect()
    }
}

fn acknowledgement(text: &str) -> Result<Acknowledgement, InputError> {
    Acknowledgement::parse(text).map_err(|(cause, hint)| InputError { cause, hint })
}

/// The address that serves metrics.
impl Value for MetricsListen {
    const EXAMPLE: &'static str = "\"127.0.0.1:9464\"";
    const KIND: &'static str = "address and port";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let text = string::<Self>(key, value, Expected::Whole("an address and a port"))?;
        text.parse().map_err(|why| {
            let cause = format!("`{key}` is `{text}`: {why}");
            let hint = format!("write it like `{key} = {}`, or `\"off\"`", Self::EXAMPLE);
            vec![(value.span(), refusal(cause, hint))]
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(single(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        self.to_string().into()
    }
}

/// A duration.
impl Value for Window {
    const EXAMPLE: &'static str = "\"5m\"";
    const KIND: &'static str = "duration";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
        let text = string::<Self>(key, value, Expected::Whole("a duration"))?;
        text.parse().map_err(|why| {
            let cause = format!("invalid value `{text}` for `{key}`");
            vec![(value.span(), refusal(cause, why))]
        })
    }

    fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
        Ok(single(matches, id))
    }

    fn json(&self) -> serde_json::Value {
        self.to_string().into()
    }
}
