//! The values that fit an argument: of this node, of its files, of the kernel.

use std::{collections::BTreeMap, fs, net::IpAddr};

use clap_complete::engine::CompletionCandidate;
use ipnet::IpNet;
use jiff::Timestamp;

use super::typed::Typed;
use crate::{
    codes::Code,
    config::{DEFAULT_METRICS_LISTEN, DEFAULT_PORTS},
    context::Context,
    kernel::bpf::{ReportReader, StartAt, read_monitored_sources},
    policy::author::Author,
    ranges::{Entry, ListName, parse_range},
    store::{History, read_ranges},
    ui::when::relative,
};

/// The most candidates of one source: a screen of them.
const MOST: usize = 100;

/// Where values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Interfaces,
    Lists,
    /// The ranges in the list that was typed.
    Listed,
    /// The earlier lists, by number.
    History,
    /// The sources that were refused lately.
    Refused,
    /// Codes of warnings.
    Codes,
    Ports,
    /// Words with what they mean.
    Words(&'static [(&'static str, &'static str)]),
}

/// The address of the SSH session.
const ME: Source = Source::Words(&[("me", "the address of this SSH session")]);
const TRIALS: &[(&str, &str)] = &[("60s", ""), ("5m", ""), ("30m", "")];
const SETS: &[(&str, &str)] = &[
    ("@nodes", "addresses of the cluster's nodes"),
    ("@pods", "pod networks"),
    ("@gcp-health-checks", "probes of Google's load balancers"),
    ("@azure-probe", "probes of Azure's load balancers"),
];
const EXPIRIES: &[(&str, &str)] = &[
    ("8h", "a working day"),
    ("1d", ""),
    ("7d", ""),
    ("30d", ""),
    ("90d", ""),
    ("never", "no expiry"),
];

impl Source {
    /// The sources for the argument `id` of the command with the words `path`.
    pub(super) fn of(path: &str, id: &str) -> &'static [Self] {
        match (path, id) {
            ("ranges add", "ranges") => &[ME, Self::Refused, Self::Listed],
            ("ranges remove", "ranges") => &[Self::Listed],
            ("ranges set", "ranges") => &[ME],
            ("check", "sources") => &[ME, Self::Refused, Self::Listed],
            ("ranges rollback", "number") => &[Self::History],
            (_, "interface" | "interfaces") => &[Self::Interfaces],
            (_, "list") => &[Self::Lists],
            ("explain", "code") | (_, "ack" | "unack" | "acknowledged_warnings") => &[Self::Codes],
            (_, "port" | "ports") => &[Self::Ports],
            (_, "cluster_cidrs") => &[Self::Words(SETS)],
            (_, "expires") => &[Self::Words(EXPIRIES)],
            (_, "confirm_within" | "on_cut_within") => &[Self::Words(TRIALS)],
            (_, "unused_for") => &[Self::Words(&[("30d", ""), ("90d", "")])],
            (_, "interval") => &[Self::Words(&[("500ms", ""), ("1s", ""), ("5s", "")])],
            (_, "max_change") => &[Self::Words(&[("10%", ""), ("20%", ""), ("50%", "")])],
            (_, "metrics_listen") => &[Self::Words(&[
                (DEFAULT_METRICS_LISTEN, "the default"),
                ("off", "serve no metrics"),
            ])],
            (_, "group_v4") => &[Self::Words(&[("24", ""), ("32", "single addresses")])],
            (_, "group_v6") => &[Self::Words(&[("64", ""), ("128", "single addresses")])],
            _ => &[],
        }
    }

    /// Its values, each with a note; the note may be empty.
    fn values(self, typed: &Typed) -> Vec<(String, String)> {
        match self {
            Self::Interfaces => interfaces(),
            Self::Lists => typed.read(lists).unwrap_or_default(),
            Self::Listed => listed(typed),
            Self::History => history(typed),
            Self::Refused => typed.read(refused).unwrap_or_default(),
            Self::Codes => Code::ALL.map(code).into(),
            Self::Ports => DEFAULT_PORTS
                .map(|port| (port.to_string(), String::new()))
                .into(),
            Self::Words(words) => words
                .iter()
                .map(|(word, note)| ((*word).to_owned(), (*note).to_owned()))
                .collect(),
        }
    }
}

/// The values of `sources` that begin with `word`. Of values separated by commas, only the last is
/// completed.
pub(super) fn matching(sources: &[Source], typed: &Typed, word: &str) -> Vec<CompletionCandidate> {
    let (before, begun) = word.split_at(word.rfind(',').map_or(0, |comma| comma + 1));
    let mut seen = Vec::new();
    for source in sources {
        let fits = |(value, _): &(String, String)| {
            value.starts_with(begun) && seen.iter().all(|(other, _)| other != value)
        };
        let new: Vec<_> = source.values(typed).into_iter().filter(fits).collect();
        seen.extend(new.into_iter().take(MOST));
    }
    let candidate = |(value, note): (String, String)| {
        let note = (!note.is_empty()).then(|| note.into());
        CompletionCandidate::new(format!("{before}{value}")).help(note)
    };
    seen.into_iter().map(candidate).collect()
}

fn code(code: Code) -> (String, String) {
    (code.number(), code.name().replace('-', " "))
}

/// The interfaces of this network namespace.
fn interfaces() -> Vec<(String, String)> {
    let folder = "/sys/class/net";
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<(String, String)> = names
        .filter(|name| fs::metadata(format!("{folder}/{name}/ifindex")).is_ok())
        .map(|name| {
            let state = fs::read_to_string(format!("{folder}/{name}/operstate"));
            let state = state.unwrap_or_default().trim().to_owned();
            (name, state)
        })
        .collect();
    found.sort_unstable();
    found
}

fn lists(context: &Context) -> Option<Vec<(String, String)>> {
    let names = context.list_files().names().ok()?;
    let default = (
        ListName::default().to_string(),
        "the ranges file".to_owned(),
    );
    let named = names
        .lists
        .iter()
        .map(|name| (name.to_string(), String::new()));
    Some([default].into_iter().chain(named).collect())
}

fn listed(typed: &Typed) -> Vec<(String, String)> {
    let Some(name) = typed.list() else {
        return Vec::new();
    };
    let read = move |context: &Context| {
        let file = read_ranges(&context.list_files().file(&name)).ok()??;
        Some(file.list().entries().iter().map(entry).collect())
    };
    typed.read(read).unwrap_or_default()
}

/// A range as it is typed, with its comment and expiry.
fn entry(entry: &Entry) -> (String, String) {
    let until = entry.expires.map(|time| format!("until {time}"));
    let notes: Vec<String> = entry.comment.clone().into_iter().chain(until).collect();
    (short(entry.range), notes.join(", "))
}

/// Without the prefix length of a single address.
fn short(range: IpNet) -> String {
    match range.prefix_len() == range.max_prefix_len() {
        true => range.addr().to_string(),
        false => range.to_string(),
    }
}

fn history(typed: &Typed) -> Vec<(String, String)> {
    let Some(name) = typed.list() else {
        return Vec::new();
    };
    let read = move |context: &Context| {
        let history = History::of(&context.list_files().file(&name));
        let before = history.before().ok()?;
        let row = |(index, kept): (usize, &crate::store::HistoryEntry)| {
            let time = kept.written.map(|time| time.to_string());
            let by = kept.by.as_ref().map(Author::short);
            let notes: Vec<String> = time.into_iter().chain(by).collect();
            ((index + 1).to_string(), notes.join(", "))
        };
        Some(before.iter().enumerate().map(row).collect())
    };
    typed.read(read).unwrap_or_default()
}

/// The sources that were refused lately, or that monitor mode would refuse; the last one first.
fn refused(context: &Context) -> Option<Vec<(String, String)>> {
    let maps = context.pins.maps();
    let mut last = BTreeMap::<IpAddr, (Timestamp, Option<u16>)>::new();
    let mut saw = |source: IpAddr, time: Timestamp, port: Option<u16>| {
        let seen = last.entry(source).or_insert((time, port));
        if time >= seen.0 {
            *seen = (time, port);
        }
    };
    let reports = ReportReader::open(&maps, StartAt::Oldest);
    let batch = reports.and_then(|mut reports| reports.poll());
    for report in batch.ok().into_iter().flat_map(|batch| batch.reports) {
        if let Some(source) = report.source {
            saw(source, report.time, report.ports.map(|[_, port]| port));
        }
    }
    for source in read_monitored_sources(&maps).unwrap_or_default() {
        saw(source.source, source.last_seen, source.port);
    }
    let mut rows: Vec<_> = last.into_iter().collect();
    rows.sort_by_key(|(source, (time, _))| (std::cmp::Reverse(*time), *source));
    // A list refuses loopback, multicast and the like.
    rows.retain(|(source, _)| parse_range(&source.to_string()).is_ok());
    let now = Timestamp::now();
    let row = |(source, (time, port)): (IpAddr, (Timestamp, Option<u16>))| {
        let port = port.map_or_else(String::new, |port| format!(" at port {port}"));
        let note = format!("refused{port} {}", relative(time, now));
        (source.to_string(), note)
    };
    Some(rows.into_iter().map(row).collect())
}
