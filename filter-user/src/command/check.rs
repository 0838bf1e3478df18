//! `apifence check`: the kernel's verdict on an address.

mod query;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

use anyhow::Result;
use filter_common::{Mode, layout::Origin};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use self::query::Query;
use crate::{
    clock::{Clocks, to_second},
    config::{Guard, Settings, join, named},
    context::Context,
    kernel::bpf::{Group, Maps, Slot},
    policy::{Prefix, Prefixes, entry},
    ranges::{Entry, ListName, Lists},
    ui::error::UserError,
    view::policy::origin_labels,
};

/// Whether sources are authorized.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CheckReport {
    /// The answers, in the order of the questions.
    results: Vec<Answer>,
}

/// The answer about an address or a range.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Answer {
    /// The address; null if the question was about a range.
    address: Option<IpAddr>,
    /// The range; null if the question was about an address.
    cidr: Option<IpNet>,
    /// Whether all of its packets to a protected port pass.
    allowed: bool,
    /// `pass`, `drop`, or `would_drop` in monitor mode; `part` if only some addresses of a range
    /// pass; `not_filtered` if none of its packets meet the filter; `unprotected` if the port that
    /// was asked about is not protected.
    verdict: &'static str,
    /// The range that authorizes it; null if no range does.
    range: Option<IpNet>,
    /// Why that range is authorized: `list`, `outbound`, `cluster`, `node`, ...
    origins: Vec<&'static str>,
    /// The lists that have the range.
    lists: Vec<ListName>,
    /// The names in `cluster_cidrs` that stand for the range.
    presets: Vec<&'static str>,
    /// The comment of the range; null without one.
    comment: Option<String>,
    /// When the range expires: RFC 3339, UTC; null if it does not.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    expires: Option<Timestamp>,
    /// A longer prefix that has expired; null if there is none.
    expired: Option<IpNet>,
    /// The authorized parts of a range, if not all of it is authorized.
    authorized: Vec<IpNet>,
    /// A note about the form of the question; null without one.
    note: Option<String>,
    /// True if the trie has the address and the prefilter does not.
    contradiction: bool,
    /// The port of the question; null if it named none.
    port: Option<u16>,
    /// The guard of the ports that the answer is about; null for ports without one.
    guard: Option<Guard>,
    /// The answers at the ports of other guards.
    #[serde(rename = "guards")]
    elsewhere: Vec<Self>,
}

/// How many parts of a range are listed.
const MAX_NAMED: usize = 8;

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.results.iter().try_for_each(|answer| answer.line(f))
    }
}

impl Answer {
    /// Why it has this verdict.
    fn reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.range, self.verdict) {
            _ if self.contradiction => f.write_str(
                "the trie authorizes it, and the table that the program asks first does not",
            )?,
            (_, "unprotected") => f.write_str("the port is not protected")?,
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
            (None, _) => match &self.guard {
                None => f.write_str("in no authorized range")?,
                Some(guard) => write!(f, "in no range of the {}", named(&guard.lists))?,
            },
        }
        Ok(())
    }

    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.verdict, self.allowed) {
            ("part", _) => "partly allowed",
            (_, true) => "allowed",
            (_, false) => "dropped",
        };
        match (self.address, self.cidr) {
            (Some(address), _) => write!(f, "{address} {word}")?,
            (None, cidr) => write!(f, "{} {word}", cidr.unwrap_or_default())?,
        }
        match (self.port, &self.guard) {
            (Some(port), _) => write!(f, " at TCP {port}: ")?,
            (None, Some(guard)) => write!(f, " at {}: ", guard.ports())?,
            (None, None) => f.write_str(": ")?,
        }
        self.reason(f)?;
        if let Some(range) = &self.expired {
            write!(f, "; `{range}` has expired")?;
        }
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        writeln!(f)?;
        let differs = |other: &&Self| other.verdict != self.verdict;
        let mut others = self.elsewhere.iter().filter(differs);
        others.try_for_each(|other| other.line(f))
    }
}

impl Answer {
    /// The answer to `query` at the ports of `scope`, before the policy is read.
    fn new(query: &Query, scope: &Scope) -> Self {
        Self {
            address: (!query.is_range).then(|| query.range.addr()),
            cidr: query.is_range.then_some(query.range),
            port: scope.port,
            guard: scope.guard.clone(),
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
            note: query.note.clone(),
            contradiction: false,
            elsewhere: Vec::new(),
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
        (slot, group): (Slot, Group),
        query: &Query,
        all: Option<&Prefixes>,
        now: &Clocks,
    ) -> Result<Self> {
        let range = query.range;
        let mut around = maps.around(slot, group, range.addr(), now)?;
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

    /// The answer to `query` in `mode`, at the ports of `scope`. `entries` are those of the files.
    fn answer(
        &self,
        query: &Query,
        mode: u8,
        (scope, entries): (&Scope, &[Entry]),
        now: Timestamp,
    ) -> Answer {
        let mut answer = Answer::new(query, scope);
        if scope.is_unprotected {
            (answer.allowed, answer.verdict) = (true, "unprotected");
            return answer;
        }
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

/// Ports with the same sources.
struct Scope {
    group: Group,
    /// Their guard, if they have one.
    guard: Option<Guard>,
    /// The port of the question; null if it named none.
    port: Option<u16>,
    /// Whether that port is not protected.
    is_unprotected: bool,
}

impl Scope {
    /// The scope of `port`, or all of `settings`: the ports without a guard first. At least one.
    fn all(settings: Option<&Settings>, port: Option<u16>) -> Vec<Self> {
        let Some(settings) = settings else {
            // Settings that cannot be read: what there is to say is about all lists.
            return vec![Self {
                group: Group::ALL,
                guard: None,
                port,
                is_unprotected: false,
            }];
        };
        let guards = settings.guards.iter().enumerate();
        let guards = guards.map(|(number, guard)| (Group::guard(number), Some(guard.clone())));
        let scope = |(group, guard)| Self {
            group,
            guard,
            port,
            is_unprotected: port.is_some_and(|port| !settings.protects(port)),
        };
        if let Some(port) = port {
            let own = Group::of(settings, port);
            let mut guards = guards.filter(|(group, _)| *group == own);
            return vec![scope(guards.next().unwrap_or((own, None)))];
        }
        let has_others = !settings.unguarded_ports().is_empty();
        let others = has_others.then_some((Group::ALL, None));
        others.into_iter().chain(guards).map(scope).collect()
    }

    /// The entries of `lists` that count here.
    fn entries(&self, lists: &Lists) -> Vec<Entry> {
        match &self.guard {
            None => lists.union().entries().to_vec(),
            Some(guard) => {
                let mut entries = lists.entries_of(&guard.lists);
                entries.sort_by_key(|entry| (entry.range, entry.expires));
                entries
            }
        }
    }

    /// Answers all `queries` here.
    fn answer(
        &self,
        maps: &Maps,
        slot: Slot,
        queries: &[Query],
        lists: &Lists,
        now: &Clocks,
    ) -> Result<Vec<Answer>> {
        let mode = maps.record(slot)?.mode;
        let ranges = queries.iter().any(|query| query.is_range);
        let all = ranges
            .then(|| maps.sources_of(slot, self.group, now))
            .transpose()?;
        let entries = self.entries(lists);
        let names = lists.names();
        let is_own = |name: &&ListName| {
            self.guard
                .as_ref()
                .is_none_or(|guard| guard.lists.contains(*name))
        };
        let answers = queries.iter().map(|query| {
            let lookup = Lookup::read(maps, (slot, self.group), query, all.as_ref(), now)?;
            let mut answer = lookup.answer(query, mode, (self, &entries), now.wall);
            let lists = answer.range.and_then(|range| names.get(&range));
            answer.lists = lists
                .into_iter()
                .flatten()
                .filter(is_own)
                .cloned()
                .collect();
            Ok(answer)
        });
        answers.collect()
    }
}

/// Names the presets whose ranges authorize.
fn name_presets(context: &Context, maps: &Maps, answers: &mut [Answer]) {
    // Without the settings just the names are missing.
    let settings = maps.active_slot().and_then(|slot| maps.settings(slot));
    let presets = settings.map_or_else(
        |_| HashMap::new(),
        |settings| settings.presets(&context.read_cluster(settings.cluster_files()).lists),
    );
    for answer in answers {
        if let Some(range) = answer.range
            && answer.origins.contains(&Origin::Cluster.label())
        {
            answer.presets = presets.get(&range).cloned().unwrap_or_default();
        }
    }
}

/// Answers for `sources`; at `port`, or at all ports.
pub(super) fn run(context: &Context, sources: &[String], port: Option<u16>) -> Result<u8> {
    let queries = Query::all(sources)?;
    let maps = context.attached_maps()?;
    // The verdict needs only the kernel. Without a readable file just the comments are missing.
    let lists = context
        .lists_in_force(Some(&maps))
        .map(|read| read.lists)
        .unwrap_or_default();
    let now = Clocks::now()?;
    let mut results = maps.read_consistent(|slot| {
        let scopes = Scope::all(maps.settings(slot).ok().as_ref(), port).into_iter();
        let answers = scopes.map(|scope| scope.answer(&maps, slot, &queries, &lists, &now));
        answers.collect::<Result<Vec<_>>>()
    })?;
    let guards = results.split_off(1);
    let mut results = results.remove(0);
    for answers in guards {
        for (result, answer) in results.iter_mut().zip(answers) {
            result.elsewhere.push(answer);
        }
    }
    name_presets(context, &maps, &mut results);
    let report = CheckReport { results };
    context.global.output.write(&report)?;
    let contradictions = report.results.iter().filter(|answer| answer.contradiction);
    if let count @ 1.. = contradictions.count() {
        return Err(UserError::failed(
            format!(
                "check sources: the kernel's trie and table contradict each other on {count}: they are dropped"
            ),
            "`apifence ranges reload` writes both again; please report it with the output of `apifence ranges list`",
        ));
    }
    let allowed = report.results.iter().all(|answer| answer.allowed);
    Ok(u8::from(!allowed))
}
