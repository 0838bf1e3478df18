//! Whether this network namespace rewrites the destinations of what comes in, behind the hook that the filter is on.

use std::{collections::BTreeSet, fs};

use anyhow::Result;

use crate::nfnetlink::{attribute, dump, number, text};

/// What may rewrite destinations here, in words: chains of nftables, tables of iptables, IPVS. What cannot be asked is not there.
pub fn rewriters() -> Vec<String> {
    let mut found: Vec<String> = nft_chains().unwrap_or_default().into_iter().collect();
    for (file, program) in [
        ("ip_tables_names", "iptables"),
        ("ip6_tables_names", "ip6tables"),
    ] {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        if tables.is_ok_and(|tables| tables.lines().any(|table| table == "nat")) {
            found.push(format!("{program} table `nat`"));
        }
    }
    // Three lines say what the columns are.
    let services = fs::read_to_string("/proc/thread-self/net/ip_vs");
    if services.is_ok_and(|services| services.lines().count() > 3) {
        found.push("IPVS".to_owned());
    }
    found
}

/// `NFNL_SUBSYS_NFTABLES`, and in it `NFT_MSG_GETCHAIN` (`linux/netfilter/nfnetlink.h`, `nf_tables.h`).
const GET_CHAIN: u16 = (10 << 8) | 4;
/// `NFTA_CHAIN_*`.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const USE: u16 = 6;
const TYPE: u16 = 7;
/// `NFTA_HOOK_HOOKNUM`, and `NF_INET_PRE_ROUTING` in it.
const HOOK_NUMBER: u16 = 1;
const PREROUTING: u32 = 0;

/// The chains of nftables that are of type `nat`, at prerouting, and not empty.
fn nft_chains() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    dump(GET_CHAIN, |_, attributes| found.extend(chain(attributes)))?;
    Ok(found)
}

/// The chain that has these attributes, in words, if it may rewrite destinations.
fn chain(attributes: &[u8]) -> Option<String> {
    let words = |kind| attribute(attributes, &[kind]).map(text);
    let hook = number(attribute(attributes, &[HOOK, HOOK_NUMBER])?)?;
    // Nothing jumps to a chain at a hook: what uses it are its rules.
    let rules = number(attribute(attributes, &[USE])?)?;
    let rewrites = words(TYPE)? == "nat" && hook == PREROUTING && rules > 0;
    rewrites.then(|| {
        format!(
            "nftables chain `{} {}`",
            words(TABLE).unwrap_or_default(),
            words(NAME).unwrap_or_default()
        )
    })
}
