//! What holds at a start, the usual one being a boot: whatever is broken, the port is not opened, and the node is not shut out of
//! itself.

use std::{collections::BTreeSet, fs, path::Path, sync::mpsc, thread, time::Duration};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::Basis};
use ipnet::IpNet;

use super::alerts::sentence;
use crate::{
    change::{
        attach::prepare_maps,
        build::{examine, policy},
        first::{unclear, unread},
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
    ranges::{List, RangesFile, remarks},
    store::{
        History, Input, PolicyMark, PolicyStore, SavedPolicy, TrialStore, refuse_other_writers,
    },
    ui::{
        error::{InputErrors, UserError},
        output::say,
        progress::Progress,
    },
};

/// How long the disk may take to hand over the ranges file: who hangs on a file system that does not answer must not keep the
/// port open.
const DISK: Duration = Duration::from_secs(2);

/// What holds where the mode waits.
const WAITS: &str = "monitor mode: nothing is dropped yet: `cluster_cidrs` is not set, a protected port belongs to somebody else, or nodes or administrators would be cut";

/// What a start goes by.
pub(crate) struct Start {
    file: RangesFile,
    settings: Settings,
    /// The interfaces by name; none for those that hold the default routes.
    pub(crate) interfaces: Vec<String>,
    pub(crate) xdp_mode: XdpMode,
    basis: Basis,
    /// What holds instead of the files, and why; none if they do.
    pub(crate) instead: Option<String>,
    /// What the policy was compiled from besides; none if it was in force already.
    pub(crate) compiled: Option<Compiled>,
}

/// What a policy was compiled from besides files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// The node's addresses.
    pub(crate) node: Vec<IpNet>,
    /// By how much the wall clock was ahead of the boot clock: expiries are kept on that one.
    pub(crate) ahead: i128,
}

/// Makes sure that there is a policy in the kernel, before anything is attached. One that is in force already stays: the files are
/// followed from there. `typed` tells whether the list that was typed, if one was, is in the ranges file.
///
/// # Errors
/// If the kernel refuses: no capability, no memory.
pub(crate) fn start(context: &Context, typed: Result<()>) -> Result<Start> {
    let mut start = choose(context, typed);
    context.pins.remove_unused_maps()?;
    if let Some(maps) = Maps::in_use(&context.pins)? {
        let record = maps.read_consistent(|slot| maps.record(slot))?;
        let basis = Basis::of(record.basis);
        let waits = maps.read_consistent(|slot| maps.settings(slot));
        let instead = match waits {
            Ok(settings) if settings.mode_waits => Some(WAITS.to_owned()),
            _ => (basis != Basis::Files).then(|| said(basis, "since an earlier start")),
        };
        tell_open(record.mode);
        return Ok(Start { instead, ..start });
    }
    let interfaces = rtnetlink::interfaces()?;
    let routes = if start.interfaces.is_empty() {
        rtnetlink::default_route_interfaces()?
    } else {
        BTreeSet::new()
    };
    let guarded = |interface: &&Interface| {
        routes.contains(&interface.ifindex) || start.interfaces.contains(&interface.name)
    };
    let guarded = interfaces.iter().filter(guarded);
    let guarded = guarded.map(|interface| interface.ifindex).collect();
    start.compiled = Some(Compiled {
        node: rtnetlink::node_addresses(&guarded)?,
        ahead: Clocks::now()?.wall_minus_boot(),
    });
    let mut policy = policy(&start.file.list(), &start.settings, &guarded)?;
    policy.basis = start.basis;
    let store = PolicyStore::new(&context.config.state_dir);
    if let Some(unread) = unread(context, &policy, None) {
        say(format_args!("note: {unread}"));
    }
    // A boot opens nothing that was closed.
    let waits = match store.has_enforced() {
        true => None,
        // Whom a first enforcement cuts has to be known; the files are followed from monitor mode.
        false => waits(context, &policy, &guarded)
            .unwrap_or_else(|error| {
                Some(format!(
                    "monitor mode: nothing is dropped yet: what enforcement would do cannot be told: {error:#}"
                ))
            }),
    };
    if let Some(instead) = waits {
        (policy.settings.mode, policy.settings.mode_waits) = (PolicyMode::Monitor, true);
        start.settings = policy.settings.clone();
        start.instead = Some(instead);
    }
    match &start.instead {
        Some(instead) => say(format_args!("warning: {instead}")),
        None if start.file.list() == List::Off => tell_open(Mode::Off as u8),
        None if start.settings.mode == PolicyMode::Monitor => tell_open(Mode::Monitor as u8),
        None => {}
    }
    let mut maps = prepare_maps(context)?;
    let change = Transaction {
        saves: (start.basis == Basis::Files).then_some(&start.file),
        names_interfaces: true,
        ..Transaction::begin(context, &maps, &policy)?
    };
    change.put_in_force(&mut maps, &Progress::start())?;
    // No program reads these maps yet. They get their name once they hold a policy.
    fs::rename(context.pins.new_maps(), context.pins.maps()).context("pin maps")?;
    if start.basis == Basis::Files {
        History::of(&context.global.ranges_file).record(&Author::of_this_process());
    }
    Ok(start)
}

/// Why `policy` is not the first one to be enforced at once; none if it is.
fn waits(context: &Context, policy: &Policy, guarded: &BTreeSet<u32>) -> Result<Option<String>> {
    if let Some(unclear) = unclear(context, policy, guarded, None)? {
        return Ok(Some(unclear.instead()));
    }
    if policy.mode() != Mode::Enforce || *context.config.on_cut == OnCut::Apply {
        return Ok(None);
    }
    // The files are followed from there, and what they say is on trial first.
    let impact = assess(context, None, policy, guarded)?;
    let serious = impact.serious();
    Ok(serious.map(|reason| format!("monitor mode: nothing is dropped yet: {reason}")))
}

/// Says that everybody passes, if that is so where `mode` is in force.
fn tell_open(mode: u8) {
    if mode == Mode::Off as u8 {
        say("warning: enforcement is off: everyone passes");
    } else if mode == Mode::Monitor as u8 {
        say(MONITOR);
    }
}

/// The first of these that there is: what the files say; the policy last in force; the implicit sources alone, if this node has
/// enforced a policy before; monitor mode.
fn choose(context: &Context, typed: Result<()>) -> Start {
    let config = &context.config;
    let store = PolicyStore::new(&config.state_dir);
    let (saved, lost) = match store.read() {
        Ok(saved) => (saved, None),
        Err(error) => (None, Some(sentence(&error))),
    };
    // What nobody says otherwise is as it was before the boot. In a broken file somebody may have said it.
    let has_config = context.file.wrong.is_empty();
    let settings = match &saved {
        Some(saved) => config.over(&saved.settings, has_config && context.file.exists),
        None => {
            let others = context.pins.other_links().unwrap_or_default();
            context.settings(other_settings(&others).as_ref())
        }
    };
    let files = |file, settings, basis, instead| Start {
        file,
        settings,
        interfaces: config.interfaces.to_vec(),
        xdp_mode: *config.xdp_mode,
        basis,
        instead,
        compiled: None,
    };
    let list = typed.and_then(|()| list(context, settings.max_ranges));
    let store_of_trials = TrialStore::new(&config.state_dir);
    let mark =
        |file: &RangesFile, settings: &Settings| PolicyMark::new(file.list().digest(), settings);
    // What was put in force for good since then was meant.
    let is_open = |file: &RangesFile, saved: &SavedPolicy| {
        let edit = mark(file, &settings);
        edit != mark(&saved.file, &saved.settings) && store_of_trials.is_open(&edit)
    };
    let why = match (list, has_config) {
        (Ok(file), true) if saved.as_ref().is_some_and(|saved| is_open(&file, saved)) => {
            "an edit of the files was on trial, and was not confirmed; `systemctl reload apifence` puts them on trial again".to_owned()
        }
        (Ok(file), true) => {
            let basis = match &lost {
                None => Basis::Files,
                Some(_) => Basis::DefaultSettings,
            };
            let instead = lost.map(|why| said(basis, &why));
            return files(file, settings, basis, instead);
        }
        // There is nothing to stay as it was. What is certain holds, if nothing that decides who is let in can be in the rest.
        (Ok(file), false)
            if saved.is_none() && (store.has_enforced() || !context.file.said.doubts(&POLICY)) =>
        {
            let settings = config.over(&context.file.said.settings(), false);
            let instead = format!(
                "the list is in force, under the settings that could be read: {}",
                broken(context)
            );
            return files(file, settings, Basis::Files, Some(instead));
        }
        (_, false) => broken(context),
        (Err(error), true) => sentence(&error),
    };
    // What an older version kept beside the ranges file.
    let last_good = || {
        let lists = History::of(&context.global.ranges_file).before().ok()?;
        lists.iter().find_map(|kept| kept.read().ok())
    };
    let (saved, basis) = match (saved, last_good()) {
        (Some(saved), _) => (SavedPolicy { settings, ..saved }, Basis::LastInForce),
        (None, Some(file)) => {
            let basis = match &lost {
                None => Basis::LastInForce,
                Some(_) => Basis::DefaultSettings,
            };
            (with(context, file, settings), basis)
        }
        (None, None) => {
            let (mode, basis) = if store.has_enforced() {
                (PolicyMode::Enforce, Basis::ImplicitSources)
            } else {
                (PolicyMode::Monitor, Basis::Fresh)
            };
            let nobody = RangesFile::new(&List::Ranges(Vec::new()));
            (with(context, nobody, Settings { mode, ..settings }), basis)
        }
    };
    let why = lost.map_or(why.clone(), |lost| format!("{why}; {lost}"));
    // Flags and environment name interfaces whatever the config file is like.
    let is_told = |key| has_config || !config.doubts(&[key]);
    Start {
        interfaces: if is_told("interfaces") && !config.interfaces.is_empty() {
            config.interfaces.to_vec()
        } else {
            saved.interfaces
        },
        xdp_mode: if is_told("xdp_mode") {
            *config.xdp_mode
        } else {
            saved.xdp_mode
        },
        file: saved.file,
        settings: saved.settings,
        basis,
        instead: Some(said(basis, &why)),
        compiled: None,
    }
}

fn with(context: &Context, file: RangesFile, settings: Settings) -> SavedPolicy {
    SavedPolicy {
        settings,
        interfaces: context.config.interfaces.to_vec(),
        xdp_mode: *context.config.xdp_mode,
        file,
    }
}

/// What holds, in words.
fn said(basis: Basis, why: &str) -> String {
    match basis {
        Basis::Files => "the files are in force".to_owned(),
        Basis::LastInForce => format!("the policy last in force holds, not the files: {why}"),
        Basis::ImplicitSources => {
            format!("only the implicit sources are let in, for there is no usable list: {why}")
        }
        Basis::Fresh => {
            format!(
                "monitor mode: nothing is dropped until there is a list that can be used: {why}"
            )
        }
        Basis::DefaultSettings => format!(
            "what flags set before is lost, and what the files do not say is the default (`apifence config` shows it; `systemctl reload apifence` accepts it): {why}"
        ),
    }
}

/// The settings that decide who is let in, and where.
const POLICY: [&str; 7] = [
    "mode",
    "ports",
    "destinations",
    "node_addresses",
    "cluster_cidrs",
    "outbound_ips",
    "outbound_ip_prefixes",
];

/// What is wrong with the config file, or the environment.
fn broken(context: &Context) -> String {
    sentence(&InputErrors::new(context.file.wrong.clone()).into())
}

/// The list that the ranges file asks for, if it can be used.
fn list(context: &Context, max_ranges: u32) -> Result<RangesFile> {
    let path = &context.global.ranges_file;
    refuse_other_writers(path)?;
    let file = read_in_time(path)?.ok_or_else(|| {
        UserError::failed(
            format!("read ranges file `{}`: no such file", path.display()),
            "`apifence ranges set CIDR,...` writes it",
        )
    })?;
    let list = file.list();
    examine(&list, max_ranges)?;
    remarks(list.entries(), |_| true).iter().for_each(say);
    Ok(file)
}

/// Reads the ranges file, if the disk hands it over in time.
fn read_in_time(path: &Path) -> Result<Option<RangesFile>> {
    let (sender, receiver) = mpsc::channel();
    let read = path.to_owned();
    thread::Builder::new()
        .spawn(move || {
            // Nobody waits for it any more, if it took too long.
            let _ = sender.send(Input::follow(&read));
        })
        .context("start thread")?;
    let input = receiver.recv_timeout(DISK).map_err(|_| {
        UserError::failed(
            format!(
                "read ranges file `{}`: its disk has not answered for {} s",
                path.display(),
                DISK.as_secs()
            ),
            "it is read again as soon as it can be",
        )
    })?;
    input?.map(Input::parse).transpose()
}
