//! From settings, the ranges file and the node to a policy, and a policy into force: what `attach` and `ranges` share.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use filter_common::layout::Basis;

use crate::{
    cli::PolicyArgs,
    config::Settings,
    context::Context,
    kernel::{
        bpf::Maps,
        net::{decapsulation, rtnetlink, sock_diag::ssh_client_address},
    },
    policy::{Policy, Sources, compile},
    ranges::{InputError, List, ME, RangesFile, distinct, is_blank, parse_list, typed_items},
    store::{History, PolicyStore, SavedPolicy, StagedPolicy, read_ranges},
    ui::{
        error::{InputErrors, UserError},
        output::say,
    },
};

/// A list typed on the command line. An empty one switches enforcement off, and an unset variable looks the same: it is taken if it
/// is insisted on with `force`.
pub(crate) fn typed_list(text: &str, force: bool) -> Result<List> {
    if is_blank(text) && !(force && text.trim().is_empty()) {
        return Err(UserError::refused(
            "the list is empty, which would switch enforcement off",
            "an unset variable looks the same; if it is meant: `apifence ranges clear`, or an empty list with `--force`; nothing changed",
            Vec::new(),
        ));
    }
    parse_list(&with_me(text)?).map_err(refused)
}

/// A list as it is typed, with the address that `me` stands for.
pub(crate) fn with_me(text: &str) -> Result<String> {
    if !text.contains(ME) {
        return Ok(text.to_owned());
    }
    let mut items = typed_items(text);
    if !items.iter().any(|item| item == ME) {
        return Ok(text.to_owned());
    }
    let me = me()?.to_string();
    for item in items.iter_mut().filter(|item| *item == ME) {
        item.clone_from(&me);
    }
    Ok(items.join(","))
}

/// The address that `me` stands for, which is told.
pub(crate) fn me() -> Result<IpAddr> {
    let failed = |cause: String, hint: &str| Err(UserError::input(cause, hint));
    let Some(address) = ssh_client_address() else {
        return failed(
            format!(
                "find out who `{ME}` is: it is the address that an SSH session comes from, and this shell has no `SSH_CONNECTION`"
            ),
            "type the address that the API server sees you come from; nothing changed",
        );
    };
    if address.is_loopback() {
        return failed(
            format!(
                "find out who `{ME}` is: this SSH session comes from `{address}`, through a tunnel or a login on this node"
            ),
            "type the address that the API server sees you come from; nothing changed",
        );
    }
    say(format_args!(
        "note: `{ME}` is {address}, where this SSH session comes from"
    ));
    Ok(address)
}

/// The list that a service was started with. Nobody is there to insist on an empty one: it counts as none.
pub(crate) fn typed_for_service(args: &PolicyArgs) -> Option<&str> {
    let typed = args.authorized_ip_ranges.as_deref();
    if typed.is_some_and(is_blank) {
        say(
            "warning: `--authorized-ip-ranges` is empty, as an unset variable is: it counts as not given; `apifence ranges clear` switches enforcement off",
        );
    }
    typed.filter(|text| !is_blank(text))
}

/// InputErrors of something typed, as an error.
pub(crate) fn refused(refusals: Vec<InputError>) -> anyhow::Error {
    let refusals = refusals.into_iter();
    InputErrors::new(
        refusals
            .map(|refusal| (refusal.cause, refusal.hint))
            .collect(),
    )
    .into()
}

/// Refuses a list that is too long.
pub(crate) fn examine(list: &List, max_ranges: u32) -> Result<()> {
    let entries = list.entries();
    // A range that is listed twice is one in the kernel.
    let too_many = entries.len() > max_ranges as usize;
    let ranges = if too_many { distinct(entries) } else { 0 };
    if ranges > max_ranges as usize {
        let twice = match entries.len() - ranges {
            0 => String::new(),
            repeated => format!(" ({repeated} more repeat one of them)"),
        };
        return Err(UserError::input(
            format!(
                "set ranges: the list has {ranges} entries{twice}, and the most is {max_ranges}"
            ),
            "raise `max_ranges` in the config file and attach again, or `apifence attach --max-ranges N`; up to 1000000; nothing changed",
        ));
    }
    Ok(())
}

/// The policy of `list` under `settings`, on this node as it is now, with a filter on the interfaces of `guarded`.
pub(crate) fn policy(list: &List, settings: &Settings, guarded: &BTreeSet<u32>) -> Result<Policy> {
    let implicit = Sources {
        node: if settings.node_addresses {
            rtnetlink::node_addresses(guarded)?
        } else {
            Vec::new()
        },
        outbound: settings.outbound.clone(),
        cluster: settings.cluster.clone(),
    };
    Ok(Policy::new(
        settings.clone(),
        decapsulation::of_this_node()?,
        *list != List::Off,
        list.digest(),
        compile(list.entries(), &implicit),
    ))
}

/// Writes a policy that is about to be in force aside in the state directory: what a boot falls back to. `named` tells whether the
/// interfaces are those of this command's settings; otherwise those that were kept before stay.
///
/// That it cannot be kept is told, and stops no change: a range that is to be taken out must not stay in because of it.
pub(crate) fn keep(
    context: &Context,
    file: &RangesFile,
    settings: &Settings,
    named: bool,
) -> Option<StagedPolicy> {
    let store = PolicyStore::new(&context.config.state_dir);
    let mut policy = SavedPolicy {
        settings: settings.clone(),
        interfaces: context.config.interfaces.to_vec(),
        xdp_mode: *context.config.xdp_mode,
        file: file.clone(),
    };
    if !named && let Ok(Some(before)) = store.read() {
        (policy.interfaces, policy.xdp_mode) = (before.interfaces, before.xdp_mode);
    }
    told(store.stage(&policy))
}

/// What was kept, or a warning.
pub(crate) fn told<T>(kept: Result<T>) -> Option<T> {
    kept.inspect_err(|error| {
        say(format_args!(
            "warning: {error:#}: after a reboot the settings that flags gave would be forgotten (put them into the config file), and with a broken list an older policy would hold"
        ));
    })
    .ok()
}

/// Whether a policy made from this is what a boot falls back to.
pub(crate) fn is_kept(basis: Basis) -> bool {
    matches!(basis, Basis::Files | Basis::LastInForce)
}

/// The list with this digest, from where lists are kept: the ranges file, the policy kept on disk,
/// the history. The off switch does not count in the history: a first attach on trial that went
/// back has it in force, and nobody wrote it.
pub(crate) fn known_list(context: &Context, digest: [u8; 32]) -> Option<RangesFile> {
    let is_it = |file: &RangesFile| file.list().digest() == digest;
    let path = &context.global.ranges_file;
    let file = read_ranges(path).ok().flatten().filter(is_it);
    let known = file.or_else(|| {
        let saved = PolicyStore::new(&context.config.state_dir).read();
        let saved = saved.ok().flatten().map(|saved| saved.file);
        saved.filter(is_it)
    });
    if known.is_some() || digest == List::Off.digest() {
        return known;
    }
    let before = History::of(path).before().ok()?.into_iter();
    before.filter_map(|kept| kept.read().ok()).find(is_it)
}

/// Keeps the policy in force in the state directory, if its list is known and something else is
/// kept: after a confirmation, or where a writer died before it came to that.
pub(crate) fn keep_in_force(context: &Context, maps: &Maps) {
    let read = || {
        let slot = maps.active_slot()?;
        let (record, settings) = (maps.record(slot)?, maps.settings(slot)?);
        let file = is_kept(Basis::of(record.basis)).then(|| known_list(context, record.list));
        anyhow::Ok(file.flatten().map(|file| (file, settings)))
    };
    let Ok(Some((file, settings))) = read() else {
        return;
    };
    let store = PolicyStore::new(&context.config.state_dir);
    let is_there = store.read().is_ok_and(|kept| {
        kept.is_some_and(|kept| kept.settings == settings && kept.file.list() == file.list())
    });
    if !is_there {
        let kept = keep(context, &file, &settings, false);
        kept.and_then(|kept| told(kept.commit()));
    }
}
