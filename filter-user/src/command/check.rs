//! `apifence check`: the kernel's verdict on an address.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::Origin};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::list::known_lists;
use crate::{
    change::build::me,
    clock::{Clocks, to_second},
    config::join,
    context::Context,
    kernel::bpf::{Maps, Slot},
    policy::{Prefix, Prefixes, entry},
    ranges::{Entry, List, ListName, Lists, ME},
    ui::error::{InputErrors, UserError},
    view::policy::origin_labels,
};

#[derive(Serialize)]
struct CheckReport {
    results: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    /// The address; none for a range.
    address: Option<IpAddr>,
    /// The range, if one was asked for.
    cidr: Option<IpNet>,
    /// Whether all of its packets to a protected port pass.
    allowed: bool,
    /// `pass`, `drop`, or `would_drop` in monitor mode; `part` if only some addresses of a range
    /// pass; `not_filtered` if none of its packets meet the filter.
    verdict: &'static str,
    /// The range that authorizes it.
    range: Option<IpNet>,
    origins: Vec<&'static str>,
    /// The lists that have the range.
    lists: Vec<ListName>,
    /// The names in `cluster_cidrs` that stand for the range.
    presets: Vec<&'static str>,
    comment: Option<String>,
    /// When the range expires; none if it does not.
    expires: Option<Timestamp>,
    /// A longer prefix that has expired.
    expired: Option<IpNet>,
    /// The authorized parts of a range, if not all of it is authorized.
    authorized: Vec<IpNet>,
    /// A note about the form of the question.
    note: Option<String>,
    /// True if the trie has the address and the prefilter does not.
    contradiction: bool,
}

/// How many parts of a range are listed.
const MAX_NAMED: usize = 8;

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.results.iter().try_for_each(|answer| answer.line(f))
    }
}

impl Answer {
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.verdict, self.allowed) {
            ("part", _) => "partly allowed",
            (_, true) => "allowed",
            (_, false) => "dropped",
        };
        match (self.address, self.cidr) {
            (Some(address), _) => write!(f, "{address} {word}: ")?,
            (None, cidr) => write!(f, "{} {word}: ", cidr.unwrap_or_default())?,
        }
        match (&self.range, self.verdict) {
            _ if self.contradiction => f.write_str(
                "the trie authorizes it, and the table that the program asks first does not",
            )?,
            (_, "not_filtered") => f.write_str("loopback is not filtered")?,
            (Some(range), _) => {
                write!(f, "`{range}` ({}", self.origins.join(", "))?;
                let mut names: Vec<&str> = Vec::new();
                if self.lists.iter().any(|name| !name.is_default()) {
                    names.extend(self.lists.iter().map(ListName::as_str));
                }
                names.extend(&self.presets);
                if !names.is_empty() {
                    write!(f, ": {}", join(names))?;
                }
                f.write_str(")")?;
                if let Some(comment) = &self.comment {
                    write!(f, " # {comment}")?;
                }
                if let Some(time) = self.expires {
                    write!(f, ", until {time}")?;
                }
            }
            (None, verdict) if !self.authorized.is_empty() => {
                let parts = self.authorized.iter().take(MAX_NAMED);
                let parts: Vec<String> = parts.map(|part| format!("`{part}`")).collect();
                write!(f, "authorized: {}", parts.join(", "))?;
                if self.authorized.len() > MAX_NAMED {
                    write!(f, " and {} more", self.authorized.len() - MAX_NAMED)?;
                }
                if verdict == "would_drop" {
                    f.write_str("; the mode is monitor")?;
                }
            }
            (None, "would_drop") => {
                f.write_str("in no authorized range, and the mode is monitor")?;
            }
            (None, "pass") => f.write_str("enforcement is off, everyone passes")?,
            (None, _) => f.write_str("in no authorized range")?,
        }
        if let Some(range) = &self.expired {
            write!(f, "; `{range}` has expired")?;
        }
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        writeln!(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Query {
    range: IpNet,
    /// Whether it was written as a range.
    is_range: bool,
    note: Option<String>,
}

impl Query {
    /// Parses an address, one with a port, or a range. The error is the refusal and its hint.
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let of = |address: IpAddr, note: Option<String>| {
            let canonical = address.to_canonical();
            let note = note.or_else(|| {
                (canonical != address).then(|| {
                    format!(
                        "`{text}` is the IPv4-mapped form, in which programs show an IPv4 client"
                    )
                })
            });
            Self {
                range: canonical.into(),
                is_range: false,
                note,
            }
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(of(address, None));
        }
        if let Ok(client) = text.parse::<SocketAddr>() {
            let note = format!("whatever its own port: {} decides nothing", client.port());
            return Ok(of(client.ip(), Some(note)));
        }
        match text.parse::<IpNet>() {
            Ok(range) if range.trunc() != range => Err((
                format!(
                    "check `{text}`: it has bits set after the first {}",
                    range.prefix_len()
                ),
                format!("`{}`, or `{}` for one host", range.trunc(), range.addr()),
            )),
            Ok(range) => Ok(Self {
                range,
                is_range: true,
                note: None,
            }),
            Err(_) => Err((
                format!("check `{text}`: it is not an address or a range"),
                "write `192.0.2.1`, `192.0.2.1:50000`, `[2001:db8::1]:50000` or `192.0.2.0/24`; `-` reads standard input".to_owned(),
            )),
        }
    }

    /// All questions on the command line, and on standard input if that is named.
    fn all(sources: &[String]) -> Result<Vec<Self>> {
        let mut text = String::new();
        let mut words: Vec<&str> = sources.iter().map(String::as_str).collect();
        if let Some(place) = words.iter().position(|word| *word == "-") {
            io::stdin()
                .read_to_string(&mut text)
                .context("read standard input")?;
            let read = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default())
                .flat_map(|line| line.split([' ', '\t', ',']))
                .filter(|word| !word.is_empty());
            words.retain(|word| *word != "-");
            words.splice(place..place, read);
        }
        let (mut queries, mut refusals) = (Vec::new(), Vec::new());
        for word in words {
            if word == ME {
                queries.push(Self {
                    range: me()?.into(),
                    is_range: false,
                    note: None,
                });
                continue;
            }
            match Self::parse(word) {
                Ok(query) => queries.push(query),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if !refusals.is_empty() {
            return Err(InputErrors::new(refusals).into());
        }
        if queries.is_empty() {
            return Err(UserError::input(
                "check: standard input names no address",
                "write one or more on a line, with spaces or commas in between",
            ));
        }
        Ok(queries)
    }

    /// The answer before the policy is read.
    fn answer(&self) -> Answer {
        Answer {
            address: (!self.is_range).then(|| self.range.addr()),
            cidr: self.is_range.then_some(self.range),
            allowed: false,
            verdict: "drop",
            range: None,
            origins: Vec::new(),
            lists: Vec::new(),
            presets: Vec::new(),
            comment: None,
            expires: None,
            expired: None,
            authorized: Vec::new(),
            note: self.note.clone(),
            contradiction: false,
        }
    }
}

/// The content of a slot's maps for a question.
struct Lookup {
    /// The prefixes that contain it, the longest first.
    around: Vec<Prefix>,
    /// The unexpired ranges inside of it, if no prefix that contains it is unexpired.
    inside: Vec<IpNet>,
    /// False if the prefilter lacks an address that the trie authorizes.
    in_table: bool,
}

impl Lookup {
    fn read(
        maps: &Maps,
        slot: Slot,
        query: &Query,
        all: Option<&Prefixes>,
        now: &Clocks,
    ) -> Result<Self> {
        let range = query.range;
        let mut around = maps.around(slot, range.addr(), now)?;
        around.retain(|prefix| prefix.range.prefix_len() <= range.prefix_len());
        let authorized = around.first().is_some_and(|prefix| prefix.lives(now.wall));
        let inside = match all {
            Some(all) if query.is_range && !authorized => {
                let alive = all.iter().filter(|prefix| prefix.lives(now.wall));
                let ranges = alive.map(|prefix| prefix.range);
                IpNet::aggregate(&ranges.filter(|inner| range.contains(inner)).collect())
            }
            _ => Vec::new(),
        };
        let mut probes: BTreeSet<IpAddr> = BTreeSet::new();
        if authorized {
            probes.extend([range.addr(), range.broadcast()]);
        }
        for part in inside.iter().take(MAX_NAMED) {
            probes.extend([part.addr(), part.broadcast()]);
        }
        let mut in_table = true;
        for probe in probes {
            in_table &= maps.in_table(slot, probe)?;
        }
        Ok(Self {
            around,
            inside,
            in_table,
        })
    }

    /// The answer to `query` in `mode`. `entries` are those of the ranges file.
    fn answer(&self, query: &Query, mode: u8, entries: &[Entry], now: Timestamp) -> Answer {
        let mut answer = query.answer();
        if query.range.addr().is_loopback() {
            (answer.allowed, answer.verdict) = (true, "not_filtered");
            return answer;
        }
        let around = &self.around;
        let authorized = around.first().is_some_and(|prefix| prefix.lives(now));
        let entry_of = |prefix: &Prefix| entry(entries, &prefix.range);
        // The kernel has the combined expiry of a prefix; each entry's own one is in the file.
        let own = |prefix: &Prefix| match entry_of(prefix) {
            Some(entry) if prefix.origins == Origin::List as u8 => entry.expires,
            _ => prefix.expires,
        };
        let lives = |prefix: &&Prefix| own(prefix).is_none_or(|time| now < time);
        let authorizing = around
            .iter()
            .find(lives)
            .or(around.first())
            .filter(|_| authorized);
        let entry = authorizing.and_then(entry_of);
        let whole = authorized || self.inside.first() == Some(&query.range);
        answer.contradiction = !self.in_table && mode != Mode::Off as u8;
        answer.verdict = if mode == Mode::Off as u8 || (whole && self.in_table) {
            "pass"
        } else if mode == Mode::Monitor as u8 {
            "would_drop"
        } else if self.inside.is_empty() || whole {
            "drop"
        } else {
            "part"
        };
        answer.allowed = matches!(answer.verdict, "pass" | "would_drop");
        answer.range = authorizing.map(|prefix| prefix.range);
        answer.origins = authorizing.map_or_else(Vec::new, |prefix| origin_labels(prefix.origins));
        answer.comment = entry.and_then(|entry| entry.comment.clone());
        answer.expires = authorizing.and_then(own).map(to_second);
        let expired = around.first().filter(|prefix| !lives(prefix));
        answer.expired = expired.map(|prefix| prefix.range);
        answer.authorized = self.inside.clone();
        answer
    }
}

pub(super) fn run(context: &Context, sources: &[String]) -> Result<u8> {
    let queries = Query::all(sources)?;
    let maps = context.attached_maps()?;
    // The verdict needs only the kernel. Without a readable file just the comments are missing.
    let lists = known_lists(context, Some(&maps)).ok().flatten();
    let list = lists.as_ref().map(Lists::union);
    let entries = list.as_ref().map_or(&[][..], List::entries);
    let now = Clocks::now()?;
    let ranges = queries.iter().any(|query| query.is_range);
    let (mode, settings, lookups) = maps.read_consistent(|slot| {
        let all = ranges.then(|| maps.sources(slot, &now)).transpose()?;
        let lookups = queries
            .iter()
            .map(|query| Lookup::read(&maps, slot, query, all.as_ref(), &now));
        Ok((
            maps.record(slot)?.mode,
            maps.settings(slot).ok(),
            lookups.collect::<Result<Vec<_>>>()?,
        ))
    })?;
    let presets = settings.map_or_else(HashMap::new, |settings| {
        settings.presets(&context.read_cluster(settings.cluster_files()).lists)
    });
    let names = lists.as_ref().map(Lists::names).unwrap_or_default();
    let results = queries.iter().zip(lookups).map(|(query, lookups)| {
        let mut answer = lookups.answer(query, mode, entries, now.wall);
        let range = answer.range.and_then(|range| names.get(&range));
        answer.lists = range.cloned().unwrap_or_default();
        if let Some(range) = answer.range
            && answer.origins.contains(&Origin::Cluster.label())
        {
            answer.presets = presets.get(&range).cloned().unwrap_or_default();
        }
        answer
    });
    let results: Vec<Answer> = results.collect();
    let report = CheckReport { results };
    context.global.output.write(&report)?;
    let contradictions = report.results.iter().filter(|answer| answer.contradiction);
    if let count @ 1.. = contradictions.count() {
        return Err(UserError::failed(
            format!(
                "check sources: the kernel's trie and table contradict each other on {count}: they are dropped"
            ),
            "`apifence ranges reload` writes both anew; please report it with the output of `apifence ranges list`",
        ));
    }
    let allowed = report.results.iter().all(|answer| answer.allowed);
    Ok(u8::from(!allowed))
}
