//! `apifence attach`: load, fill the policy, attach; in this order.

use std::{collections::BTreeSet, fs, slice};

use anyhow::{Context as _, Result};
use filter_common::{Mode, layout::Trial};
use jiff::Timestamp;

use super::{
    attached::{Attached, report, shown},
    build::{examine, keep, policy, typed_list},
    impact::assess,
    list_editor::put_back_edited,
    proposal::{ListChange, Proposal, made},
    recovery::recover,
    transaction::{Transaction, clear_up, put_in_force},
    upgrade::{other_settings, take_over},
    words::{Before, ReadList, VERB, Words, difference_from, in_words, listed},
};
use crate::{
    cli::{ChangeArgs, PolicyArgs},
    clock::Clocks,
    config::XdpMode,
    context::Context,
    kernel::{
        bpf::{Attachment, Counters, Link, Maps, Program, create_maps, detach_link},
        links::{
            foreign::Foreign,
            protected::follow_moved,
            strays::{strays, strays_at_rest},
        },
        net::{
            interface::{Interface, XdpAttachMode},
            rtnetlink,
        },
        pins::Pins,
    },
    policy::{Difference, Policy, author::Author},
    ranges::{List, RangesFile, remarks},
    store::{History, PolicyStore, Staged, WriterLock, read_ranges},
    ui::{error::UserError, output::say, progress::Progress},
    warnings::node,
};

/// Runs the command.
pub(crate) fn run(context: &Context, args: &PolicyArgs, change: &ChangeArgs) -> Result<u8> {
    let interfaces = wanted(context)?;
    let typed = args.authorized_ip_ranges.as_deref();
    let attached = match guard(context, interfaces, typed, change)? {
        Done::Shown => return Ok(0),
        Done::Attached(attached) => attached,
    };
    let told = node::of_node(context)?;
    for warning in told.iter().filter(|warning| !warning.acknowledged) {
        say(warning);
    }
    Ok(made(context.global.output.result(&attached)))
}

/// The interfaces that the settings name; or else those that hold the default routes, and those that are guarded already.
fn wanted(context: &Context) -> Result<Vec<Interface>> {
    let names = &context.config.interfaces;
    let chosen = rtnetlink::choose(VERB, names);
    let guarded = context.pins.interfaces()?;
    if !names.is_empty() || guarded.is_empty() {
        return chosen;
    }
    let mut all = rtnetlink::interfaces()?;
    let chosen = chosen.unwrap_or_default();
    all.retain(|found| {
        guarded.contains(&found.ifindex) || chosen.iter().any(|one| one.ifindex == found.ifindex)
    });
    Ok(all)
}

/// What came of it.
enum Done {
    /// What would be was shown.
    Shown,
    Attached(Box<Attached>),
}

/// What is to be guarded, and how.
struct AttachRequest<'a> {
    change: &'a ChangeArgs,
    /// The list, if it was typed and not left to the ranges file.
    typed: Option<List>,
    interfaces: Vec<Interface>,
    /// All interfaces that there are.
    all: Vec<Interface>,
}

/// Guards `interfaces` with the policy that the settings and the ranges file ask for, once the list `typed` is in that file.
fn guard(
    context: &Context,
    interfaces: Vec<Interface>,
    typed: Option<&str>,
    change: &ChangeArgs,
) -> Result<Done> {
    let typed = typed
        .map(|text| typed_list(text, change.force))
        .transpose()?;
    let mut wish = AttachRequest {
        change,
        typed,
        interfaces,
        all: Vec::new(),
    };
    context.pins.prepare()?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    // What a `detach` took off a moment ago may be there still.
    (_, wish.all) = strays_at_rest(&context.pins)?;
    for interface in &mut wish.interfaces {
        let same = wish.all.iter().find(|now| now.ifindex == interface.ifindex);
        interface.xdp = same.and_then(|now| now.xdp);
    }

    let guarded = apply(context, &wish);
    let all = context.pins.all_links();
    if guarded.is_err() && all.is_ok_and(|links| links.is_empty()) {
        // Nothing is attached: leave nothing behind either.
        let _ = context.pins.remove_all();
    }
    guarded
}

/// Load, fill the policy, attach. If a step fails, the list in force and the ranges file stay as they were, and interfaces that had no
/// filter have none.
fn apply(context: &Context, wish: &AttachRequest<'_>) -> Result<Done> {
    if let Ok(mut counters) = Counters::open(&context.pins.maps()) {
        follow_moved(&context.pins, &mut counters, &rtnetlink::interfaces()?)?;
    }
    if !wish.change.dry_run {
        forget_gone(&context.pins, &wish.all)?;
    }
    for interface in &wish.interfaces {
        interface.link_header(VERB)?;
        refuse_foreign(&context.pins, interface)?;
        refuse_other_mode(interface, *context.config.xdp_mode)?;
    }
    let file = match &wish.typed {
        Some(list) => RangesFile::new(list),
        None => read_ranges(&context.global.ranges_file)?.ok_or_else(|| no_list(context))?,
    };
    let others = context.pins.other_links()?;
    let upgrade = !others.is_empty();
    context.pins.remove_unused_maps()?;
    let first = !context.pins.maps().exists();
    let mut before = if first {
        None
    } else {
        let mut maps = Maps::open(&context.pins.maps())?;
        if let Some(waiting) = recover(context, &mut maps)? {
            return Err(waiting.problem()?);
        }
        Some(maps)
    };
    // Settings that cannot be read are written anew.
    let have = match &before {
        Some(maps) => maps.settings(maps.active_slot()?).ok(),
        // After a boot those are in force that were before, unless somebody took the filter off.
        None => {
            let saved = PolicyStore::new(&context.config.state_dir).read();
            let saved = saved.unwrap_or_else(|error| {
                say(format_args!(
                    "warning: {error:#}: what flags set before is lost, and what is not said now is the default"
                ));
                None
            });
            let saved = saved.map(|saved| saved.settings);
            saved.or_else(|| other_settings(&others))
        }
    };
    let settings = context.settings(have.as_ref());
    let list = file.list();
    examine(&list, settings.max_ranges)?;
    let mut ours: BTreeSet<u32> = context.pins.interfaces()?.into_iter().collect();
    ours.extend(wish.interfaces.iter().map(|interface| interface.ifindex));
    ours.extend(others.iter().map(|(ifindex, _)| *ifindex));
    let policy = policy(&list, &settings, &ours)?;
    // What an interface without a filter lets in is everyone.
    let open = wish.interfaces.iter().find(|found| found.xdp.is_none());
    if upgrade && wish.change.confirm_within.is_some() {
        return Err(UserError::input(
            "attach filter provisionally: one of another version is on, and its policy cannot be gone back to",
            "attach it without `--confirm-within` first; nothing changed",
        ));
    }
    if let (Some(interface), false, true) = (open, first, wish.change.confirm_within.is_some()) {
        // When the trial ends the policy before returns, also there: where nothing was dropped until now.
        return Err(UserError::input(
            format!(
                "attach filter to `{}` provisionally: it has none, and others go by a policy that would stay there",
                interface.name
            ),
            "attach it without `--confirm-within` first; nothing changed",
        ));
    }
    let impact = assess(context, before.as_ref(), &policy, &ours)?;
    let changes = have.map_or_else(Vec::new, |have| settings.changes_from(&have));
    let change = list_change(context, before.as_ref(), &policy, (&file, &list), wish)?;
    let mut proposal = Proposal::new(changes, change, impact);
    let interfaces = shown(&wish.interfaces)?;
    if wish.typed.is_some() && !wish.change.dry_run {
        // Nothing is said to be done that cannot be.
        drop(Staged::write(&context.global.ranges_file, &file)?);
    }
    // Whom a filter of another version keeps out already nobody knows here.
    let proceed = proposal.put(wish.change, !upgrade, context.global.output, |proposal| {
        Attached {
            interfaces,
            proposal,
            confirm_until: None,
        }
    })?;
    if !proceed {
        return Ok(Done::Shown);
    }
    let within = wish.change.confirm_within;
    if let (Some(maps), true) = (&before, within.is_some()) {
        put_back_edited(maps, &context.global.ranges_file)?;
    }
    let staged = match (&wish.typed, within) {
        (None, None) => None,
        _ => Some(Staged::write(&context.global.ranges_file, &file)?),
    };
    let mut maps = match before.take() {
        Some(maps) => maps,
        None => prepare_maps(context)?,
    };
    if first && within.is_some() {
        // What returns if nobody confirms is what was before: no filter.
        let mut open = policy.clone();
        open.enforced = false;
        open.list = List::Off.digest();
        let slot = maps.begin()?.fill(&mut maps, &open, false, &|_| ())?;
        maps.select(slot)?;
    }
    let progress = Progress::start();
    let change = Transaction {
        staging: maps.begin()?,
        policy: &policy,
        file: staged,
        kept: match within {
            None => keep(context, &file, &settings, true),
            Some(_) => None,
        },
        within,
        trial: Trial::None,
    };
    let put = put_in_force(&mut maps, change, &progress, |maps, slot| {
        if first {
            // No program reads these maps yet. They get their name once they hold a policy.
            if within.is_none() {
                maps.select(slot)?;
            }
            fs::rename(context.pins.new_maps(), context.pins.maps()).context("pin maps")?;
        }
        // On interfaces that are guarded already the old policy stays in force until the last step.
        attach_all(context, wish)
    });
    let ((), until) = put.inspect_err(|_| leave(context, &wish.interfaces))?;
    drop(progress);
    let interfaces = report(context, &wish.interfaces, &settings, &list);
    match until {
        Some(until) => say(format_args!(
            "in force until {until}: then what was before returns by itself, unless you run `apifence confirm`"
        )),
        None => History::of(&context.global.ranges_file).record(&Author::of_this_process()),
    }
    clear_up(&mut maps);
    Ok(Done::Attached(Box::new(Attached {
        interfaces: interfaces.unwrap_or_else(|error| {
            say(format_args!("warning: {error:#}: the filter is attached"));
            Vec::new()
        }),
        proposal,
        confirm_until: until,
    })))
}

/// How `list`, which `file` holds and `policy` was compiled from, differs from the one in force;
/// where none is, from the one in the file, if another was typed.
fn list_change<'a>(
    context: &Context,
    before: Option<&Maps>,
    policy: &Policy,
    (file, list): (&RangesFile, &'a List),
    wish: &AttachRequest<'_>,
) -> Result<ListChange<'a>> {
    // One that cannot be read is no list to compare with.
    let path = &context.global.ranges_file;
    let said = read_ranges(path).ok().flatten();
    let said = said.map(|said| (said == *file, ReadList::new(said.list())));
    let now = Timestamp::now();
    let (known, was_off, mut difference) = match before {
        None => {
            let known = Before::find(path, said.filter(|_| wish.typed.is_some()), None);
            let had = known.entries().to_vec();
            let difference = match wish.typed {
                Some(_) => difference_from(&had, policy.sources(), now),
                // Nothing of it is in force yet.
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
            let known = Before::find(path, said, Some(&record));
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
    })
}

/// Removes the pins of interfaces that are not among `all`: their links are on nothing, and never
/// will be again. An interface that exists, and whose link somebody detached, keeps its pin and its
/// warning.
fn forget_gone(pins: &Pins, all: &[Interface]) -> Result<()> {
    for ifindex in pins.interfaces()? {
        let is_there = all.iter().any(|found| found.ifindex == ifindex);
        // The link of an interface in another network namespace is on that one.
        let is_on_nothing =
            || Attachment::read(&pins.link(ifindex)).map(|found| found.ifindex == 0);
        if !is_there && is_on_nothing().unwrap_or(false) {
            pins.remove_interface(ifindex)?;
        }
    }
    Ok(())
}

fn no_list(context: &Context) -> anyhow::Error {
    UserError::input(
        format!(
            "read ranges file `{}`: no such file",
            context.global.ranges_file.display()
        ),
        "`apifence ranges set CIDR,...` writes it, and so does `--authorized-ip-ranges CIDR,...`",
    )
}

/// Makes the maps of a first attach, aside.
pub(crate) fn prepare_maps(context: &Context) -> Result<Maps> {
    context.pins.prepare_new_maps()?;
    let aside = context.pins.new_maps();
    create_maps(&aside)?;
    Maps::open(&aside)
}

/// Refuses an interface that carries a program which is not ours, and a link that is not this interface's.
pub(crate) fn refuse_foreign(pins: &Pins, interface: &Interface) -> Result<()> {
    let name = &interface.name;
    let pin = pins.any_link(interface.ifindex)?;
    let ours = if pin.exists() {
        Some(Attachment::read(&pin)?)
    } else {
        None
    };
    match (interface.xdp, ours) {
        (Some(xdp), Some(ours)) if ours.program_id == xdp.program_id => Ok(()),
        (_, Some(ours)) if ours.ifindex != 0 => Err(UserError::failed(
            format!(
                "attach filter to `{name}`: the pins in `{}` guard interface {} of another network namespace",
                pins.root().display(),
                interface.ifindex
            ),
            "give each network namespace a directory of its own with `--bpffs`",
        )),
        (None, _) => Ok(()),
        (Some(xdp), _) => {
            let verb = format!("attach filter to `{name}`");
            if let Some(stray) = strays(pins, slice::from_ref(interface))?.first() {
                return Err(stray.problem(&verb));
            }
            let Foreign { what, hint } = Foreign::on(name, interface.ifindex, xdp);
            Err(UserError::failed(
                format!("{verb}: it carries {what}"),
                hint,
            ))
        }
    }
}

/// Refuses to replace a program in another mode than it is attached in: a link keeps its mode.
pub(crate) fn refuse_other_mode(interface: &Interface, want: XdpMode) -> Result<()> {
    let Some(xdp) = interface.xdp else {
        return Ok(());
    };
    match (want, xdp.place) {
        (XdpMode::Native, XdpAttachMode::Generic) | (XdpMode::Generic, XdpAttachMode::Native) => {
            Err(UserError::failed(
                format!(
                    "attach filter to `{}`: it is attached in {} mode, and a link keeps its mode",
                    interface.name,
                    xdp.place.label()
                ),
                format!(
                    "`apifence detach --interface {}`, then attach again; the port is unfiltered in between",
                    interface.name
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Loads the program, then attaches it to each interface or replaces the one there. If one fails, interfaces that had no filter
/// have none.
fn attach_all(context: &Context, wish: &AttachRequest<'_>) -> Result<()> {
    let attached = || {
        let maps = context.pins.maps();
        let mut program = Program::load(&maps, false)?;
        let mut counters = Counters::open(&maps)?;
        take_over(&context.pins, &mut program, &mut counters, &wish.all)?;
        for interface in &wish.interfaces {
            counters.claim(interface.ifindex)?;
            attach_one(context, &mut program, interface)?;
        }
        Ok(())
    };
    attached().inspect_err(|_| leave(context, &wish.interfaces))
}

/// Attaches `program` to an interface, or puts it in the place of our own program there.
fn attach_one(context: &Context, program: &mut Program, interface: &Interface) -> Result<()> {
    let link_header = interface.link_header(VERB)?;
    context.pins.prepare_interface(interface.ifindex)?;
    let pin = context.pins.link(interface.ifindex);
    if interface.xdp.is_some() {
        // It is ours, or it would have been refused.
        return Link::open(&pin)?
            .replace(program, link_header, &interface.name)
            .map(drop);
    }
    if pin.exists() {
        // A pin without a program on the interface: the link of an interface that is gone.
        detach_link(&pin)?;
    }
    let mode = *context.config.xdp_mode;
    let (name, ifindex) = (&interface.name, interface.ifindex);
    Link::create(program, link_header, name, ifindex, mode)?.pin(&pin)
}

/// Leaves the interfaces that had no filter without one.
fn leave(context: &Context, interfaces: &[Interface]) {
    for interface in interfaces.iter().filter(|found| found.xdp.is_none()) {
        // The failure that brought us here is the one to tell; `detach` removes what is left.
        let _ = context.pins.remove_interface(interface.ifindex);
    }
}
