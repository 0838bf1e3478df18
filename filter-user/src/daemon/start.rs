//! The policy after a start, which is usually a boot. Whatever is broken, the port is not opened,
//! and the node can reach itself.

use std::{collections::BTreeSet, sync::mpsc, thread, time::Duration};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::Basis};
use ipnet::IpNet;

use super::alerts::sentence;
use crate::{
    change::{
        attach::prepare_maps,
        build::{cluster_fault, examine, examine_guards, policy, record_history},
        first::{obstacle, unreadable_nat},
        impact::assess,
        transaction::Transaction,
        upgrade::other_settings,
        words::MONITOR,
    },
    clock::Clocks,
    config::{OnCut, PolicyMode, Settings, XdpMode},
    context::Context,
    kernel::{
        bpf::Maps,
        net::{interface::Interface, rtnetlink},
    },
    policy::{Policy, author::Author},
    ranges::{List, ListName, Lists, remarks},
    store::{History, PolicyMark, PolicyStore, ReadLists, SavedPolicy, TrialStore},
    ui::{
        error::{InputErrors, UserError},
        output::eprint,
        progress::Progress,
    },
};

/// How long the disk may take to deliver the lists: a file system that does not answer must
/// not keep the port open.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// The message while the first enforcement waits.
const DEFERRED: &str = "monitor mode: nothing is dropped yet: `cluster_cidrs` is not set, another program has a protected port, or enforcing would cut nodes or administrators";

/// The policy of a start.
pub(crate) struct Start {
    lists: Lists,
    settings: Settings,
    /// The interfaces by name; empty for those of the default routes.
    pub(crate) interfaces: Vec<String>,
    pub(crate) xdp_mode: XdpMode,
    basis: Basis,
    /// The policy in place of the files, and why; `None` if the files are in force.
    pub(crate) fallback: Option<String>,
    /// The other sources of the policy; `None` if it was in force already.
    pub(crate) compiled: Option<Compiled>,
}

/// The sources of a policy besides files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// The node's addresses.
    pub(crate) node: Vec<IpNet>,
    /// The ranges in the files of the cluster.
    pub(crate) cluster: BTreeSet<IpNet>,
    /// The wall clock minus the boot clock, in nanoseconds: expiries are kept on the boot clock.
    pub(crate) wall_minus_boot: i128,
}

/// Ensures that the kernel holds a policy before the filter is attached. A policy in force stays:
/// the files are followed from there. `typed` is an error if a typed list could not be written.
///
/// # Errors
/// If the kernel refuses: no capability, no memory.
pub(crate) fn start(context: &Context, typed: Result<()>) -> Result<Start> {
    let mut start = choose(StartInputs::read(context, typed), || {
        let kept = History::of(&context.list_files().file(&ListName::default()))
            .before()
            .ok()?;
        kept.iter().find_map(|kept| kept.read().ok()).map(Lists::of)
    });
    context.pins.remove_unused_maps()?;
    if let Some(maps) = Maps::in_use(&context.pins)? {
        let fallback = fallback_in_force(&maps)?;
        return Ok(Start { fallback, ..start });
    }
    let guarded = start.guarded()?;
    let cluster = read_cluster(context, &start.settings);
    start.compiled = Some(Compiled {
        node: rtnetlink::node_addresses(&guarded)?,
        cluster: cluster.ranges(),
        wall_minus_boot: Clocks::now()?.wall_minus_boot(),
    });
    let mut policy = policy(&start.lists, &start.settings, &cluster, &guarded)?;
    policy.basis = start.basis;
    if let Some(unreadable_nat) = unreadable_nat(context, &policy, None) {
        eprint(format_args!("note: {unreadable_nat}"));
    }
    start.defer_enforcement(context, &mut policy, &guarded);
    start.report();
    start.put_in_force(context, &policy)?;
    Ok(start)
}

/// Why the policy in force is not that of the files; `None` if it is.
fn fallback_in_force(maps: &Maps) -> Result<Option<String>> {
    let record = maps.read_consistent(|slot| maps.record(slot))?;
    let basis = Basis::of(record.basis);
    warn_if_open(record.mode);
    Ok(match maps.read_consistent(|slot| maps.settings(slot)) {
        Ok(settings) if settings.mode_waits => Some(DEFERRED.to_owned()),
        _ => (basis != Basis::Files).then(|| basis_message(basis, "since an earlier start")),
    })
}

impl Start {
    /// The interfaces to guard, as far as they are present.
    fn guarded(&self) -> Result<BTreeSet<u32>> {
        let interfaces = rtnetlink::interfaces()?;
        let routes = if self.interfaces.is_empty() {
            rtnetlink::default_route_interfaces()?
        } else {
            BTreeSet::new()
        };
        let guarded = |interface: &&Interface| {
            routes.contains(&interface.ifindex) || self.interfaces.contains(&interface.name)
        };
        let guarded = interfaces.iter().filter(guarded);
        Ok(guarded.map(|interface| interface.ifindex).collect())
    }

    /// Starts in monitor mode if there is a reason against the first enforcement.
    fn defer_enforcement(
        &mut self,
        context: &Context,
        policy: &mut Policy,
        guarded: &BTreeSet<u32>,
    ) {
        // A boot opens nothing that was closed.
        if PolicyStore::new(&context.config.state_dir).has_enforced() {
            return;
        }
        // The impact of a first enforcement has to be known. Until then: monitor mode.
        let deferral = deferral(context, policy, guarded).unwrap_or_else(|error| {
            Some(format!(
                "monitor mode: nothing is dropped yet: the effect of enforcing is unknown: {error:#}"
            ))
        });
        if deferral.is_some() {
            (policy.settings.mode, policy.settings.mode_waits) = (PolicyMode::Monitor, true);
            self.settings = policy.settings.clone();
            self.fallback = deferral;
        }
    }

    /// Warns if the policy is not that of the files, or lets all packets pass.
    fn report(&self) {
        match &self.fallback {
            Some(fallback) => eprint(format_args!("warning: {fallback}")),
            None if self.lists.union() == List::Off => warn_if_open(Mode::Off as u8),
            None if self.settings.mode == PolicyMode::Monitor => warn_if_open(Mode::Monitor as u8),
            None => {}
        }
    }

    fn put_in_force(&self, context: &Context, policy: &Policy) -> Result<()> {
        let mut maps = prepare_maps(context)?;
        let change = Transaction {
            saves: (self.basis == Basis::Files).then_some(&self.lists),
            names_interfaces: true,
            ..Transaction::begin(context, &maps, policy)?
        };
        change.put_in_force(&mut maps, &Progress::start())?;
        // No program reads these maps yet. They get their name once they hold a policy.
        maps.publish(&context.pins.maps())?;
        if self.basis == Basis::Files {
            record_history(context, &self.lists, &Author::of_this_process());
        }
        Ok(())
    }

    /// Uses the policy last in force, and its interfaces where the config does not name any.
    fn use_saved(&mut self, saved: SavedPolicy, interfaces_unreadable: bool, xdp_unreadable: bool) {
        self.basis = Basis::LastInForce;
        if examine_guards(&saved.lists, &self.settings).is_err() {
            self.settings.guards = saved.settings.guards;
        }
        self.lists = saved.lists;
        if interfaces_unreadable || self.interfaces.is_empty() {
            self.interfaces = saved.interfaces;
        }
        if xdp_unreadable {
            self.xdp_mode = saved.xdp_mode;
        }
    }
}

/// The reason not to enforce `policy` at once, if it would be the first enforced one.
fn deferral(context: &Context, policy: &Policy, guarded: &BTreeSet<u32>) -> Result<Option<String>> {
    if let Some(obstacle) = obstacle(context, policy, guarded, None)? {
        return Ok(Some(obstacle.fallback()));
    }
    if policy.mode() != Mode::Enforce || *context.config.on_cut == OnCut::Apply {
        return Ok(None);
    }
    // The files are followed from monitor mode, with the enforcement on trial.
    let impact = assess(context, None, policy, guarded)?;
    let serious = impact.lockout();
    Ok(serious.map(|reason| format!("monitor mode: nothing is dropped yet: {reason}")))
}

/// Warns that all packets pass, if that is so in `mode`.
fn warn_if_open(mode: u8) {
    if mode == Mode::Off as u8 {
        eprint("warning: enforcement is off: every source passes");
    } else if mode == Mode::Monitor as u8 {
        eprint(MONITOR);
    }
}

/// What a start finds on this node.
struct StartInputs {
    /// The lists of the files.
    list: Result<Lists>,
    /// The error in the config file or the environment.
    broken: Option<String>,
    /// The settings of the config, and the saved ones that the config leaves alone.
    settings: Settings,
    /// The settings that a broken config file leaves certain, if the rest of it cannot decide
    /// which sources are authorized.
    certain: Option<Settings>,
    interfaces: Vec<String>,
    xdp_mode: XdpMode,
    /// Whether a broken config file may hold other interfaces, or another XDP mode.
    interfaces_unreadable: bool,
    xdp_mode_unreadable: bool,
    saved: Option<SavedPolicy>,
    /// The error in the saved policy.
    lost: Option<String>,
    /// Whether this node has ever enforced a policy.
    has_enforced: bool,
    /// Whether the files hold an edit that was on trial and was not confirmed.
    is_unconfirmed: bool,
}

impl StartInputs {
    /// Reads them; `typed` is an error if a typed list could not be written.
    fn read(context: &Context, typed: Result<()>) -> Self {
        let config = &context.config;
        let store = PolicyStore::new(&config.state_dir);
        let (saved, lost) = match store.read() {
            Ok(saved) => (saved, None),
            Err(error) => (None, Some(sentence(&error))),
        };
        let is_broken = !context.file.errors.is_empty();
        // Settings without a value stay as before the boot. A broken file may hold a value.
        let settings = match &saved {
            Some(saved) => config.over(&saved.settings, !is_broken && context.file.exists),
            None => {
                let others = context.pins.other_links().unwrap_or_default();
                context.settings(other_settings(&others).as_ref())
            }
        };
        let list = typed.and_then(|()| {
            let lists = read_lists(context, settings.max_ranges)?;
            examine_guards(&lists, &settings)?;
            Ok(lists)
        });
        // A policy that was put in force for good since the trial is not on trial.
        let is_unconfirmed = match (&list, &saved) {
            (Ok(lists), Some(saved)) if !is_broken => {
                let mark =
                    |lists: &Lists, settings: &Settings| PolicyMark::new(lists.digest(), settings);
                let edit = mark(lists, &settings);
                edit != mark(&saved.lists, &saved.settings)
                    && TrialStore::new(&config.state_dir).is_open(&edit)
            }
            _ => false,
        };
        let has_enforced = store.has_enforced();
        let is_certain = has_enforced || !context.file.config.has_unreadable(&POLICY);
        // Flags and environment name interfaces whatever the config file is like.
        let is_unreadable = |key| is_broken && config.has_unreadable(&[key]);
        Self {
            list,
            broken: is_broken.then(|| broken(context)),
            settings,
            certain: is_certain.then(|| config.over(&context.file.config.settings(), false)),
            interfaces: config.interfaces.to_vec(),
            xdp_mode: *config.xdp_mode,
            interfaces_unreadable: is_unreadable("interfaces"),
            xdp_mode_unreadable: is_unreadable("xdp_mode"),
            saved,
            lost,
            has_enforced,
            is_unconfirmed,
        }
    }
}

/// Chooses the first of these that exists: the files; the policy last in force; the implicit
/// sources alone, if this node has enforced a policy before; monitor mode. `last_good` is the list
/// that an older version kept next to the ranges file.
fn choose(found: StartInputs, last_good: impl FnOnce() -> Option<Lists>) -> Start {
    let mut start = Start {
        lists: Lists::default(),
        settings: found.settings,
        interfaces: found.interfaces,
        xdp_mode: found.xdp_mode,
        basis: Basis::Files,
        fallback: None,
        compiled: None,
    };
    let reason = match (found.list, found.broken) {
        (Ok(_), None) if found.is_unconfirmed => {
            "an edit of the files was on trial and was not confirmed; `systemctl reload apifence` starts the trial again".to_owned()
        }
        (Ok(lists), None) => {
            start.lists = lists;
            if let Some(lost) = found.lost {
                start.basis = Basis::DefaultSettings;
                start.fallback = Some(basis_message(start.basis, &lost));
            }
            return start;
        }
        (Ok(lists), Some(broken)) if found.saved.is_none() && found.certain.is_some() => {
            start.lists = lists;
            start.settings = found.certain.unwrap_or(start.settings);
            start.fallback = Some(format!(
                "the list is in force with the readable settings: {broken}"
            ));
            return start;
        }
        (_, Some(broken)) => broken,
        (Err(error), None) => sentence(&error),
    };
    if let Some(saved) = found.saved {
        start.use_saved(
            saved,
            found.interfaces_unreadable,
            found.xdp_mode_unreadable,
        );
    } else if let Some(lists) = last_good() {
        start.basis = match found.lost {
            None => Basis::LastInForce,
            Some(_) => Basis::DefaultSettings,
        };
        start.lists = lists;
    } else {
        (start.settings.mode, start.basis) = match found.has_enforced {
            true => (PolicyMode::Enforce, Basis::ImplicitSources),
            false => (PolicyMode::Monitor, Basis::Fresh),
        };
    }
    let reason = match found.lost {
        None => reason,
        Some(lost) => format!("{reason}; {lost}"),
    };
    start.fallback = Some(basis_message(start.basis, &reason));
    start
}

/// The message for a policy of this basis.
fn basis_message(basis: Basis, why: &str) -> String {
    match basis {
        Basis::Files => "the files are in force".to_owned(),
        Basis::LastInForce => format!("the last good policy is in force, not the files: {why}"),
        Basis::ImplicitSources => {
            format!("only the implicit sources are allowed, because no list is usable: {why}")
        }
        Basis::Fresh => {
            format!("monitor mode: nothing is dropped until there is a usable list: {why}")
        }
        Basis::DefaultSettings => format!(
            "settings from earlier flags are lost; other settings have their defaults (`apifence config` shows them, `systemctl reload apifence` accepts them): {why}"
        ),
    }
}

/// The settings that decide which sources are authorized, and where.
const POLICY: [&str; 9] = [
    "lists",
    "guard",
    "mode",
    "ports",
    "destinations",
    "node_addresses",
    "cluster_cidrs",
    "outbound_ips",
    "outbound_ip_prefixes",
];

/// The error in the config file or the environment.
fn broken(context: &Context) -> String {
    sentence(&InputErrors::new(context.file.errors.clone()).into())
}

/// The lists of the files, if that of the ranges file is usable, or there is another. Other lists
/// are as they were last in force where their files are not usable.
fn read_lists(context: &Context, max_ranges: u32) -> Result<Lists> {
    let read = read_lists_in_time(context)?;
    for (name, error) in read.faults {
        if name.is_default() {
            return Err(error);
        }
        eprint(format_args!("warning: {error:#}"));
    }
    if read.lists.is_empty() {
        return Err(UserError::failed(
            format!(
                "read ranges file `{}`: no such file",
                context.global.ranges_file.display()
            ),
            "`apifence init` or `apifence ranges set CIDR,...` writes it",
        ));
    }
    let list = read.lists.union();
    examine(&list, max_ranges)?;
    remarks(list.entries(), |_| true).iter().for_each(eprint);
    Ok(read.lists)
}

/// Reads the lists, if the disk delivers them in time.
fn read_lists_in_time(context: &Context) -> Result<ReadLists> {
    let what = format!("ranges file `{}`", context.global.ranges_file.display());
    in_time(context, &what, Context::read_lists)?
}

/// The files of the cluster that `settings` name, as they were last known where they cannot be
/// read. What is wrong with them is told.
fn read_cluster(context: &Context, settings: &Settings) -> Lists {
    let names = settings.cluster_files();
    if names.is_empty() {
        return Lists::default();
    }
    let read = in_time(context, "the files of the cluster", move |context| {
        context.read_cluster(names)
    });
    let read = read.unwrap_or_else(|error| {
        eprint(format_args!("warning: {error:#}"));
        let saved = PolicyStore::new(&context.config.state_dir).read();
        let saved = saved.ok().flatten();
        ReadLists {
            lists: saved.map_or_else(Lists::default, |saved| saved.cluster),
            ..ReadLists::default()
        }
    });
    for (name, error) in &read.faults {
        let is_known = read.lists.get(name).is_some();
        eprint(format_args!("warning: {}", cluster_fault(error, is_known)));
    }
    read.lists
}

/// Reads `what`, if the disk delivers it in time.
fn in_time<T: Send + 'static>(
    context: &Context,
    what: &str,
    read: impl FnOnce(&Context) -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    let reader = context.clone();
    thread::Builder::new()
        .spawn(move || {
            // After the timeout there is no receiver.
            let _ = sender.send(read(&reader));
        })
        .context("start thread")?;
    receiver.recv_timeout(DISK_TIMEOUT).map_err(|_| {
        UserError::failed(
            format!(
                "read {what}: its disk has not answered for {} s",
                DISK_TIMEOUT.as_secs()
            ),
            "`run` reads it as soon as the disk answers",
        )
    })
}

#[cfg(test)]
mod tests;
