//! The protected ports whose packets nftables rules rewrite to another server. Each rule is
//! evaluated with a packet to the port. An expression that is not understood, such as a set of
//! iptables, is ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::ControlFlow,
};

use super::{
    packet::{Byte, Fit, Ingress, Packet, between, equal, opposite},
    registers::{Registers, word_at},
    sets::{Sets, value, verdict},
    xtables,
};
use crate::kernel::net::nfnetlink::{attribute, attributes, dump, text};

/// A port whose packets are rewritten to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// The port.
    pub port: u16,
    /// The chain in which the rewriting starts.
    pub chain: String,
}

/// Input of the evaluation.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The ports to check.
    pub candidates: &'a BTreeSet<u16>,
    /// All protected ports.
    pub ports: &'a BTreeSet<u16>,
    /// The addresses of this node.
    pub own: &'a BTreeSet<IpAddr>,
    /// The guarded ones among them.
    pub targets: Vec<IpAddr>,
    /// The interfaces that packets arrive on after they passed the filter.
    pub ingresses: Vec<Ingress>,
}

/// The ports whose packets go to another server.
///
/// A port is reported if packets of any client to one of this node's addresses over one of the
/// interfaces are rewritten, and not to a port of the API server. A rule for some clients only, or
/// for a service's address, is left to its owner.
pub fn diverted(query: &Query<'_>) -> Vec<Diversion> {
    let mut chains = Chains {
        query,
        rules: BTreeMap::new(),
        sets: Sets::default(),
    };
    // Rules that the kernel does not list count as absent.
    let _ = dump(GET_RULE, |family, attributes| {
        let words = |kind| attribute(attributes, &[kind]).map(text);
        if let (Some(table), Some(chain), Some(rule)) = (
            words(PREFILTER),
            words(CHAIN),
            attribute(attributes, &[EXPRESSIONS]),
        ) {
            let place = (family, table, chain);
            chains.rules.entry(place).or_default().push(rule.to_vec());
        }
    });
    let entries = super::entries();
    let is_diverted = |port: u16, place: &ChainKey| {
        let ingresses = query.ingresses.iter();
        let mut packets = ingresses.flat_map(|ingress| {
            let targets = query.targets.iter();
            targets.map(move |target| Packet::new(*target, port, ingress))
        });
        packets.any(|packet| {
            let sees = [INET, packet.family()].contains(&place.0);
            sees && chains.walk(place, &packet, false, 0) == Fate::Diverted
        })
    };
    let found = query.candidates.iter().filter_map(|port| {
        let place = entries.iter().find(|place| is_diverted(*port, place))?;
        Some(Diversion {
            port: *port,
            chain: format!("{} {}", place.1, place.2),
        })
    });
    found.collect()
}

/// `NFT_MSG_GETRULE` of `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nf_tables.h`).
const GET_RULE: u16 = (10 << 8) | 7;
/// `NFTA_RULE_*`.
const PREFILTER: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_*`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// Too many other services use it: a rewrite to it need not lead to an API server.
const HTTPS: u16 = 443;

/// Family, table and chain.
type ChainKey = (u8, String, String);

struct Chains<'a> {
    query: &'a Query<'a>,
    rules: BTreeMap<ChainKey, Vec<Vec<u8>>>,
    sets: Sets,
}

/// The fate of a packet in a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes to another server.
    Diverted,
    /// No further rule sees it.
    Final,
    /// The next rule sees it.
    Continue,
}

/// The effect of a rule.
enum Action {
    Divert,
    Stop,
    Return,
    Jump(String),
    Goto(String),
}

/// The effect of a rule on a packet that it matches.
struct RuleEffect {
    fit: Fit,
    /// Whether it, or a rule on the way to it, tested the port.
    tests_port: bool,
    actions: Vec<Action>,
}

impl Chains<'_> {
    /// The fate of the packet; `tests_port` tells whether a rule on its way tested the port.
    fn walk(&self, place: &ChainKey, packet: &Packet<'_>, tests_port: bool, depth: u8) -> Fate {
        /// The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
        const MAX_DEPTH: u8 = 16;
        if depth > MAX_DEPTH {
            return Fate::Continue;
        }
        for rule in self.rules.get(place).into_iter().flatten() {
            let Some(effect) = self.rule(place, rule, packet, tests_port) else {
                continue;
            };
            let chain = |name: String| {
                let next = (place.0, place.1.clone(), name);
                self.walk(&next, packet, effect.tests_port, depth + 1)
            };
            let is_certain = effect.fit == Fit::Yes && effect.actions.len() == 1;
            for action in effect.actions {
                let (fate, goes) = match action {
                    Action::Divert if effect.tests_port => return Fate::Diverted,
                    Action::Divert | Action::Stop => (Fate::Final, false),
                    Action::Return => (Fate::Continue, true),
                    Action::Jump(name) => (chain(name), false),
                    Action::Goto(name) => (chain(name), true),
                };
                match fate {
                    Fate::Diverted => return Fate::Diverted,
                    Fate::Final if is_certain => return Fate::Final,
                    Fate::Continue if is_certain && goes => return Fate::Continue,
                    _ => {}
                }
            }
        }
        Fate::Continue
    }

    /// The effect of the rule on the packet; `None` if it does not match.
    fn rule(
        &self,
        place: &ChainKey,
        rule: &[u8],
        packet: &Packet<'_>,
        tests_port: bool,
    ) -> Option<RuleEffect> {
        let mut effect = RuleEffect {
            fit: Fit::Yes,
            tests_port,
            actions: Vec::new(),
        };
        let mut registers = Registers::default();
        for (_, expression) in attributes(rule) {
            let name = text(attribute(expression, &[NAME])?);
            let data = attribute(expression, &[DATA]).unwrap_or_default();
            match &*name {
                "payload" | "meta" | "ct" | "fib" | "numgen" | "hash" | "bitwise" => {
                    registers.load(&name, data, packet)?;
                }
                "cmp" | "range" | "match" | "limit" | "quota" | "connlimit" => {
                    effect.test(&name, data, packet, &registers)?;
                }
                "lookup" => {
                    if self
                        .look_up(place, data, &mut effect, &mut registers)?
                        .is_break()
                    {
                        return Some(effect);
                    }
                }
                "immediate" => {
                    let to = word_at(data, 1)?;
                    let data = attribute(data, &[2])?;
                    if to != 0 {
                        registers.set_known(to, value(data)?);
                    } else if let Some(action) = verdict(data).and_then(action) {
                        effect.actions.push(action);
                        return Some(effect);
                    }
                }
                "nat" | "redir" | "target" => {
                    let action = match &*name {
                        "nat" => self.nat(data, packet, &registers)?,
                        "redir" => Some(self.redirect(data, packet, &registers)),
                        _ => self.target(data, packet),
                    };
                    if let Some(action) = action {
                        effect.actions.push(action);
                        return Some(effect);
                    }
                }
                "counter" | "log" | "notrack" | "masq" | "objref" | "dynset" | "last" | "dup" => {}
                _ => registers = Registers::default(),
            }
        }
        Some(effect)
    }

    /// A lookup in a set or a map. Breaks after a verdict map; `None` if the rule does not match.
    fn look_up(
        &self,
        place: &ChainKey,
        data: &[u8],
        effect: &mut RuleEffect,
        registers: &mut Registers,
    ) -> Option<ControlFlow<()>> {
        let word = |kind| word_at(data, kind);
        let set = text(attribute(data, &[1])?);
        let key = registers.get(word(2)?, 64);
        let found = self.sets.find((place.0, &place.1, &set), &key);
        let fit = found.iter().map(|(fit, _)| *fit).max().unwrap_or(Fit::No);
        // `NFT_LOOKUP_F_INV`.
        if word(5).is_some_and(|flags| flags & 1 != 0) {
            effect.needs(opposite(&key[..4], fit))?;
            return Some(ControlFlow::Continue(()));
        }
        effect.needs(fit)?;
        effect.tests_port |= registers.has_port(word(2)?);
        match word(3) {
            None => {}
            Some(0) => {
                let verdicts = found.iter().filter_map(|(_, data)| verdict(data));
                effect.actions.extend(verdicts.filter_map(action));
                return Some(ControlFlow::Break(()));
            }
            Some(to) => match &found[..] {
                [(Fit::Yes, data)] => registers.set_known(to, value(data)?),
                _ => registers.set(to, &[Byte::Any; 32]),
            },
        }
        Some(ControlFlow::Continue(()))
    }

    /// The action of `nat`: inner `None` if it rewrites sources, outer `None` if the rule is for
    /// the other family.
    fn nat(
        &self,
        data: &[u8],
        packet: &Packet<'_>,
        registers: &Registers,
    ) -> Option<Option<Action>> {
        let word = |kind| word_at(data, kind);
        // `NFT_NAT_DNAT`; registers of address and port.
        if word(1) != Some(1) {
            return Some(None);
        }
        let family = word(2).and_then(|family| u8::try_from(family).ok());
        if family.is_some_and(|family| family != packet.family()) {
            return None;
        }
        let address = word(3).map(|from| registers.address(from, packet));
        let port = word(5).map(|from| registers.port(from));
        Some(Some(self.rewrite(packet, address, port)))
    }

    fn redirect(&self, data: &[u8], packet: &Packet<'_>, registers: &Registers) -> Action {
        let port = word_at(data, 1).map(|from| registers.port(from));
        self.rewrite(packet, None, port)
    }

    /// The action of a target of iptables; `None` if it rewrites no destination.
    fn target(&self, data: &[u8], packet: &Packet<'_>) -> Option<Action> {
        let (address, port) = xtables::rewritten(data, packet.family())?;
        Some(self.rewrite(packet, address.map(Some), port.map(Some)))
    }

    /// The destination after rewriting: outer `None` if it stays or is this node, inner `None` if
    /// it is not known.
    fn rewrite(
        &self,
        packet: &Packet<'_>,
        address: Option<Option<IpAddr>>,
        port: Option<Option<u16>>,
    ) -> Action {
        let Query { ports, own, .. } = self.query;
        let is_own = match address {
            None => true,
            Some(address) => address.is_some_and(|address| own.contains(&address)),
        };
        let port = port.unwrap_or(Some(packet.port));
        let is_server = port.is_some_and(|port| ports.contains(&port) && (is_own || port != HTTPS));
        if is_server {
            Action::Stop
        } else {
            Action::Divert
        }
    }
}

/// The effect of a verdict.
fn action((code, chain): (i32, Option<String>)) -> Option<Action> {
    // `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`; `NF_DROP`, `NF_ACCEPT`.
    Some(match (code, chain) {
        (-3, Some(chain)) => Action::Jump(chain),
        (-4, Some(chain)) => Action::Goto(chain),
        (-5, _) => Action::Return,
        (0 | 1, _) => Action::Stop,
        _ => return None,
    })
}

impl RuleEffect {
    /// Adds the condition of an expression; `None` if it does not hold.
    fn test(
        &mut self,
        name: &str,
        data: &[u8],
        packet: &Packet<'_>,
        registers: &Registers,
    ) -> Option<()> {
        let word = |kind| word_at(data, kind);
        let bytes = |kind| attribute(data, &[kind, 1]).unwrap_or_default();
        match name {
            "cmp" => {
                let wanted = bytes(3);
                let key = registers.get(word(1)?, wanted.len());
                self.compare(&key, word(2)?, wanted, wanted)
            }
            "range" => {
                let (from, to) = (bytes(3), bytes(4));
                let key = registers.get(word(1)?, from.len());
                self.compare(&key, word(2)?, from, to)
            }
            "match" => {
                let (fit, has_port) = xtables::fits(data, packet)?;
                self.needs(fit)?;
                self.tests_port |= has_port;
                Some(())
            }
            // A limit, which holds for some packets.
            _ => self.needs(Fit::Maybe),
        }
    }

    /// Adds a condition; `None` if it does not hold.
    fn needs(&mut self, fit: Fit) -> Option<()> {
        self.fit = self.fit.min(fit);
        (fit != Fit::No).then_some(())
    }

    /// A comparison by `NFT_CMP_*` or `NFT_RANGE_*`.
    fn compare(&mut self, key: &[Byte], operator: u32, from: &[u8], to: &[u8]) -> Option<()> {
        let least = vec![0; from.len()];
        let most = vec![u8::MAX; from.len()];
        let is_equal = || equal(key, from);
        let fit = match operator {
            0 => between(key, from, to),
            1 => opposite(key, between(key, from, to)),
            2 | 3 => between(key, &least, from),
            4 | 5 => between(key, from, &most),
            _ => Fit::No,
        };
        let excluded = [2, 4].contains(&operator) && is_equal() == Fit::Yes;
        self.needs(if excluded { Fit::No } else { fit })?;
        self.tests_port |= operator != 1 && key.iter().any(|byte| matches!(byte, Byte::Port(_)));
        Some(())
    }
}
