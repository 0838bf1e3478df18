//! The warnings of this node for `status`, `attach` and `run`.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use filter_common::layout::{Basis, PolicyRecord};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{Facts, Warning, sorted};
use crate::{
    clock::Clocks,
    codes::{Acknowledgement, Code},
    config::Settings,
    context::Context,
    kernel::{
        bpf::loaded,
        links::{
            foreign::ForeignProgram,
            protected::{ProtectedInterface, protected_interfaces},
            strays::{Stray, strays},
        },
        net::{
            interface::{Interface, other_name},
            link_type::LinkType,
            rtnetlink,
        },
    },
    metrics::Health,
    policy::Prefix,
    ranges::let_everyone_in,
    store::{AcknowledgedStore, PolicyStore, other_writer},
    ui::error::UserError,
};

/// The warnings of this node under the settings in force, with acknowledged ones marked.
pub(crate) fn node_warnings(context: &Context) -> Result<Vec<Warning>> {
    let have = match context.maps()? {
        Some(maps) => maps.settings(maps.active_slot()?).ok(),
        None => None,
    };
    let settings = context.settings(have.as_ref());
    let strays = strays(&context.pins, &rtnetlink::interfaces()?)?;
    let elsewhere = strays.iter().map(|stray| stray.ifindex);
    let guarded = context.pins.interfaces()?.into_iter().chain(elsewhere);
    let warnings = traffic_warnings(context, &settings, &guarded.collect())?;
    Ok(sorted(warnings, &acknowledged(context).0))
}

/// The same, with faults of the filter itself, for `run`. `health` is its own state; `ranges`
/// caches the warnings about the list.
pub(crate) fn all_warnings(
    context: &Context,
    health: &Health,
    ranges: &mut RangeWarnings,
) -> Result<Vec<Warning>> {
    let interfaces = rtnetlink::interfaces()?;
    let guards = protected_interfaces(&context.pins, &interfaces)?;
    let mut strays = strays(&context.pins, &interfaces)?;
    // A filter that this process holds is not a stray, even if its pin is gone.
    strays.retain(|stray| !health.guarded.contains(&stray.ifindex));
    let mut warnings = stray_warnings(&strays);
    let is_held = |name: &String| {
        let mut held = interfaces.iter();
        held.any(|found| found.name == *name && health.guarded.contains(&found.ifindex))
    };
    // `health` knows the wanted interfaces: asking the kernel would read every route.
    let wanted = health.interfaces.iter().filter(|name| !is_held(name));
    let wanted = wanted.cloned().collect();
    warnings.extend(interface_warnings(&wanted, &interfaces, &guards, &strays));
    let mut settings = None;
    let maps = context.maps().unwrap_or_else(|error| {
        warnings.push(unreadable(&error));
        None
    });
    if let Some(maps) = maps {
        let now = Clocks::now()?;
        let (record, have, found) = maps.read_consistent(|slot| {
            let record = maps.record(slot)?;
            let found = if ranges.match_record(&record) {
                None
            } else {
                Some(maps.sources(slot, &now)?)
            };
            Ok((record, maps.settings(slot)?, found))
        })?;
        if let Some(found) = found {
            *ranges = RangeWarnings::new(&record, found.iter());
        }
        warnings.extend(basis_warning(Basis::of(record.basis), have.mode_waits));
        warnings.extend(ranges.warnings(now.wall));
        settings = Some(have);
    }
    let guarded = guards.iter().filter(|guard| guard.guarded);
    let elsewhere = strays.iter().map(|stray| stray.ifindex);
    let guarded = guarded.map(|guard| guard.ifindex).chain(elsewhere);
    let guarded = guarded.chain(health.guarded.iter().copied());
    let settings = context.settings(settings.as_ref());
    warnings.extend(traffic_warnings(context, &settings, &guarded.collect())?);
    Ok(sorted(warnings, &acknowledged(context).0))
}

/// Traffic that may bypass a filter on `guarded`, and files that other users may write.
pub(crate) fn traffic_warnings(
    context: &Context,
    settings: &Settings,
    guarded: &BTreeSet<u32>,
) -> Result<Vec<Warning>> {
    let facts = Facts::gather(&settings.protected(), &settings.destinations)?;
    let mut warnings = facts.warnings(guarded);
    warnings.extend(written_by_others(context));
    Ok(warnings)
}

/// The files of the policy that other users may write.
fn written_by_others(context: &Context) -> impl Iterator<Item = Warning> {
    let files = [Path::new(&context.file.path), &context.global.ranges_file];
    files.into_iter().filter_map(|file| {
        let cause = other_writer(file)?;
        let file = file.display();
        let warning = Warning::new(
            Code::WrittenByOthers,
            format!("{cause}; `{file}` decides which sources are allowed"),
            "run `chown root` and `chmod go-w` on it",
        );
        Some(warning.about([file]))
    })
}

/// Filters with pins in another place.
pub(crate) fn stray_warnings(strays: &[Stray]) -> Vec<Warning> {
    let warning = |stray: &Stray| {
        Warning::new(Code::FilteredElsewhere, stray.cause(), stray.hint()).on(&stray.interface)
    };
    strays.iter().map(warning).collect()
}

/// A program that may be a filter with pins in another place.
pub(crate) fn unnamed_warning(cause: String) -> Warning {
    Warning::new(
        Code::FilteredElsewhere,
        cause,
        "`sudo apifence status` shows more",
    )
}

/// Interfaces that were guarded or are `wanted`, and are not guarded.
pub(crate) fn interface_warnings(
    wanted: &BTreeSet<String>,
    interfaces: &[Interface],
    guards: &[ProtectedInterface],
    strays: &[Stray],
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for guard in guards.iter().filter(|guard| !guard.guarded) {
        let name = &guard.interface;
        let found = interfaces
            .iter()
            .find(|found| found.ifindex == guard.ifindex);
        let warning = match found {
            None => Warning::new(
                Code::UnguardedInterface,
                format!(
                    "interface {} no longer exists, but its filter is still pinned",
                    guard.ifindex
                ),
                "nothing is open; `run` or the next `apifence attach` guards the new interface",
            ),
            Some(found) => unguarded(found, "although its link is pinned"),
        };
        warnings.push(warning.on(name));
    }
    for name in wanted {
        let shown = guards.iter().any(|guard| guard.interface == *name);
        let elsewhere = strays.iter().any(|stray| stray.interface == *name);
        if shown || elsewhere {
            continue;
        }
        let found = interfaces.iter().find(|found| found.name == *name);
        let warning = match found {
            Some(found) => unguarded(found, "but should be"),
            None => Warning::new(
                Code::UnguardedInterface,
                format!("`{name}` should be guarded, but does not exist"),
                other_name(name, interfaces).unwrap_or_else(|| {
                    "`run` guards it as soon as it appears; `ip link` lists the interfaces"
                        .to_owned()
                }),
            ),
        };
        warnings.push(warning.on(name));
    }
    warnings
}

/// The warning that `interface` is unguarded: `why` it matters, or the foreign program there.
fn unguarded(interface: &Interface, why: &str) -> Warning {
    let name = &interface.name;
    // Our own program does not count as foreign.
    let foreign = interface.xdp.filter(|xdp| {
        let program = loaded(xdp.program_id).ok().flatten();
        program.is_none_or(|program| program.link_header().is_none())
    });
    let (message, hint) = match foreign {
        Some(xdp) => {
            let foreign = ForeignProgram::on(name, interface.ifindex, xdp);
            (
                format!("`{name}` is not guarded: it has {}", foreign.what),
                foreign.hint,
            )
        }
        None => (
            format!("`{name}` is not guarded, {why}"),
            format!("`apifence attach --interface {name}` guards it; if `run` is up, see its log"),
        ),
    };
    Warning::new(Code::UnguardedInterface, message, hint)
}

/// The warning that the maps of the filter cannot be read.
pub(crate) fn unreadable(error: &anyhow::Error) -> Warning {
    let problem = error.downcast_ref::<UserError>();
    let hint = problem.map_or("", |problem| &problem.hint);
    Warning::new(Code::UnreadablePolicy, format!("{error:#}"), hint)
}

/// The warning that the policy in force does not come from the files.
pub(crate) fn basis_warning(basis: Basis, waits: bool) -> Option<Warning> {
    let hint = "`apifence status` shows their errors; after you fix them, `run` or `apifence attach` applies them";
    let (message, hint) = match basis {
        _ if waits => (
            "monitor mode: nothing is dropped yet, because enforcing could cut cluster nodes",
            "add nodes and pods to `cluster_cidrs`; or run `apifence enforce --force` if none of them uses this API server",
        ),
        Basis::Files => return None,
        Basis::LastInForce => (
            "the files were not usable at the last start: the last good policy is in force",
            hint,
        ),
        Basis::ImplicitSources => (
            "no list was usable at the last start: only the implicit sources are allowed",
            hint,
        ),
        Basis::DefaultSettings => (
            "the last settings were not readable at the last start: settings from earlier flags are lost",
            "`apifence config` shows the settings; run `apifence attach` again with the flags that you need",
        ),
        Basis::Fresh => (
            "there was no list at the last start: monitor mode, nothing is dropped",
            "`apifence ranges set CIDR,...` writes one",
        ),
    };
    Some(Warning::new(Code::PolicySource, message, hint))
}

/// The ranges of a generation that cause warnings.
#[derive(Debug, Default)]
pub(crate) struct RangeWarnings {
    /// The number of the generation, and when it came into force.
    mark: Option<(u64, u64)>,
    prefixes: Vec<Prefix>,
    /// The families that ranges without expiry cover completely.
    everyone: Vec<IpNet>,
}

impl RangeWarnings {
    /// The ranges of a generation with these prefixes.
    pub(crate) fn new<'a>(
        record: &PolicyRecord,
        prefixes: impl Iterator<Item = &'a Prefix>,
    ) -> Self {
        let (mut shown, mut others) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            if prefix.range.prefix_len() == 0 || prefix.expires.is_some() {
                shown.push(*prefix);
            }
            if prefix.expires.is_none() {
                others.push(prefix.range);
            }
        }
        others.sort_unstable();
        Self {
            mark: Some((record.generation, record.applied_at)),
            prefixes: shown,
            everyone: let_everyone_in(&others),
        }
    }

    fn match_record(&self, record: &PolicyRecord) -> bool {
        self.mark == Some((record.generation, record.applied_at))
    }

    /// The warnings at `now`.
    pub(crate) fn warnings(&self, now: Timestamp) -> Vec<Warning> {
        let (living, expired): (Vec<&Prefix>, Vec<&Prefix>) =
            self.prefixes.iter().partition(|prefix| prefix.lives(now));
        let ones: BTreeSet<IpNet> = living
            .iter()
            .map(|prefix| prefix.range)
            .filter(|range| range.prefix_len() == 0)
            .collect();
        let all: BTreeSet<IpNet> = ones.iter().chain(&self.everyone).copied().collect();
        let mut warnings: Vec<Warning> = all
            .into_iter()
            .map(|all| everyone(all, ones.contains(&all)))
            .collect();
        let (subject, verb, allow) = match expired.len() {
            0 => return warnings,
            1 => ("1 range".to_owned(), "has", "allows"),
            many => (format!("{many} ranges"), "have", "allow"),
        };
        let warning = Warning::new(
            Code::Expired,
            format!("{subject} {verb} expired and no longer {allow} any source"),
            "`apifence ranges list` shows expired ranges; `apifence ranges prune` removes them",
        );
        warnings.push(warning.about(expired.iter().map(|prefix| prefix.range)));
        warnings
    }
}

/// The warning that every source of the family of `all` is authorized, by one range or by several.
fn everyone(all: IpNet, is_one: bool) -> Warning {
    let family = match all {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    };
    let message = if is_one {
        format!("`{all}` is authorized: every {family} source passes")
    } else {
        format!("the authorized ranges together cover `{all}`: every {family} source passes")
    };
    let hint = "`apifence ranges list` shows where it comes from";
    Warning::new(Code::Everyone, message, hint).about([all])
}

/// The acknowledgements in the settings and of `status --ack`; and why the latter are unreadable.
pub(crate) fn acknowledged(context: &Context) -> (Vec<Acknowledgement>, Option<anyhow::Error>) {
    let mut known = context.config.acknowledged_warnings.to_vec();
    match AcknowledgedStore::new(&context.config.state_dir).read() {
        Ok(kept) => {
            known.extend(kept);
            (known, None)
        }
        Err(error) => (known, Some(error)),
    }
}

/// The names of the interfaces to guard: those in the settings, those of the last `attach` or
/// `run`, or those with the default routes. Guarded interfaces that still exist are added.
pub(crate) fn wanted(context: &Context, guards: &[ProtectedInterface]) -> Result<BTreeSet<String>> {
    let mut names = context.config.interfaces.to_vec();
    if names.is_empty() {
        let saved = PolicyStore::new(&context.config.state_dir).read();
        names = saved.ok().flatten().map_or(names, |saved| saved.interfaces);
    }
    let mut wanted: BTreeSet<String> = names.into_iter().collect();
    let interfaces = rtnetlink::interfaces()?;
    if wanted.is_empty() {
        let routes = rtnetlink::default_route_interfaces()?;
        let chosen = interfaces.iter().filter(|interface| {
            routes.contains(&interface.ifindex)
                && matches!(interface.link_type, LinkType::Filtered(_))
        });
        wanted.extend(chosen.map(|interface| interface.name.clone()));
    }
    let is_there = |guard: &&ProtectedInterface| {
        let mut interfaces = interfaces.iter();
        interfaces.any(|interface| interface.ifindex == guard.ifindex)
    };
    let guards = guards.iter().filter(is_there);
    wanted.extend(guards.map(|guard| guard.interface.clone()));
    Ok(wanted)
}
