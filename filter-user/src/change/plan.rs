//! The plan of `apifence attach`: the policy to put in force, and how it differs from the one that
//! is. No packet is affected by it.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use filter_common::Mode;
use jiff::Timestamp;

use super::{
    attached::{Attached, read_interfaces},
    build::{examine, examine_guards, policy, read_cluster},
    guarded::guard_changes,
    impact::assess,
    proposal::{ListChange, Proposal},
    recovery::recover,
    upgrade::other_settings,
    words::{FoundLists, PreviousList, Words, difference_from, in_words, listed},
};
use crate::{
    cli::ChangeArgs,
    clock::Clocks,
    config::Settings,
    context::Context,
    kernel::{bpf::Maps, net::interface::Interface},
    policy::{Difference, Policy},
    ranges::{List, ListName, Lists, RangesFile, remarks},
    store::{PolicyStore, Staged},
    ui::{error::UserError, output::eprint},
};

/// The interfaces to guard, and the policy that the user asked for.
pub(super) struct AttachRequest<'a> {
    pub(super) context: &'a Context,
    pub(super) change: &'a ChangeArgs,
    /// The list, if it was typed.
    pub(super) typed: Option<List>,
    pub(super) interfaces: Vec<Interface>,
    /// All interfaces of the network namespace.
    pub(super) all: Vec<Interface>,
}

/// A complete attach of which nothing is in force yet.
pub(super) struct Plan<'a> {
    pub(super) request: &'a AttachRequest<'a>,
    /// The maps in use; `None` for a first attach.
    pub(super) before: Option<Maps>,
    /// Whether a filter of another layout is taken over.
    is_upgrade: bool,
    pub(super) lists: Lists,
    pub(super) policy: Policy,
    pub(super) proposal: Proposal,
}

impl<'a> Plan<'a> {
    /// Recovers, reads the files, compiles the policy and assesses its impact.
    pub(super) fn new(request: &'a AttachRequest<'a>) -> Result<Self> {
        let AttachRequest {
            context, change, ..
        } = *request;
        let name = ListName::default();
        let default = match &request.typed {
            Some(list) => Some(RangesFile::new(list)),
            None => context.list_files().read_list(&name)?,
        };
        let lists = context.lists_with(default)?;
        if lists.is_empty() {
            return Err(no_list(context));
        }
        let others = context.pins.other_links()?;
        let is_upgrade = !others.is_empty();
        context.pins.remove_unused_maps()?;
        let before = open_recovered(context)?;
        let have = settings_before(context, before.as_ref(), &others)?;
        let settings = context.settings(have.as_ref());
        let list = lists.union();
        examine(&list, settings.max_ranges)?;
        examine_guards(&lists, &settings)?;
        let mut guarded: BTreeSet<u32> = context.pins.interfaces()?.into_iter().collect();
        guarded.extend(request.interfaces.iter().map(|interface| interface.ifindex));
        guarded.extend(others.iter().map(|(ifindex, _)| *ifindex));
        let cluster = read_cluster(context, &settings);
        let policy = policy(&lists, &settings, &cluster, &guarded)?;
        if change.confirm_within.is_some() {
            refuse_provisional(is_upgrade, before.is_some(), &request.interfaces)?;
        }
        let impact = assess(context, before.as_ref(), &policy, &guarded)?;
        let changes = have.map_or_else(Vec::new, |have| settings.changes_from(&have));
        let list = list_change(request, before.as_ref(), &policy, (&lists, &list))?;
        let proposal = Proposal::new(changes, list, impact);
        Ok(Self {
            request,
            before,
            is_upgrade,
            lists,
            policy,
            proposal,
        })
    }

    /// The list of the ranges file.
    pub(super) fn default_list(&self) -> Option<&RangesFile> {
        self.lists.get(&ListName::default())
    }

    /// Reports the changes, or refuses them; false after a dry run.
    pub(super) fn propose(&mut self) -> Result<bool> {
        let AttachRequest {
            context, change, ..
        } = *self.request;
        let interfaces = read_interfaces(&self.request.interfaces)?;
        if let (Some(file), false) = (self.default_list(), change.dry_run)
            && self.request.typed.is_some()
        {
            // A change that the disk refuses is not reported as made.
            let path = context.list_files().file(&ListName::default());
            drop(Staged::write(&path, file)?);
        }
        // The connections that a filter of another layout drops already are unknown here.
        let output = context.global.output;
        self.proposal
            .put(change, !self.is_upgrade, output, |proposal| Attached {
                interfaces,
                proposal,
                confirm_until: None,
            })
    }
}

/// The maps in use, after the recovery of an interrupted change; `None` for a first attach.
fn open_recovered(context: &Context) -> Result<Option<Maps>> {
    if !context.pins.maps().exists() {
        return Ok(None);
    }
    let mut maps = Maps::open(&context.pins.maps())?;
    match recover(context, &mut maps)? {
        Some(waiting) => Err(waiting.problem()?),
        None => Ok(Some(maps)),
    }
}

/// The settings that stay unless the user changes them: those in `maps`; without maps the saved
/// ones, as after a boot; or those of another layout's links. `None` if they cannot be read.
fn settings_before(
    context: &Context,
    maps: Option<&Maps>,
    others: &[(u32, PathBuf)],
) -> Result<Option<Settings>> {
    if let Some(maps) = maps {
        return Ok(maps.settings(maps.active_slot()?).ok());
    }
    let saved = PolicyStore::new(&context.config.state_dir).read();
    let saved = saved.unwrap_or_else(|error| {
        eprint(format_args!(
            "warning: {error:#}: settings from earlier flags are lost; settings that you leave out now are the defaults"
        ));
        None
    });
    Ok(saved
        .map(|saved| saved.settings)
        .or_else(|| other_settings(others)))
}

/// Refuses a provisional attach whose end would not bring back the state before it.
fn refuse_provisional(is_upgrade: bool, has_maps: bool, interfaces: &[Interface]) -> Result<()> {
    let refuse = |cause: &str| {
        Err(UserError::input(
            cause,
            "attach without `--confirm-within` first; nothing changed",
        ))
    };
    if is_upgrade {
        return refuse(
            "start trial: a filter of another version is attached, and its policy could not be restored",
        );
    }
    // The policy in force would return on an interface on which nothing was dropped before.
    match interfaces.iter().find(|found| found.xdp.is_none()) {
        Some(Interface { name, .. }) if has_maps => refuse(&format!(
            "start trial: `{name}` has no filter yet, but other interfaces have one, whose policy would stay on `{name}`"
        )),
        _ => Ok(()),
    }
}

/// The difference between `list`, the union of `lists` that `policy` was compiled from, and the
/// list in force. On a first attach: between a typed list and the ranges file.
fn list_change<'a>(
    request: &AttachRequest<'_>,
    before: Option<&Maps>,
    policy: &Policy,
    (lists, list): (&Lists, &'a List),
) -> Result<ListChange<'a>> {
    // A file that cannot be read is not compared.
    let context = request.context;
    let previous = context.read_lists().ok().map(|read| FoundLists {
        is_wanted: read.lists == *lists,
        is_broken: read.faults.iter().any(|(name, _)| name.is_default()),
        lists: read.lists,
    });
    let previous = previous.filter(|found| !found.lists.is_empty() || found.is_broken);
    let now = Timestamp::now();
    let (known, was_off, mut difference) = match before {
        None => {
            let known =
                PreviousList::find(context, previous.filter(|_| request.typed.is_some()), None);
            let had = known.entries().to_vec();
            let difference = match request.typed {
                Some(_) => difference_from(&had, policy.sources(), now),
                // No part of the list is in force yet.
                None => {
                    return Ok(ListChange {
                        words: Words {
                            notes: remarks(list.entries(), |_| true),
                            ..Words::default()
                        },
                        ..ListChange::none(list)
                    });
                }
            };
            (known, *list == List::Off, difference)
        }
        Some(maps) => {
            let record = maps.record(maps.active_slot()?)?;
            let want = listed(policy.sources().iter(), now);
            let have = maps.sources(maps.active_slot()?, &Clocks::now()?)?;
            let difference = Difference::between(listed(have.iter(), now), want);
            let known = PreviousList::find(context, previous, Some(&record));
            (known, record.mode == Mode::Off as u8, difference)
        }
    };
    difference.note_edits(known.entries(), list.entries());
    let is_same = difference.is_none() && was_off == (*list == List::Off);
    let words = match is_same {
        true => Words::default(),
        false => in_words(&difference, &known, list, policy.sources(), now),
    };
    Ok(ListChange {
        list,
        was_off,
        difference,
        words,
        guards: before.map_or_else(|| Ok(Vec::new()), |maps| guard_changes(maps, policy))?,
    })
}

fn no_list(context: &Context) -> anyhow::Error {
    UserError::input(
        format!(
            "read ranges file `{}`: no such file",
            context.global.ranges_file.display()
        ),
        "`apifence init` or `apifence ranges set CIDR,...` writes it",
    )
}
