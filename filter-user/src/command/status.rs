//! `apifence status`: the policy in force, and its problems.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Error, Result};
use filter_common::{
    Mode,
    layout::{Basis, Origin, PolicyRecord},
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::acknowledge;
use crate::{
    cli::StatusArgs,
    clock::Clocks,
    codes::Code,
    config::{Settings, join},
    context::Context,
    kernel::{
        bpf::Maps,
        links::{
            protected::{ProtectedInterface, protected_interfaces},
            strays::{Stray, strays, unnamed},
        },
        net::{interface::Interface, rtnetlink},
    },
    policy::{Difference, Prefixes, author::Author},
    ranges::{List, ListName, Lists},
    ui::{error::InputErrors, output::eprint},
    view::{
        cluster::{ClusterRow, cluster_rows},
        guards::GuardStatus,
        lists::ListCount,
        policy::{Provisional, headline, state},
    },
    warnings::{Warning, node, sorted},
};

/// What is in force.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Status {
    /// `enforcing`, `monitoring`, `off`, `detached`, or `unknown` where the maps' pins are gone.
    pub(super) state: &'static str,
    /// The interfaces with the filter.
    pub(super) interfaces: Vec<ProtectedInterface>,
    /// The protected TCP ports that are open to all lists.
    ports: Vec<u16>,
    /// Ports with lists of their own.
    guards: Vec<GuardStatus>,
    /// The guarded destinations; empty for any destination.
    destinations: Vec<IpNet>,
    /// The path of the ranges file.
    ranges_file: String,
    /// The lists, with those that cannot be used.
    lists: Vec<ListCount>,
    /// The number of ranges of each origin, like `list`, `cluster` and `node`.
    origins: BTreeMap<&'static str, usize>,
    /// The number of IPv4 ranges of all origins.
    ipv4_ranges: usize,
    /// The number of IPv6 ranges of all origins.
    ipv6_ranges: usize,
    /// The most ranges that all lists together may have.
    max_ranges: u32,
    /// What `cluster_cidrs` stands for.
    cluster: Vec<ClusterRow>,
    /// The number of the policy in force; 0 if no filter is attached.
    generation: u64,
    /// The policy's basis: `files`, or a start's substitute. Null if no filter is attached.
    policy_source: Option<&'static str>,
    /// The user and the command that put it in force; null if that is unknown.
    applied_by: Option<Author>,
    /// When it came into force: RFC 3339, UTC; null if that is unknown.
    applied_at: Option<String>,
    /// The change on trial; null if there is none.
    pub(super) provisional: Option<Provisional>,
    /// Differences of the kernel from the ranges file and the config file, and errors in the files.
    pub(super) drift: Vec<String>,
    /// The warnings, the worst first.
    pub(super) warnings: Vec<Warning>,
    /// The settings in force, if they can be read.
    #[serde(skip)]
    pub(super) settings: Option<Settings>,
    /// Whether the text shows all details.
    #[serde(skip)]
    verbose: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protected = self.settings.as_ref().map(Settings::protected);
        let headline = headline(self.state, &join(protected.unwrap_or_default()));
        writeln!(f, "{headline}")?;
        for guard in &self.interfaces {
            let mode = match (guard.guarded, guard.xdp_mode) {
                (true, Some(mode)) => format!("{} XDP", mode.label()),
                _ => "NOT GUARDED".to_owned(),
            };
            writeln!(f, "interface     {} ({mode})", guard.interface)?;
            if let Some(refused) = &guard.native_refused {
                writeln!(f, "              {refused}")?;
            }
        }
        if self.settings.is_some() {
            self.write_policy(f)?;
        }
        writeln!(f, "ranges file   {}", self.ranges_file)?;
        if self.lists.iter().any(|list| !list.name.is_default()) {
            writeln!(f, "lists         {}", join(&self.lists))?;
        }
        if let Some(provisional) = &self.provisional {
            writeln!(f, "{provisional}")?;
        }
        for drift in &self.drift {
            writeln!(f, "drift: {drift}")?;
        }
        self.write_warnings(f)
    }
}

impl Status {
    /// The policy in force.
    fn write_policy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.ports.is_empty() {
            writeln!(f, "ports         {}", join(&self.ports))?;
        }
        for guard in &self.guards {
            writeln!(f, "guard         {guard}")?;
        }
        let destinations = if self.destinations.is_empty() {
            "any".to_owned()
        } else {
            join(&self.destinations)
        };
        writeln!(f, "destinations  {destinations}")?;
        let origins: Vec<String> = self
            .origins
            .iter()
            .map(|(origin, count)| format!("{count} {origin}"))
            .collect();
        writeln!(
            f,
            "ranges        {} IPv4, {} IPv6 ({}); at most {} in the list",
            self.ipv4_ranges,
            self.ipv6_ranges,
            origins.join(", "),
            self.max_ranges
        )?;
        if !self.cluster.is_empty() {
            writeln!(f, "cluster       {}", join(&self.cluster))?;
        }
        let applied = self.applied_at.as_deref().unwrap_or("an unknown time");
        let by = self.applied_by.as_ref();
        let by = by.map_or_else(String::new, |by| format!(", by {}", by.short()));
        writeln!(
            f,
            "generation    {}, in force since {applied}{by}",
            self.generation
        )?;
        Ok(())
    }

    /// Acknowledged warnings, and many of one kind, are only counted.
    fn write_warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many of one kind are shown.
        const MAX_SHOWN: usize = 4;
        let known = |warning: &&Warning| warning.acknowledged;
        let is_shown = |warning: &&Warning| self.verbose || !warning.acknowledged;
        let shown: Vec<&Warning> = self.warnings.iter().filter(is_shown).collect();
        for same in shown.chunk_by(|one, other| one.code == other.code) {
            let most = if self.verbose { same.len() } else { MAX_SHOWN };
            for warning in same.iter().take(most) {
                writeln!(f, "{warning}")?;
            }
            if let (Some(first), more @ 1..) = (same.first(), same.len().saturating_sub(most)) {
                let (severity, code) = (first.code.severity().label(), first.code);
                writeln!(
                    f,
                    "{severity}: {more} more like this (`-v` shows them) [{code}]"
                )?;
            }
        }
        let known: Vec<Code> = self
            .warnings
            .iter()
            .filter(known)
            .map(|one| one.code)
            .collect();
        if self.verbose || known.is_empty() {
            return Ok(());
        }
        let plural = if known.len() == 1 { "" } else { "s" };
        let codes: BTreeSet<Code> = known.iter().copied().collect();
        writeln!(
            f,
            "{} acknowledged warning{plural}: {} (`-v` shows them)",
            known.len(),
            join(codes)
        )
    }
}

impl Status {
    /// The state without an attached filter.
    fn detached(context: &Context, interfaces: Vec<ProtectedInterface>) -> Self {
        Self {
            state: "detached",
            interfaces,
            ports: Vec::new(),
            guards: Vec::new(),
            destinations: Vec::new(),
            ranges_file: context.global.ranges_file.display().to_string(),
            lists: Vec::new(),
            origins: BTreeMap::new(),
            ipv4_ranges: 0,
            ipv6_ranges: 0,
            max_ranges: 0,
            cluster: Vec::new(),
            generation: 0,
            policy_source: None,
            applied_by: None,
            applied_at: None,
            provisional: None,
            drift: context.file.drift(None, &[]),
            warnings: Vec::new(),
            settings: None,
            verbose: context.global.verbose,
        }
    }

    /// Reads the policy in force.
    fn read(&mut self, context: &Context, maps: &Maps) -> Result<()> {
        let now = Clocks::now()?;
        let state_in_force = maps.standing()?;
        let (record, settings, by, sources, guards) = maps.read_consistent(|slot| {
            let settings = maps.settings(slot)?;
            let guards = GuardStatus::read(maps, slot, &settings, &now)?;
            Ok((
                maps.record(slot)?,
                settings,
                maps.author(slot)?,
                maps.sources(slot, &now)?,
                guards,
            ))
        })?;
        self.guards = guards;
        self.applied_by = by;
        self.state = state(&record);
        let guarded = self.interfaces.iter();
        let guarded: Vec<&str> = guarded.map(|guard| guard.interface.as_str()).collect();
        self.drift = context.file.drift(Some(&settings), &guarded);
        self.ports = settings.unguarded_ports().into_iter().collect();
        self.destinations = settings.destinations.clone();
        self.max_ranges = settings.max_ranges;
        self.cluster = cluster_rows(context, &settings).0;
        let faults = self.cluster.iter().filter_map(ClusterRow::fault);
        self.drift.extend(faults.map(str::to_owned));
        self.generation = record.generation;
        let (basis, waits) = (Basis::of(record.basis), settings.mode_waits);
        self.settings = Some(settings);
        self.policy_source = Some(match waits {
            true => "first_enforcement",
            false => basis.label(),
        });
        self.warnings.extend(node::basis_warning(basis, waits));
        self.applied_at = Timestamp::from_nanosecond(i128::from(record.applied_at))
            .ok()
            .map(|time| format!("{time:.0}"));
        self.provisional = Provisional::of(state_in_force, &now);
        let ranges = node::RangeWarnings::new(&record, sources.iter());
        self.warnings.extend(ranges.warnings(now.wall));
        self.count(&sources, now.wall);
        // The list is known only if the file's path is.
        if !context.is_list_unknown() {
            self.compare_list(context, maps, &record, &sources);
        }
        Ok(())
    }

    /// Counts the ranges that authorize at `now`.
    fn count(&mut self, sources: &Prefixes, now: Timestamp) {
        for prefix in sources.iter().filter(|prefix| prefix.lives(now)) {
            match prefix.range {
                IpNet::V4(_) => self.ipv4_ranges += 1,
                IpNet::V6(_) => self.ipv6_ranges += 1,
            }
            for origin in Origin::ALL {
                if prefix.origins & origin as u8 != 0 {
                    *self.origins.entry(origin.label()).or_default() += 1;
                }
            }
        }
    }

    /// Compares the ranges file with the kernel.
    fn compare_list(
        &mut self,
        context: &Context,
        maps: &Maps,
        record: &PolicyRecord,
        sources: &Prefixes,
    ) {
        let read = match context.lists_in_force(Some(maps)) {
            Ok(read) => read,
            Err(error) => return self.drift.extend(not_in_force(&error)),
        };
        self.lists = ListCount::all(&read);
        for (_, error) in &read.faults {
            self.drift.extend(not_in_force(error));
        }
        let is_known = |(name, _): &(ListName, Error)| read.lists.get(name).is_some();
        if read.lists.is_empty() && read.faults.is_empty() {
            let missing = "the ranges file is missing; the list in force stays in force";
            self.drift.push(missing.to_owned());
        } else if read.faults.iter().all(is_known) {
            self.drift.extend(drift(&read.lists, record, sources));
        }
    }

    /// Adds the warnings about interfaces without a filter, and about ports that are open past it.
    fn find_open_ports(
        &mut self,
        context: &Context,
        interfaces: &[Interface],
        strays: &[Stray],
    ) -> Result<()> {
        let guards = &self.interfaces;
        // Without an attached filter no interface is missing.
        let wanted = if guards.is_empty() {
            BTreeSet::new()
        } else {
            node::wanted(context, guards)?
        };
        let unguarded = node::interface_warnings(&wanted, interfaces, guards, strays);
        self.warnings.extend(unguarded);
        if let Some(settings) = &self.settings {
            let guards = self.interfaces.iter().filter(|guard| guard.guarded);
            let elsewhere = strays.iter().map(|stray| stray.ifindex);
            let guarded = guards.map(|guard| guard.ifindex).chain(elsewhere).collect();
            let found = node::traffic_warnings(context, settings, &guarded)?;
            self.warnings.extend(found);
        }
        Ok(())
    }
}

/// What is in force, and the warnings of this node, none of them acknowledged.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn status(context: &Context) -> Result<Status> {
    let interfaces = rtnetlink::interfaces()?;
    let strays = strays(&context.pins, &interfaces)?;
    let mut status = Status {
        warnings: node::stray_warnings(&strays),
        ..Status::detached(context, protected_interfaces(&context.pins, &interfaces)?)
    };
    if !status.interfaces.is_empty() {
        match context.maps() {
            Ok(Some(maps)) => status.read(context, &maps)?,
            Ok(None) => {}
            Err(error) => {
                status.state = "unknown";
                status.warnings.push(node::unreadable(&error));
            }
        }
    }
    status.find_open_ports(context, &interfaces, &strays)?;
    if status.state != "detached" && !status.interfaces.iter().any(|guard| guard.guarded) {
        status.state = "detached";
    }
    if status.state == "detached" {
        let unnamed = unnamed(&context.pins, &interfaces)?;
        if unnamed.is_some() || !strays.is_empty() {
            status.state = "unknown";
        }
        status.warnings.extend(unnamed.map(node::unnamed_warning));
    }
    Ok(status)
}

/// Runs the command. With `--check` the exit code is an answer, too.
pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<u8> {
    let ack = acknowledge::parse(&args.ack)?;
    let unack = acknowledge::parse(&args.unack)?;
    let mut status = status(context)?;
    if !ack.is_empty() || !unack.is_empty() {
        acknowledge::change(context, &status.warnings, &ack, &unack)?;
    }
    let (known, unreadable) = node::acknowledged(context);
    if let Some(error) = unreadable {
        eprint(format_args!("warning: {error:#}: every warning is shown"));
    }
    status.warnings = sorted(status.warnings, &known);
    if context.global.verbose {
        eprint(format_args!("pins in `{}`", context.pins.root().display()));
    }
    context.global.output.write(&status)?;
    if !args.check {
        return Ok(0);
    }
    let problems = problems(context, &status)?;
    for problem in &problems {
        eprint(format_args!("not guarded as the files say: {problem}"));
    }
    Ok(u8::from(!problems.is_empty()))
}

/// Why the node may not be guarded as its files say, as `/readyz` of `run` answers; empty if it is.
fn problems(context: &Context, status: &Status) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    if ["detached", "unknown"].contains(&status.state) {
        problems.push(headline(status.state, ""));
    }
    if let Some(source) = status.policy_source
        && source != Basis::Files.label()
    {
        problems.push(format!(
            "the files are not in force: the policy comes from `{source}`"
        ));
    }
    let drift = status.drift.iter();
    problems.extend(drift.map(|drift| format!("drift: {drift}")));
    let guarded = |name: &str| {
        let mut guards = status.interfaces.iter();
        guards.any(|guard| guard.guarded && guard.interface == name)
    };
    let wanted = node::wanted(context, &status.interfaces)?;
    let unguarded = wanted.iter().filter(|name| !guarded(name));
    problems.extend(unguarded.map(|name| format!("`{name}` is not guarded")));
    Ok(problems)
}

/// Why a file is not in force.
fn not_in_force(error: &Error) -> Vec<String> {
    let mut causes = match error.downcast_ref::<InputErrors>() {
        Some(refusals) => refusals.causes(),
        None => vec![format!("{error:#}")],
    };
    causes.push("the file is not in force; what is in force stays in force".to_owned());
    causes
}

/// The differences of the kernel's list from the file's.
fn drift(lists: &Lists, record: &PolicyRecord, kernel: &Prefixes) -> Vec<String> {
    let off = record.mode == Mode::Off as u8;
    if lists.digest() == record.list && off == lists.is_off() {
        return Vec::new();
    }
    let has_others = lists.iter().any(|(name, _)| !name.is_default());
    let what = match (&lists.union(), off) {
        (List::Off, _) => {
            "the file switches enforcement off, but the kernel enforces a list".to_owned()
        }
        (List::Ranges(_), true) => {
            "the file lists ranges, and enforcement is off in the kernel".to_owned()
        }
        (List::Ranges(want), false) => {
            let listed = kernel
                .iter()
                .filter(|prefix| prefix.origins & Origin::List as u8 != 0);
            let have = listed.map(|prefix| (prefix.range, None));
            let want = want.iter().map(|entry| (entry.range, None));
            match Difference::between(have, want) {
                same if same.is_none() && has_others => {
                    "the files have ranges in other lists or with another expiry than the kernel"
                        .to_owned()
                }
                same if same.is_none() => {
                    "the file has ranges with another expiry than the kernel".to_owned()
                }
                difference => format!("the file is not in force; it would change {difference}"),
            }
        }
    };
    vec![format!(
        "{what}; `apifence ranges reload` puts the file in force, with `--dry-run` it shows what that does"
    )]
}
