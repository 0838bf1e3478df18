//! Which protected ports the rules of nftables give to somebody else, as far as they are understood. What is not understood, as sets and maps,
//! says nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use crate::nfnetlink::{attribute, attributes, dump, number, text};

/// A port that is rewritten to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// The port.
    pub port: u16,
    /// The chain that packets come into.
    pub chain: String,
}

/// Which of `asked` lead to somebody else: their destination is rewritten whatever address they are sent to, or one of this node's own, which
/// `is_own` tells, and not to another of the protected `ports`. A single other address, as that of a service is, is its owner's.
pub fn diverted(
    asked: &BTreeSet<u16>,
    ports: &BTreeSet<u16>,
    is_own: &dyn Fn(IpAddr) -> bool,
) -> Vec<Diversion> {
    let mut chains = Chains::default();
    // What the kernel does not tell is not there.
    let _ = dump(GET_RULE, |family, attributes| {
        if let Some((place, rule)) = Rule::read(family, attributes, ports, is_own) {
            chains.0.entry(place).or_default().push(rule);
        }
    });
    let mut found = Vec::new();
    for (family, table, chain) in super::entries() {
        let place = (family, table.clone(), chain.clone());
        let diverted = asked
            .iter()
            .filter(|port| chains.divert(&place, **port, false, 0));
        found.extend(diverted.map(|port| Diversion {
            port: *port,
            chain: format!("{table} {chain}"),
        }));
    }
    found.dedup_by_key(|diversion| diversion.port);
    found
}

/// `NFT_MSG_GETRULE` of `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nf_tables.h`).
const GET_RULE: u16 = (10 << 8) | 7;
/// `NFTA_RULE_*`.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_*`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// Family, table and chain.
type Place = (u8, String, String);

#[derive(Default)]
struct Chains(BTreeMap<Place, Vec<Rule>>);

impl Chains {
    /// Whether packets to `port` that come into the chain are rewritten; `asked` tells whether a rule on their way asked for the port.
    fn divert(&self, place: &Place, port: u16, asked: bool, depth: u8) -> bool {
        /// The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
        const DEEPEST: u8 = 16;
        let rules = self.0.get(place).into_iter().flatten();
        depth <= DEEPEST
            && rules.filter(|rule| rule.ports.contains(&port)).any(|rule| {
                let asked = asked || rule.asks;
                let next = rule
                    .jump
                    .clone()
                    .map(|chain| (place.0, place.1.clone(), chain));
                (rule.rewrites && asked)
                    || next.is_some_and(|next| self.divert(&next, port, asked, depth + 1))
            })
    }
}

/// What is understood of a rule.
struct Rule {
    /// The ports that it is about.
    ports: RangeInclusive<u16>,
    /// Whether it asks for ports at all.
    asks: bool,
    /// Whether it rewrites the destination.
    rewrites: bool,
    /// The chain that it goes on in.
    jump: Option<String>,
}

/// What was loaded last.
enum Loaded {
    Port,
    Address,
    Protocol,
    Other,
}

impl Rule {
    /// The rule and its place; `None` if it is not about TCP, or about one address of somebody else, or leads to one of the protected `ports`.
    fn read(
        family: u8,
        rule: &[u8],
        ports: &BTreeSet<u16>,
        is_own: &dyn Fn(IpAddr) -> bool,
    ) -> Option<(Place, Self)> {
        let words = |kind| attribute(rule, &[kind]).map(text);
        let place = (family, words(TABLE)?, words(CHAIN)?);
        let mut found = Self {
            ports: 0..=u16::MAX,
            asks: false,
            rewrites: false,
            jump: None,
        };
        let mut loaded = Loaded::Other;
        for (_, expression) in attributes(attribute(rule, &[EXPRESSIONS])?) {
            let name = text(attribute(expression, &[NAME])?);
            let data = attribute(expression, &[DATA]).unwrap_or_default();
            let word = |kind| attribute(data, &[kind]).and_then(number);
            match &*name {
                // Base, offset, length.
                "payload" => {
                    loaded = match [2, 3, 4].map(word) {
                        [Some(2), Some(2), Some(2)] => Loaded::Port,
                        [Some(1), Some(16), Some(4)] | [Some(1), Some(24), Some(16)] => {
                            Loaded::Address
                        }
                        [Some(1), Some(9), Some(1)] => Loaded::Protocol,
                        _ => Loaded::Other,
                    };
                }
                // `NFT_META_L4PROTO`.
                "meta" if word(2) == Some(16) => loaded = Loaded::Protocol,
                "cmp" => {
                    let value = attribute(data, &[3, 1])?;
                    found.compare(&loaded, word(2)?, value, is_own)?;
                }
                "match" => {
                    if text(attribute(data, &[1])?) == "tcp" {
                        // `struct xt_tcp`: source ports from and to, destination ports from and to, in the order of the machine.
                        let info = attribute(data, &[3])?;
                        let port = |at: usize| {
                            Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
                        };
                        found.narrow(port(4)?..=port(6)?);
                    }
                }
                // `NFT_NAT_DNAT`.
                "nat" => found.rewrites |= word(1) == Some(1),
                "redir" => found.rewrites = true,
                "target" => {
                    let target = text(attribute(data, &[1])?);
                    found.rewrites |= ["DNAT", "REDIRECT"].contains(&&*target);
                }
                "immediate" => {
                    let value = attribute(data, &[2, 1]);
                    let port =
                        value.and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
                    if port.is_some_and(|port| ports.contains(&port)) {
                        return None;
                    }
                    found.jump = attribute(data, &[2, 2, 2]).map(text).or(found.jump);
                }
                _ => loaded = Loaded::Other,
            }
        }
        Some((place, found))
    }

    /// Takes a comparison into account; `None` if it leaves nothing that is to be found.
    fn compare(
        &mut self,
        loaded: &Loaded,
        operator: u32,
        value: &[u8],
        is_own: &dyn Fn(IpAddr) -> bool,
    ) -> Option<()> {
        // `NFT_CMP_EQ`, `_NEQ`, `_LT`, `_LTE`, `_GT`, `_GTE`.
        match (loaded, operator) {
            (Loaded::Port, _) => {
                let port = u16::from_be_bytes(value.try_into().ok()?);
                match operator {
                    0 => self.narrow(port..=port),
                    2 => self.narrow(0..=port.checked_sub(1)?),
                    3 => self.narrow(0..=port),
                    4 => self.narrow(port.checked_add(1)?..=u16::MAX),
                    5 => self.narrow(port..=u16::MAX),
                    _ => {}
                }
            }
            (Loaded::Protocol, 0) if *value != [TCP] => return None,
            (Loaded::Address, 0) => {
                let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
                let v6 = <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into());
                if !is_own(v4.or(v6).ok()?) {
                    return None;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn narrow(&mut self, to: RangeInclusive<u16>) {
        let from = *self.ports.start().max(to.start());
        self.ports = from..=*self.ports.end().min(to.end());
        self.asks = true;
    }
}
