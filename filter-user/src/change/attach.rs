//! `apifence attach`: plan, propose, stage the policy, attach the program, activate the policy.

use std::slice;

use anyhow::Result;

use super::{
    attached::{Attached, report},
    build::{record_history, typed_list},
    plan::{AttachRequest, Plan},
    proposal::exit_status,
    put_back::put_back_edited,
    transaction::{Transaction, clean_up},
    upgrade::take_over,
    words::{VERB, on_trial},
};
use crate::{
    cli::{ChangeArgs, PolicyArgs},
    config::{Settings, XdpMode, join},
    context::Context,
    kernel::{
        bpf::{Attachment, Counters, Link, Maps, Program, create_maps, detach_link},
        links::{
            foreign::ForeignProgram,
            protected::follow_moved,
            strays::{strays, strays_at_rest},
        },
        net::{
            interface::{Interface, XdpAttachMode},
            rtnetlink,
        },
        pins::Pins,
    },
    policy::{Policy, author::Author},
    ranges::{List, ListName},
    store::{Staged, WriterLock},
    ui::{error::UserError, output::eprint, progress::Progress},
    warnings::node,
};

/// Runs the command.
pub(crate) fn run(context: &Context, args: &PolicyArgs, change: &ChangeArgs) -> Result<u8> {
    let typed = args.authorized_ip_ranges.as_deref();
    let Some(attached) = guard(context, typed, change)? else {
        return Ok(0);
    };
    let warnings = node::node_warnings(context)?;
    for warning in warnings.iter().filter(|warning| !warning.acknowledged) {
        eprint(warning);
    }
    Ok(exit_status(context.global.output.result(&attached)))
}

/// The interfaces that the settings name. Without names: those of the default routes, and those
/// that are guarded already.
fn chosen_interfaces(context: &Context) -> Result<Vec<Interface>> {
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

/// Attaches the filter to the chosen interfaces, with the policy of the settings and the ranges
/// file, or of the list `typed`, which then goes into that file. `None` after a dry run.
fn guard(context: &Context, typed: Option<&str>, change: &ChangeArgs) -> Result<Option<Attached>> {
    let mut interfaces = chosen_interfaces(context)?;
    let typed = typed
        .map(|text| typed_list(text, change.force))
        .transpose()?;
    context.pins.prepare()?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;
    // A program that `detach` removed a moment ago may not have left yet.
    let (_, all) = strays_at_rest(&context.pins)?;
    for interface in &mut interfaces {
        let same = all.iter().find(|now| now.ifindex == interface.ifindex);
        interface.xdp = same.and_then(|now| now.xdp);
    }
    let request = AttachRequest {
        context,
        change,
        typed,
        interfaces,
        all,
    };
    let attached = plan_and_apply(&request);
    let links = context.pins.all_links();
    if attached.is_err() && links.is_ok_and(|links| links.is_empty()) {
        // Nothing is attached: no pin stays either.
        let _ = context.pins.remove_all();
    }
    attached
}

/// Plan, propose, apply. If a step fails, the policy in force and the ranges file stay as they
/// were, and interfaces that had no filter have none.
fn plan_and_apply(request: &AttachRequest<'_>) -> Result<Option<Attached>> {
    let context = request.context;
    if let Ok(mut counters) = Counters::open(&context.pins.maps()) {
        follow_moved(&context.pins, &mut counters, &rtnetlink::interfaces()?)?;
    }
    if !request.change.dry_run {
        forget_gone(&context.pins, &request.all)?;
    }
    for interface in &request.interfaces {
        interface.link_header(VERB)?;
        refuse_foreign(&context.pins, interface)?;
        refuse_other_mode(interface, *context.config.xdp_mode)?;
    }
    let mut plan = Plan::new(request)?;
    if !plan.propose()? {
        return Ok(None);
    }
    apply(plan).map(Some)
}
/// Puts a policy in force that passes everything: without a confirmation the state before returns,
/// which was no filter.
fn select_open(maps: &mut Maps, policy: &Policy) -> Result<()> {
    let mut open = policy.clone();
    open.enforced = false;
    open.list = List::Off.digest();
    let slot = maps.begin()?.fill(maps, &open, false, &|_| ())?;
    maps.select(slot)
}

/// Stages the policy, attaches the program and activates the policy.
fn apply(plan: Plan<'_>) -> Result<Attached> {
    let (request, policy) = (plan.request, &plan.policy);
    let context = request.context;
    let path = &context.list_files().file(&ListName::default());
    let within = request.change.confirm_within;
    if let (Some(maps), true) = (&plan.before, within.is_some()) {
        put_back_edited(context, maps, &ListName::default())?;
    }
    let file = plan
        .default_list()
        .filter(|_| request.typed.is_some() || within.is_some())
        .map(|file| Staged::write(path, file))
        .transpose()?;
    let is_first = plan.before.is_none();
    let mut maps = plan.before.map_or_else(|| prepare_maps(context), Ok)?;
    if is_first && within.is_some() {
        select_open(&mut maps, policy)?;
    }
    let progress = Progress::start();
    let change = Transaction {
        file,
        saves: Some(&plan.lists),
        names_interfaces: true,
        within,
        ..Transaction::begin(context, &maps, policy)?
    };
    let links = NewLinks::of(request);
    let mut staged = change.stage(&mut maps, &progress)?;
    if is_first {
        // No program reads these maps yet. They get their name once they hold a policy.
        if within.is_none() {
            staged.select_unread()?;
        }
        staged.publish(&context.pins.maps())?;
    }
    // Packets of newly guarded interfaces are affected from here on. On interfaces that are
    // guarded already the old policy stays in force until `activate`.
    links.attach()?;
    let confirm_until = staged.activate()?;
    links.keep();
    drop(progress);
    let list = plan.lists.union();
    let interfaces = report(context, &request.interfaces, &policy.settings, &list);
    match confirm_until {
        Some(until) => eprint(on_trial(plan.request.change, until)),
        None => record_history(context, &plan.lists, &Author::of_this_process()),
    }
    note_files(&policy.settings);
    clean_up(&mut maps);
    Ok(Attached {
        interfaces: interfaces.unwrap_or_else(|error| {
            eprint(format_args!("warning: {error:#}: the filter is attached"));
            Vec::new()
        }),
        proposal: plan.proposal,
        confirm_until,
    })
}
/// Notes that no process follows the files of the cluster that `settings` name.
fn note_files(settings: &Settings) {
    let files = settings.cluster_files();
    if !files.is_empty() {
        eprint(format_args!(
            "note: {} was read once; `apifence run` follows its changes",
            join(&files)
        ));
    }
}

/// Removes the pins of interfaces that are not among `all`. The links of a deleted interface are
/// on nothing for good. An interface that exists, but whose link was detached, keeps its pin and
/// its warning.
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

/// Creates the maps of a first attach under a temporary name.
pub(crate) fn prepare_maps(context: &Context) -> Result<Maps> {
    context.pins.prepare_new_maps()?;
    let aside = context.pins.new_maps();
    create_maps(&aside)?;
    Maps::open(&aside)
}

/// Refuses an interface that carries a foreign program, and a link of another interface.
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
            "give each network namespace its own directory with `--bpffs`",
        )),
        (None, _) => Ok(()),
        (Some(xdp), _) => {
            let verb = format!("attach filter to `{name}`");
            if let Some(stray) = strays(pins, slice::from_ref(interface))?.first() {
                return Err(stray.problem(&verb));
            }
            let ForeignProgram { what, hint } = ForeignProgram::on(name, interface.ifindex, xdp);
            Err(UserError::failed(format!("{verb}: it has {what}"), hint))
        }
    }
}

/// Refuses to replace a program in another mode than its own: a link keeps its mode.
pub(crate) fn refuse_other_mode(interface: &Interface, want: XdpMode) -> Result<()> {
    let Some(xdp) = interface.xdp else {
        return Ok(());
    };
    match (want, xdp.place) {
        (XdpMode::Native, XdpAttachMode::Generic) | (XdpMode::Generic, XdpAttachMode::Native) => {
            Err(UserError::failed(
                format!(
                    "attach filter to `{}`: it is already attached in {} mode",
                    interface.name,
                    xdp.place.label()
                ),
                format!(
                    "to change the mode, run `apifence detach --interface {}`, then attach again; the ports are open in between",
                    interface.name
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// The interfaces of a request that have no filter yet. Dropped before [`NewLinks::keep`], it
/// leaves them without one.
struct NewLinks<'a> {
    request: &'a AttachRequest<'a>,
    is_saved: bool,
}

impl<'a> NewLinks<'a> {
    const fn of(request: &'a AttachRequest<'a>) -> Self {
        Self {
            request,
            is_saved: false,
        }
    }

    /// Loads the program, then attaches it to each interface or replaces the one there.
    fn attach(&self) -> Result<()> {
        let AttachRequest {
            context,
            interfaces,
            all,
            ..
        } = self.request;
        let maps = context.pins.maps();
        let mut program = Program::load(&maps, false)?;
        let mut counters = Counters::open(&maps)?;
        take_over(&context.pins, &mut program, &mut counters, all)?;
        for interface in interfaces {
            counters.claim(interface.ifindex)?;
            counters.count_ports(all)?;
            attach_one(context, &mut program, interface)?;
        }
        Ok(())
    }

    fn keep(mut self) {
        self.is_saved = true;
    }
}

impl Drop for NewLinks<'_> {
    fn drop(&mut self) {
        let interfaces = self.request.interfaces.iter();
        for interface in interfaces.filter(|found| !self.is_saved && found.xdp.is_none()) {
            // The failure that led here is the one to report; `detach` removes the rest.
            let _ = self
                .request
                .context
                .pins
                .remove_interface(interface.ifindex);
        }
    }
}

/// Attaches `program` to an interface, or replaces our program there.
fn attach_one(context: &Context, program: &mut Program, interface: &Interface) -> Result<()> {
    let link_header = interface.link_header(VERB)?;
    context.pins.prepare_interface(interface.ifindex)?;
    let pin = context.pins.link(interface.ifindex);
    if interface.xdp.is_some() {
        // The program is ours: a foreign one was refused.
        return Link::open(&pin)?
            .replace(program, link_header, &interface.name)
            .map(drop);
    }
    if pin.exists() {
        // A pin without a program on the interface is the link of a deleted interface.
        detach_link(&pin)?;
    }
    let mode = *context.config.xdp_mode;
    let (name, ifindex) = (&interface.name, interface.ifindex);
    Link::create(program, link_header, name, ifindex, mode)?.pin(&pin)
}
