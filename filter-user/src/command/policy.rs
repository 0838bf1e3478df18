//! From settings, the ranges file and the node to a policy, and a policy into force: what `attach` and `ranges` share.

use anyhow::Result;

use crate::{
    cli::PolicyArgs,
    config::Settings,
    datapath::Policy,
    net::Net,
    output::say,
    problem::{Problem, Refusals},
    ranges::{List, Refusal, Sources, compile, parse_list, remarks},
};

/// A list typed on the command line. An empty one switches enforcement off, and an unset variable looks the same: it is taken if it
/// is insisted on with `force`.
pub(super) fn typed_list(text: &str, force: bool) -> Result<List> {
    if is_empty(text) && !(force && text.trim().is_empty()) {
        return Err(Problem::input(
            "set ranges: the list is empty, which would switch enforcement off",
            "an unset variable looks the same; if it is meant: `apifence ranges clear`, or an empty list with `--force`; nothing changed",
        ));
    }
    parse_list(text).map_err(refused)
}

/// The list that a service was started with. Nobody is there to insist on an empty one: it counts as none.
pub(super) fn typed_for_service(args: &PolicyArgs) -> Option<&str> {
    let typed = args.authorized_ip_ranges.as_deref();
    if typed.is_some_and(is_empty) {
        say(
            "warning: `--authorized-ip-ranges` is empty, as an unset variable is: it counts as not given; `apifence ranges clear` switches enforcement off",
        );
    }
    typed.filter(|text| !is_empty(text))
}

/// Whether a list has nothing but separators.
fn is_empty(text: &str) -> bool {
    text.chars()
        .all(|letter| letter == ',' || letter.is_whitespace())
}

/// Refusals of something typed, as an error.
pub(super) fn refused(refusals: Vec<Refusal>) -> anyhow::Error {
    Refusals {
        list: refusals
            .into_iter()
            .map(|refusal| (refusal.cause, refusal.hint))
            .collect(),
    }
    .into()
}

/// Refuses a list that is too long, and says what is remarkable about one that is not.
pub(super) fn examine(list: &List, max_ranges: u32) -> Result<()> {
    let entries = list.entries();
    if entries.len() > max_ranges as usize {
        return Err(Problem::input(
            format!(
                "set ranges: the list has {} entries, and the most is {max_ranges}",
                entries.len()
            ),
            "raise `max_ranges` in the config file and attach again, or `apifence attach --max-ranges N`; up to 1000000; nothing changed",
        ));
    }
    remarks(entries).iter().for_each(say);
    Ok(())
}

/// The policy of `list` under `settings`, on this node as it is now.
pub(super) async fn policy(net: &Net, list: &List, settings: &Settings) -> Result<Policy> {
    let implicit = Sources {
        node: if settings.node_addresses {
            net.node_addresses().await?
        } else {
            Vec::new()
        },
        outbound: settings.outbound.clone(),
        cluster: settings.cluster.clone(),
    };
    Ok(Policy::new(
        settings.clone(),
        *list != List::Off,
        list.digest(),
        compile(list.entries(), &implicit),
    ))
}
