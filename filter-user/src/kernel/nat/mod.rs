//! Whether this network namespace rewrites destinations of incoming packets after the filter's
//! hook.

mod packet;
mod registers;
mod rules;
mod sets;
mod xtables;

pub use self::{
    packet::Ingress,
    rules::{Diversion, Query, diverted},
};

use std::{collections::BTreeSet, fs};

use super::net::nfnetlink::{attribute, dump, number, text};

/// Everything that may rewrite destinations here, in words: chains of nftables, tables of iptables,
/// IPVS. A source that cannot be read counts as absent.
pub fn rewriters() -> Vec<String> {
    let mut found: Vec<String> = nft_chains().into_iter().collect();
    let programs = legacy().into_iter();
    found.extend(programs.map(|program| format!("{program} table `nat`")));
    // The first three lines are column headings.
    let services = fs::read_to_string("/proc/thread-self/net/ip_vs");
    if services.is_ok_and(|services| services.lines().count() > 3) {
        found.push("IPVS".to_owned());
    }
    found
}

/// The legacy iptables programs (older than nftables) that have a `nat` table here. Netlink does
/// not show its content.
pub fn legacy() -> Vec<&'static str> {
    let programs = [
        ("ip_tables_names", "iptables"),
        ("ip6_tables_names", "ip6tables"),
    ];
    let has_one = |file: &str| {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        tables.is_ok_and(|tables| tables.lines().any(|table| table == "nat"))
    };
    let found = programs.into_iter().filter(|(file, _)| has_one(file));
    found.map(|(_, program)| program).collect()
}

/// `NFNL_SUBSYS_NFTABLES`, and in it `NFT_MSG_GETCHAIN` (`linux/netfilter/nfnetlink.h`,
/// `nf_tables.h`).
const GET_CHAIN: u16 = (10 << 8) | 4;
/// `NFTA_CHAIN_*`.
const PREFILTER: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const USE: u16 = 6;
const TYPE: u16 = 7;
/// `NFTA_HOOK_HOOKNUM`, and `NF_INET_PRE_ROUTING` in it.
const HOOK_NUMBER: u16 = 1;
const PREROUTING: u32 = 0;

/// The non-empty nftables chains of type `nat` at prerouting, in words.
fn nft_chains() -> BTreeSet<String> {
    let chains = entries().into_iter();
    chains
        .map(|(_, table, name)| format!("nftables chain `{table} {name}`"))
        .collect()
}

/// The same chains as family, table and name; empty if the kernel does not list them.
fn entries() -> BTreeSet<(u8, String, String)> {
    let mut found = BTreeSet::new();
    let _ = dump(GET_CHAIN, |family, attributes| {
        found.extend(chain(attributes).map(|(table, name)| (family, table, name)));
    });
    found
}

/// Table and name of the chain with these attributes, if it may rewrite destinations.
fn chain(attributes: &[u8]) -> Option<(String, String)> {
    let words = |kind| attribute(attributes, &[kind]).map(text);
    let hook = number(attribute(attributes, &[HOOK, HOOK_NUMBER])?)?;
    // Nothing jumps to a chain at a hook, so its use count is the number of its rules.
    let rules = number(attribute(attributes, &[USE])?)?;
    let rewrites = words(TYPE)? == "nat" && hook == PREROUTING && rules > 0;
    rewrites.then(|| {
        (
            words(PREFILTER).unwrap_or_default(),
            words(NAME).unwrap_or_default(),
        )
    })
}
