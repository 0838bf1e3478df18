//! One row of the table, and the addresses, sources and helpers of every topic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::{
    Bytes,
    DropReason::{self, Unauthorized},
    Judgement, LinkHeader,
    PassReason::{self, Authorized, AuthorizedUnclassifiable, NotTcp, OtherPort},
    Verdict::{self, Drop, Pass},
};

use super::rules::Rules;
use crate::packets::{CLIENT_PORT, V4, V6};

/// One frame and its wanted verdict.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the row: `topic/description`.
    pub name: String,
    /// The first header of the device's frames.
    pub link_header: LinkHeader,
    /// The frame, from its MAC addresses on, or from its IP header on.
    pub frame: Vec<u8>,
    /// The policy in force.
    pub rules: Rules,
    /// The wanted verdict.
    pub want: Verdict,
}

impl Row {
    /// The frame in the form that both judges take.
    pub fn bytes(&self) -> Bytes<'_> {
        Bytes {
            link_header: self.link_header,
            bytes: &self.frame,
        }
    }
}

/// Address of the node, IPv4.
pub const NODE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// Address of the node, IPv6.
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Another address of the node, which [`Rules::Destinations`] does not guard.
pub const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// Another address of the node, which [`Rules::Destinations`] does not guard.
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);

/// The segment identifier at which the node's routes decapsulate IPv4 packets.
pub const SID4: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 4);
/// The segment identifier at which they decapsulate IPv6 packets.
pub const SID6: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 6);

/// The same by another kind of route.
pub const SID6_NEXT_HOP: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 0x66);

/// The source of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A source outside the authorized ranges.
    Unlisted,
    /// A source inside them.
    Listed,
}

impl Source {
    /// Both sources.
    pub const BOTH: [Self; 2] = [Self::Unlisted, Self::Listed];

    /// The IPv4 address.
    pub const fn v4(self) -> Ipv4Addr {
        match self {
            Self::Unlisted => Ipv4Addr::new(203, 0, 113, 9),
            Self::Listed => Ipv4Addr::new(198, 51, 100, 7),
        }
    }

    /// The IPv6 address.
    pub const fn v6(self) -> Ipv6Addr {
        match self {
            Self::Unlisted => Ipv6Addr::new(0x2001, 0xdb8, 0xbb, 0, 0, 0, 0, 9),
            Self::Listed => Ipv6Addr::new(0x2001, 0xdb8, 0xaa, 0, 0, 0, 0, 7),
        }
    }

    /// The word in a row's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::Listed => "listed",
        }
    }
}

/// An IPv4 packet from `source` to the node.
pub fn v4(source: Source) -> V4 {
    V4::new(source.v4(), NODE4)
}

/// An IPv6 packet from `source` to the node.
pub fn v6(source: Source) -> V6 {
    V6::new(source.v6(), NODE6)
}

/// A packet with a SYN to `port` of the node, of either family.
pub(super) fn syn_packet(v6_wanted: bool, source: Source, port: u16) -> Vec<u8> {
    if v6_wanted {
        v6(source).syn(CLIENT_PORT, port).packet()
    } else {
        v4(source).syn(CLIENT_PORT, port).packet()
    }
}

/// Names of the families, and whether it is IPv6.
pub(super) const FAMILIES: [(&str, bool); 2] = [("ipv4", false), ("ipv6", true)];

/// The rows so far.
#[derive(Default)]
pub(super) struct Rows(pub(super) Vec<Row>);

impl Rows {
    /// One frame under [`Rules::Enforce`].
    pub(super) fn add(&mut self, name: impl Into<String>, frame: Vec<u8>, want: Verdict) {
        self.under(Rules::Enforce, name, frame, want);
    }

    /// One frame under any policy.
    pub(super) fn under(
        &mut self,
        rules: Rules,
        name: impl Into<String>,
        frame: Vec<u8>,
        want: Verdict,
    ) {
        self.0.push(Row {
            name: name.into(),
            link_header: LinkHeader::Ethernet,
            frame,
            rules,
            want,
        });
    }

    /// The same frame from an unlisted and a listed source.
    pub(super) fn pair(
        &mut self,
        name: &str,
        frame: impl Fn(Source) -> Vec<u8>,
        unlisted: Verdict,
        listed: Verdict,
    ) {
        self.pair_under(Rules::Enforce, name, frame, unlisted, listed);
    }

    /// The same under any policy.
    pub(super) fn pair_under(
        &mut self,
        rules: Rules,
        name: &str,
        frame: impl Fn(Source) -> Vec<u8>,
        unlisted: Verdict,
        listed: Verdict,
    ) {
        for (source, want) in Source::BOTH.into_iter().zip([unlisted, listed]) {
            let name = format!("{name}/{}", source.word());
            self.under(rules, name, frame(source), want);
        }
    }

    /// A frame that carries TCP to a protected port.
    pub(super) fn segment(&mut self, name: &str, frame: impl Fn(Source) -> Vec<u8>) {
        self.pair(name, frame, Drop(Unauthorized), Pass(Authorized));
    }

    /// A frame that may carry TCP to a protected port: the source decides.
    pub(super) fn doubt(&mut self, name: &str, frame: impl Fn(Source) -> Vec<u8>, why: DropReason) {
        self.pair(name, frame, Drop(why), Pass(AuthorizedUnclassifiable));
    }

    /// A frame that must pass from any source.
    pub(super) fn ordinary(
        &mut self,
        name: &str,
        frame: impl Fn(Source) -> Vec<u8>,
        why: PassReason,
    ) {
        self.pair(name, frame, Pass(why), Pass(why));
    }

    /// A frame that must be dropped from any source.
    pub(super) fn hostile(
        &mut self,
        name: &str,
        frame: impl Fn(Source) -> Vec<u8>,
        why: DropReason,
    ) {
        self.pair(name, frame, Drop(why), Drop(why));
    }

    /// IPv6 packets after the headers of `chain`: the protected ports, their neighbours, and UDP.
    pub(super) fn chain(&mut self, name: &str, chain: impl Fn(V6) -> V6) {
        for port in [443, 6443] {
            self.segment(&format!("{name}/tcp-{port}"), |source| {
                chain(v6(source)).syn(CLIENT_PORT, port).frame()
            });
        }
        let other_port = |source| chain(v6(source)).syn(CLIENT_PORT, 6444).frame();
        self.ordinary(&format!("{name}/tcp-6444"), other_port, OtherPort);
        let udp = |source| chain(v6(source)).datagram(CLIENT_PORT, 6443, b"?").frame();
        self.ordinary(&format!("{name}/udp-6443"), udp, NotTcp);
    }
}

/// The seed of random tests: `$APIFENCE_TEST_SEED`, or a constant.
///
/// # Panics
///
/// If the variable is not a number.
pub fn seed() -> u64 {
    std::env::var("APIFENCE_TEST_SEED")
        .map_or(6443, |seed| seed.parse().expect("a seed is a number"))
}

/// An address as the policy compares it.
pub(super) fn ip(address: &str) -> IpAddr {
    address.parse().expect("the table writes addresses right")
}

/// The verdict of a judgement.
///
/// # Panics
///
/// If its index has no verdict.
pub fn verdict(judgement: &Judgement) -> Verdict {
    Verdict::from_index(judgement.verdict_index).expect("every judgement has a verdict")
}
