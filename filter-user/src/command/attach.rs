//! `apifence attach`: load, fill the policy, attach; in this order.

use std::fs;

use anyhow::{Context as _, Result};

use super::{
    Context,
    policy::{examine, policy, put_in_force, settings, typed_list},
};
use crate::{
    cli::PolicyArgs,
    config::join,
    datapath::{
        Attachment, Maps, Program, attach, create_maps, detach_link, program_name, replace,
    },
    net::{Interface, Net, XdpPlace},
    output::say,
    problem::Problem,
    ranges::{List, RangesFile},
    state::{WriterLock, read_ranges},
};

/// Runs the command.
pub(super) async fn run(context: &Context, args: &PolicyArgs) -> Result<u8> {
    guard(context, args, false).await?;
    Ok(0)
}

/// An interface that is guarded, and the program that was loaded for it.
pub(super) struct Guarded {
    pub(super) interface: Interface,
    pub(super) program: Program,
}

/// Guards the interfaces that `args` name with the policy that they and the ranges file ask for.
pub(super) async fn guard(context: &Context, args: &PolicyArgs, log: bool) -> Result<Vec<Guarded>> {
    let settings = settings(args)?;
    let typed = args
        .authorized_ip_ranges
        .as_deref()
        .map(typed_list)
        .transpose()?;
    let net = Net::open()?;
    let interfaces = net.choose(&args.interface).await?;
    context.pins.prepare()?;
    let _lock = WriterLock::take(&context.global.ranges_file, context.pins.root())?;

    for interface in &interfaces {
        refuse_foreign(context, interface)?;
    }
    let file = match &typed {
        Some(list) => RangesFile::new(list),
        None => read_ranges(&context.global.ranges_file)?.ok_or_else(|| no_list(context))?,
    };
    let list = file.list();
    examine(&list, settings.max_ranges)?;
    let policy = policy(&net, &list, &settings).await?;

    // A first attach prepares its maps aside: `maps` exists only once it holds a policy.
    let fresh = !context.pins.maps().exists();
    if fresh {
        prepare_maps(context)?;
    }
    let result = async {
        let directory = if fresh {
            context.pins.new_maps()
        } else {
            context.pins.maps()
        };
        let mut maps = Maps::open(&directory)?;
        let before = maps.in_force()?;
        if !fresh {
            // A program built for these maps exists by now, and the policy in force is still the old one.
            for change in settings.changes_from(&maps.settings(before)?) {
                say(format_args!("note: {change}"));
            }
        }
        if typed.is_some() {
            put_in_force(context, &file, Some((&mut maps, &policy))).await?;
        } else {
            let slot = maps.stage(&policy)?;
            maps.select(slot)?;
        }
        if fresh {
            fs::rename(&directory, context.pins.maps()).context("pin maps")?;
        }
        let guarded = attach_all(context, args, &interfaces, log);
        if guarded.is_err() && !fresh {
            maps.select(before)?;
        }
        guarded
    }
    .await;
    let guarded = match result {
        Ok(guarded) => guarded,
        Err(error) => {
            if context
                .pins
                .interfaces()
                .is_ok_and(|found| found.is_empty())
            {
                // Nothing is attached: leave nothing behind either.
                let _ = context.pins.remove_all();
            }
            return Err(error);
        }
    };
    report(
        &net,
        &guarded,
        &list,
        &settings.ports.iter().copied().collect::<Vec<_>>(),
    )
    .await?;
    Ok(guarded)
}

fn no_list(context: &Context) -> anyhow::Error {
    Problem::input(
        format!(
            "read ranges file `{}`: no such file",
            context.global.ranges_file.display()
        ),
        "`apifence ranges set CIDR,...` writes it, and so does `--authorized-ip-ranges CIDR,...`",
    )
}

fn prepare_maps(context: &Context) -> Result<()> {
    let aside = context.pins.new_maps();
    if aside.exists() {
        // Somebody died half-way.
        fs::remove_dir_all(&aside).context("remove unfinished pins")?;
    }
    fs::create_dir_all(&aside).context("make directory for pins")?;
    create_maps(&aside)
}

/// Refuses an interface that carries a program which is not ours, and a link that is not this interface's.
fn refuse_foreign(context: &Context, interface: &Interface) -> Result<()> {
    let name = &interface.name;
    let pin = context.pins.link(interface.ifindex);
    let ours = if pin.exists() { Some(Attachment::read(&pin)?) } else { None };
    match (interface.xdp, ours) {
        (Some(xdp), Some(ours)) if ours.program_id == xdp.program_id => Ok(()),
        (_, Some(ours)) if ours.ifindex != 0 => Err(Problem::failed(
            format!(
                "attach filter to `{name}`: the pins in `{}` guard interface {} of another network namespace",
                context.pins.root().display(),
                interface.ifindex
            ),
            "give each network namespace a directory of its own with `--bpffs`",
        )),
        (None, _) => Ok(()),
        (Some(xdp), _) => {
            let program = match program_name(xdp.program_id) {
                Some(name) => format!("`{name}` (program {})", xdp.program_id),
                None => format!("program {}", xdp.program_id),
            };
            Err(Problem::failed(
                format!("attach filter to `{name}`: it carries the XDP program {program}"),
                format!(
                    "apifence displaces nothing: remove it with its own tool (a program attached by netlink: `ip link set dev {name} xdp off`), then attach again"
                ),
            ))
        }
    }
}

/// Loads a program for each interface, then attaches or replaces each. If one fails, those attached here are removed again.
fn attach_all(
    context: &Context,
    args: &PolicyArgs,
    interfaces: &[Interface],
    log: bool,
) -> Result<Vec<Guarded>> {
    let mut guarded = Vec::new();
    for interface in interfaces {
        guarded.push(Guarded {
            interface: interface.clone(),
            program: Program::load(&context.pins, interface.ifindex, log)?,
        });
    }
    let mut attached = Vec::new();
    for Guarded { interface, program } in &mut guarded {
        let pin = context.pins.link(interface.ifindex);
        let result = match interface.xdp {
            // It is ours, or it would have been refused.
            Some(xdp) => keeps_mode(interface, xdp.place, args.xdp_mode)
                .and_then(|()| replace(program, &interface.name, &pin)),
            None => {
                // A pin without a program on the interface: the link of an interface that is gone.
                if pin.exists() {
                    detach_link(&pin)?;
                }
                attach(
                    program,
                    &interface.name,
                    interface.ifindex,
                    args.xdp_mode,
                    &pin,
                )
                .inspect(|()| attached.push(interface.ifindex))
            }
        };
        if let Err(error) = result {
            for ifindex in attached {
                context.pins.remove_interface(ifindex)?;
            }
            if !pin.exists() {
                context.pins.remove_interface(interface.ifindex)?;
            }
            return Err(error);
        }
    }
    Ok(guarded)
}

/// Refuses to replace a program in another mode than it is attached in: a link keeps its mode.
fn keeps_mode(interface: &Interface, place: XdpPlace, want: crate::config::XdpMode) -> Result<()> {
    use crate::config::XdpMode;
    match (want, place) {
        (XdpMode::Native, XdpPlace::Generic) | (XdpMode::Generic, XdpPlace::Native) => {
            Err(Problem::failed(
                format!(
                    "attach filter to `{}`: it is attached in {} mode, and a link keeps its mode",
                    interface.name,
                    place.label()
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

/// Says what is in force now.
async fn report(net: &Net, guarded: &[Guarded], list: &List, ports: &[u16]) -> Result<()> {
    let now = net.interfaces().await?;
    for Guarded { interface, .. } in guarded {
        let place = now
            .iter()
            .find(|other| other.ifindex == interface.ifindex)
            .and_then(|other| other.xdp)
            .map_or("no", |xdp| xdp.place.label());
        say(format_args!(
            "guarding TCP {} on `{}` ({place} XDP)",
            join(ports),
            interface.name
        ));
        if place == XdpPlace::Generic.label() {
            say(
                "note: generic XDP sees packets after the kernel made socket buffers of them: slower, and the same verdicts",
            );
        }
    }
    match list {
        List::Off => say("warning: the list is switched off (`disabled`): everyone passes"),
        List::Ranges(entries) if entries.is_empty() => {
            say("note: the list lets nobody in but the implicit sources");
        }
        List::Ranges(entries) => say(format_args!(
            "{} authorized ranges in the list",
            entries.len()
        )),
    }
    Ok(())
}
