//! From arguments, the ranges file and the node to a policy, and a policy into force: what `attach` and `ranges` share.

use anyhow::Result;
use ipnet::IpNet;

use crate::{
    cli::PolicyArgs,
    config::Settings,
    datapath::Policy,
    net::Net,
    output::say,
    problem::{Problem, Refusals},
    ranges::{List, Refusal, Sources, compile, parse_list, parse_range, remarks},
};

/// The settings that `args` ask for.
pub(super) fn settings(args: &PolicyArgs) -> Result<Settings> {
    let mut refusals = Vec::new();
    let destinations = ranges("--destination", &args.destination, &mut refusals);
    let prefixes = ranges(
        "--outbound-ip-prefixes",
        &args.outbound_ip_prefixes,
        &mut refusals,
    );
    let cluster = ranges("--cluster-cidrs", &args.cluster_cidrs, &mut refusals);
    let addresses: Vec<String> = args.outbound_ips.iter().map(ToString::to_string).collect();
    let mut outbound = ranges("--outbound-ips", &addresses, &mut refusals);
    outbound.extend(prefixes);
    if !refusals.is_empty() {
        return Err(Refusals { list: refusals }.into());
    }
    Ok(Settings {
        ports: args.port.iter().copied().collect(),
        destinations,
        mode: args.mode,
        node_addresses: !args.no_node_addresses,
        outbound,
        cluster,
        max_ranges: args.max_ranges,
    })
}

fn ranges(flag: &str, texts: &[String], refusals: &mut Vec<(String, String)>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in texts {
        match parse_range(text) {
            Ok(range) => ranges.push(range),
            Err(refusal) => refusals.push((format!("{flag}: {}", refusal.cause), refusal.hint)),
        }
    }
    ranges
}

/// A list typed on the command line.
pub(super) fn typed_list(text: &str) -> Result<List> {
    parse_list(text).map_err(refused)
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
            "raise it with `apifence attach --max-ranges N`, up to 1000000; nothing changed",
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
    Ok(Policy {
        settings: settings.clone(),
        enforced: *list != List::Off,
        list: list.digest(),
        sources: compile(list.entries(), &implicit),
    })
}
