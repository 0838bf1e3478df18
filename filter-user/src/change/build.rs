//! Builds a policy from settings, ranges file and node, and saves it, for `attach` and `ranges`.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use filter_common::layout::Basis;
use ipnet::IpNet;

use crate::{
    cli::PolicyArgs,
    config::Settings,
    context::Context,
    kernel::{
        bpf::Maps,
        net::{decapsulation, rtnetlink, sock_diag::ssh_client_address},
    },
    policy::{Policy, Sources, author::Author, compile},
    ranges::{
        InputError, List, ListName, Lists, ME, distinct, is_blank, join, parse_list, parse_ranges,
        typed_items,
    },
    store::{History, PolicyStore, SavedPolicy, StagedPolicy, read_ranges},
    ui::{
        error::{InputErrors, UserError},
        output::eprint,
    },
};

/// Parses a list from the command line. An empty one switches enforcement off, and an unset
/// variable looks the same, so it needs `force`.
pub(crate) fn typed_list(text: &str, force: bool) -> Result<List> {
    if is_blank(text) && !(force && text.trim().is_empty()) {
        return Err(UserError::refused(
            "the list is empty: that would open the ports to every source",
            "check for an unset variable; to switch enforcement off, run `apifence ranges clear`, or add `--force`; nothing changed",
            Vec::new(),
        ));
    }
    parse_list(&replace_me(text)?).map_err(refused)
}

/// Parses ranges from the command line; each text can hold several.
pub(crate) fn typed_ranges(texts: &[String]) -> Result<Vec<IpNet>> {
    parse_ranges(&replace_me(&join(texts))?).map_err(refused)
}

/// The typed list with `me` replaced by its address.
pub(crate) fn replace_me(text: &str) -> Result<String> {
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

/// The address that `me` stands for. It is also reported.
pub(crate) fn me() -> Result<IpAddr> {
    let failed = |cause: String, hint: &str| Err(UserError::input(cause, hint));
    let Some(address) = ssh_client_address() else {
        return failed(
            format!(
                "resolve `{ME}`: it stands for the address of your SSH session, but `SSH_CONNECTION` is not set"
            ),
            "type the source address that the API server sees; nothing changed",
        );
    };
    if address.is_loopback() {
        return failed(
            format!(
                "resolve `{ME}`: your SSH session comes from `{address}`, through a tunnel or from this node"
            ),
            "type the source address that the API server sees; nothing changed",
        );
    }
    eprint(format_args!(
        "note: `{ME}` is {address}, the address of your SSH session"
    ));
    Ok(address)
}

/// The list in a service's flags. An empty one counts as absent: a service cannot ask the operator.
pub(crate) fn typed_for_service(args: &PolicyArgs) -> Option<&str> {
    let typed = args.authorized_ip_ranges.as_deref();
    if typed.is_some_and(is_blank) {
        eprint(
            "warning: `--authorized-ip-ranges` is empty and is ignored; check for an unset variable; `apifence ranges clear` switches enforcement off",
        );
    }
    typed.filter(|text| !is_blank(text))
}

/// The errors in typed text, as one error.
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
            repeated => format!(" ({repeated} duplicates not counted)"),
        };
        return Err(UserError::input(
            format!(
                "set ranges: the lists have {ranges} ranges{twice}; the maximum is {max_ranges}"
            ),
            "raise `max_ranges` (up to 1000000) in the config file and attach again, or run `apifence attach --max-ranges N`; nothing changed",
        ));
    }
    Ok(())
}

/// The files of the cluster that `settings` name. What is wrong with them is told.
pub(crate) fn read_cluster(context: &Context, settings: &Settings) -> Lists {
    let read = context.read_cluster(settings.cluster_files());
    for (name, error) in &read.faults {
        eprint(format_args!(
            "warning: {}",
            cluster_fault(error, read.lists.get(name).is_some())
        ));
    }
    read.lists
}

/// What it means that a file of the cluster cannot be used, because of `error`.
pub(crate) fn cluster_fault(error: &anyhow::Error, is_known: bool) -> String {
    match is_known {
        true => format!("{error:#}: its last good ranges stay in force"),
        false => format!("{error:#}: it does not authorize any source yet"),
    }
}

/// Refuses settings with a guard that names a list which is not among `lists`: its ports would be
/// closed to all sources.
pub(crate) fn examine_guards(lists: &Lists, settings: &Settings) -> Result<()> {
    for guard in &settings.guards {
        if let Some(name) = guard.lists.iter().find(|name| lists.get(name).is_none()) {
            return Err(UserError::input(
                format!(
                    "guard {}: list `{name}` is missing or invalid",
                    guard.ports()
                ),
                format!(
                    "run `apifence ranges set --list {name} CIDR,...`, or fix `[[guard]]` in the config file; nothing changed"
                ),
            ));
        }
    }
    Ok(())
}

/// The policy of `lists` and `settings` on this node, for a filter on the interfaces in `guarded`.
/// `cluster` are the files that the settings name.
pub(crate) fn policy(
    lists: &Lists,
    settings: &Settings,
    cluster: &Lists,
    guarded: &BTreeSet<u32>,
) -> Result<Policy> {
    let list = lists.union();
    let implicit = Sources {
        node: if settings.node_addresses {
            rtnetlink::node_addresses(guarded)?
        } else {
            Vec::new()
        },
        outbound: settings.outbound.clone(),
        cluster: settings.cluster_ranges(cluster),
    };
    // The other implicit sources are for the API server.
    let node = Sources {
        node: implicit.node.clone(),
        ..Sources::default()
    };
    let guards = settings.guards.iter();
    let mut policy = Policy::new(
        settings.clone(),
        decapsulation::of_this_node()?,
        list != List::Off,
        lists.digest(),
        compile(list.entries(), &implicit),
        guards
            .map(|guard| compile(&lists.entries_of(&guard.lists), &node))
            .collect(),
    );
    policy.cluster.clone_from(cluster);
    Ok(policy)
}

/// Stages a policy in the state directory, where a boot finds it, before it comes into force. If
/// `named`, the interfaces are those of this command's settings; otherwise the saved ones stay.
///
/// A failure is reported and stops no change: a range must not stay authorized because of it.
pub(crate) fn keep(
    context: &Context,
    lists: &Lists,
    (settings, cluster): (&Settings, &Lists),
    named: bool,
) -> Option<StagedPolicy> {
    let store = PolicyStore::new(&context.config.state_dir);
    let mut policy = SavedPolicy {
        settings: settings.clone(),
        interfaces: context.config.interfaces.to_vec(),
        xdp_mode: *context.config.xdp_mode,
        lists: lists.clone(),
        cluster: cluster.clone(),
    };
    if !named && let Ok(Some(before)) = store.read() {
        (policy.interfaces, policy.xdp_mode) = (before.interfaces, before.xdp_mode);
    }
    report_unsaved(store.stage(&policy))
}

/// The saved policy, or a warning.
pub(crate) fn report_unsaved<T>(kept: Result<T>) -> Option<T> {
    kept.inspect_err(|error| {
        eprint(format_args!(
            "warning: {error:#}: a reboot would lose settings from flags (put them into the config file), and an invalid list would bring an older policy back"
        ));
    })
    .ok()
}

/// Keeps each of `lists`, which `by` put in force, in its history. A list that is not the one of
/// its file, which cannot be used, came into force before.
pub(crate) fn record_history(context: &Context, lists: &Lists, by: &Author) {
    let files = context.list_files();
    for (name, file) in lists.iter() {
        let path = files.file(name);
        if read_ranges(&path).is_ok_and(|now| now.as_ref() == Some(file)) {
            History::of(&path).record(by);
        }
    }
}

/// Whether a boot may fall back to a policy made from this.
pub(crate) fn is_saved(basis: Basis) -> bool {
    matches!(basis, Basis::Files | Basis::LastInForce)
}

/// The lists with this digest, from their files, the saved policy or the history of one list. The
/// off switch is not taken from the history: after a first attach on trial was rolled back, it is
/// in force, and no operator wrote it.
pub(crate) fn known_lists(context: &Context, digest: [u8; 32]) -> Option<Lists> {
    let is_it = |lists: &Lists| !lists.is_empty() && lists.digest() == digest;
    let now = context.read_lists().ok().map(|read| read.lists);
    if let Some(now) = now.clone().filter(is_it) {
        return Some(now);
    }
    let saved = Some(context.last_good()).filter(is_it);
    if saved.is_some() || digest == List::Off.digest() {
        return saved;
    }
    let now = now?;
    former_lists(context, &now).find(is_it)
}

/// The lists `now` with one of them as it was before, the newest first.
pub(crate) fn former_lists(context: &Context, now: &Lists) -> impl Iterator<Item = Lists> {
    let files = context.list_files();
    let mut names: Vec<ListName> = now.iter().map(|(name, _)| name.clone()).collect();
    if names.iter().all(|name| !name.is_default()) {
        names.push(ListName::default());
    }
    names.into_iter().flat_map(move |name| {
        let before = History::of(&files.file(&name)).before().unwrap_or_default();
        let read = before.into_iter().filter_map(|kept| kept.read().ok());
        read.map(|file| now.with(&name, file)).collect::<Vec<_>>()
    })
}

/// Saves the policy in force if its list is known and another policy is saved. This follows a
/// confirmation, and a writer that died before it saved its policy.
pub(crate) fn save_policy_in_force(context: &Context, maps: &Maps) {
    let read = || {
        let slot = maps.active_slot()?;
        let (record, settings) = (maps.record(slot)?, maps.settings(slot)?);
        let lists = is_saved(Basis::of(record.basis)).then(|| known_lists(context, record.list));
        anyhow::Ok(lists.flatten().map(|lists| (lists, settings)))
    };
    let Ok(Some((lists, settings))) = read() else {
        return;
    };
    let store = PolicyStore::new(&context.config.state_dir);
    let cluster = context.read_cluster(settings.cluster_files()).lists;
    let is_it = |kept: SavedPolicy| {
        kept.settings == settings && kept.lists == lists && kept.cluster == cluster
    };
    if !store.read().is_ok_and(|kept| kept.is_some_and(is_it)) {
        let kept = keep(context, &lists, (&settings, &cluster), false);
        kept.and_then(|kept| report_unsaved(kept.commit()));
    }
}
