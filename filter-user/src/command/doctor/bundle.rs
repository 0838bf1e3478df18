//! The report for a bug report: one JSON file, without addresses unless they are asked for.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use filter_common::layout::LAYOUT_VERSION;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{checks::Examination, diagnosis::Diagnosis};
use crate::{
    command::status::Status,
    config::SettingRow,
    context::Context,
    kernel::version,
    store::write_text,
    survey::NetworkInterface,
    ui::{
        error::{UserError, errno},
        json::SCHEMA,
    },
    view::stats::{self, Stats},
};

/// The report. Without `--with-addresses` each address in it is a name like `v4-address-1`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Bundle<'a> {
    /// The number of the schema.
    schema: u32,
    /// The version of apifence.
    apifence: &'static str,
    /// The version of the layout of its maps.
    layout: u32,
    /// The release of the kernel.
    kernel: String,
    /// The architecture of the program.
    architecture: &'static str,
    /// When this was written: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    time: Timestamp,
    /// The distribution of Kubernetes; null if none was found.
    distribution: Option<&'static str>,
    /// The interfaces of the node, a line in words for each.
    interfaces: Vec<String>,
    /// The output of `doctor`.
    doctor: &'a Diagnosis,
    /// The output of `status`.
    status: Part<&'a Status>,
    /// The settings, as `config` shows them.
    settings: Vec<SettingRow>,
    /// The output of `stats`.
    counters: Part<&'a Stats>,
}

/// A part of the report.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Part<T> {
    /// The data.
    Data(T),
    /// Why they cannot be read, in words.
    Error(String),
}

/// Writes the report to `path`.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(
    context: &Context,
    path: &Path,
    diagnosis: &Diagnosis,
    examination: &Examination<'_>,
    with_addresses: bool,
) -> Result<()> {
    let status = match &examination.status {
        Ok(status) => Part::Data(status),
        Err(error) => Part::Error(format!("{error:#}")),
    };
    let counters = stats::read(context);
    let interfaces = examination.survey.interfaces.iter();
    let mut report = serde_json::to_value(Bundle {
        schema: SCHEMA,
        apifence: env!("CARGO_PKG_VERSION"),
        layout: LAYOUT_VERSION,
        kernel: version::release(),
        architecture: std::env::consts::ARCH,
        time: Timestamp::now(),
        distribution: examination.survey.control_plane.distribution,
        interfaces: interfaces.map(NetworkInterface::line).collect(),
        doctor: diagnosis,
        status,
        settings: context.config.rows(),
        counters: match &counters {
            Ok(stats) => Part::Data(stats),
            Err(error) => Part::Error(format!("{error:#}")),
        },
    })?;
    if !with_addresses {
        Redaction::default().value(&mut report);
    }
    let text = serde_json::to_string_pretty(&report).context("write JSON")?;
    write_text(path, text.as_bytes(), 0o600).map_err(|error| {
        UserError::failed(
            format!("write report `{}`: {}", path.display(), errno(&error)),
            "name a file in a writable folder",
        )
    })
}

/// Puts a number in the place of each address: the same for the same address.
#[derive(Default)]
struct Redaction {
    known: BTreeMap<IpAddr, usize>,
}

impl Redaction {
    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(list) => list.iter_mut().for_each(|one| self.value(one)),
            Value::Object(map) => {
                let entries = std::mem::take(map).into_iter();
                *map = entries
                    .map(|(key, mut value)| {
                        self.value(&mut value);
                        (self.text(&key), value)
                    })
                    .collect();
            }
            _ => {}
        }
    }

    /// `text` with its addresses replaced, whatever stands around them.
    fn text(&mut self, text: &str) -> String {
        let is_part = |letter: char| letter.is_ascii_hexdigit() || ".:".contains(letter);
        let mut done = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            done.push_str(before);
            let end = from.find(|letter| !is_part(letter)).unwrap_or(from.len());
            let (run, after) = from.split_at(end);
            let (shown, len) = match self.longest(run) {
                Some((name, len)) => (name, len),
                // An address may begin at the next letter.
                None if run.contains(['.', ':']) => (None, 1),
                None => (None, run.len()),
            };
            done.push_str(shown.as_deref().unwrap_or(&run[..len]));
            rest = if len == run.len() {
                after
            } else {
                &from[len..]
            };
        }
        done + rest
    }

    /// The name of the longest address that `run`, in ASCII, begins with, and its length. An
    /// address that names no machine has no name.
    fn longest(&mut self, run: &str) -> Option<(Option<String>, usize)> {
        /// The longest spelling: IPv6 with IPv4 at the end.
        const LONGEST: usize = 45;
        const SHORTEST: usize = 2;
        let lens = (SHORTEST..=run.len().min(LONGEST)).rev();
        let found = lens.filter_map(|len| Some((run[..len].parse::<IpAddr>().ok()?, len)));
        let (address, len) = found.take(1).next()?;
        Some((self.name(address), len))
    }

    /// The name of an address; none for those that name no machine.
    fn name(&mut self, address: IpAddr) -> Option<String> {
        if address.is_loopback() || address.is_unspecified() {
            return None;
        }
        let next = self.known.len() + 1;
        let number = *self.known.entry(address).or_insert(next);
        let family = if address.is_ipv4() { "v4" } else { "v6" };
        Some(format!("{family}-address-{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_numbers_and_the_rest_stays() {
        let mut redaction = Redaction::default();
        for (text, want) in [
            (
                "203.0.113.7 is in 203.0.113.0/24.",
                "v4-address-1 is in v4-address-2/24.",
            ),
            (
                "from 203.0.113.7:4000, [2001:db8::1]:6443",
                "from v4-address-1:4000, [v6-address-3]:6443",
            ),
            ("2001:db8::1: it", "v6-address-3: it"),
            (
                "0.0.0.0/0, ::/0, 127.0.0.1, ::1, 0.0.0.0",
                "0.0.0.0/0, ::/0, 127.0.0.1, ::1, 0.0.0.0",
            ),
            (
                "Linux 6.12.3, 2026-11-30T10:00:00Z",
                "Linux 6.12.3, 2026-11-30T10:00:00Z",
            ),
            ("`eth0`: a bad face, W08:wg0", "`eth0`: a bad face, W08:wg0"),
            ("[203.0.113.7]", "[v4-address-1]"),
            (
                "`https://203.0.113.7:2379`, cp=https://[2001:DB8::1]:2380",
                "`https://v4-address-1:2379`, cp=https://[v6-address-3]:2380",
            ),
            (
                "site:203.0.113.7 node:2001:db8::1 e203.0.113.7 203.0.113.7-203.0.113.0",
                "site:v4-address-1 nov6-address-4 ev4-address-1 v4-address-1-v4-address-2",
            ),
            (
                "/etc/it/203.0.113.7.conf, 2001:db8:0:0::1%eth0, ::ffff:203.0.113.7, 203.0.113.7:",
                "/etc/it/v4-address-1.conf, v6-address-3%eth0, v6-address-5, v4-address-1:",
            ),
            (
                "52:54:00:12:34:56 \u{e9}.\u{4e2d}:",
                "52:54:00:12:34:56 \u{e9}.\u{4e2d}:",
            ),
        ] {
            assert_eq!(redaction.text(text), want, "{text}");
        }
    }
}
