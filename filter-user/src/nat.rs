//! Whether this network namespace rewrites the destinations of what comes in, behind the hook that the filter is on.

use std::{collections::BTreeSet, fs, io};

use anyhow::{Context as _, Result};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

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
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const FAMILY: usize = 4;
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
    let socket = Socket::new(NETLINK_NETFILTER)?;
    let mut request = Vec::new();
    request.extend(((HEADER + FAMILY) as u32).to_ne_bytes());
    request.extend(GET_CHAIN.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence number and port; then all families, version 0, no resource.
    request.extend([0; 8 + FAMILY]);
    socket.send(&request, 0)?;
    let mut found = BTreeSet::new();
    loop {
        let (datagram, _) = match socket.recv_from_full() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let (kind, message, behind) = message(rest).context("read the kernel's answer")?;
            match kind {
                DONE => return Ok(found),
                ERROR => anyhow::bail!("the kernel does not tell its chains"),
                _ => found.extend(message.get(FAMILY..).and_then(chain)),
            }
            rest = behind;
        }
    }
}

/// The type and the content of the first message in `bytes`, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let content = bytes.get(HEADER..len)?;
    Some((
        kind,
        content,
        bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// The content of the attribute `wanted` among those in `bytes`.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let content = bytes.get(4..len)?;
        if kind == wanted {
            return Some(content);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

/// The chain that has these attributes, in words, if it may rewrite destinations.
fn chain(attributes: &[u8]) -> Option<String> {
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let text = |kind| {
        let bytes = attribute(attributes, kind)?;
        Some(String::from_utf8_lossy(
            bytes.strip_suffix(&[0]).unwrap_or(bytes),
        ))
    };
    let hook = number(attribute(attribute(attributes, HOOK)?, HOOK_NUMBER)?)?;
    // Nothing jumps to a chain at a hook: what uses it are its rules.
    let rules = number(attribute(attributes, USE)?)?;
    let rewrites = text(TYPE)? == "nat" && hook == PREROUTING && rules > 0;
    rewrites.then(|| {
        format!(
            "nftables chain `{} {}`",
            text(TABLE).unwrap_or_default(),
            text(NAME).unwrap_or_default()
        )
    })
}
