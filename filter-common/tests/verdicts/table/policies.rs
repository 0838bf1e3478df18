//! Verdicts of policies on the same packet: edges of ranges, families, destinations, modes, ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::{
    DropReason::{
        self, IncompleteFirstFragment, Malformed, MisplacedFragment, Truncated, Unauthorized,
    },
    PassReason::{Authorized, AuthorizedUnclassifiable, EnforcementOff, NotIp, NotTcp, OtherPort},
    Verdict::{self, Drop, Pass, WouldDrop},
};
use ipnet::IpNet;

use super::{
    row::{NODE4, NODE6, Rows, Source, ip, v4, v6},
    rules::{RANGES, Rules},
};
use crate::packets::{
    CLIENT_PORT, TCP, V4, V6,
    ethernet::{TAG_8021Q, tagged_as},
};

pub(super) fn add(rows: &mut Rows) {
    edges(rows);
    everybody(rows);
    modes(rows);
    ports(rows);
    guards(rows);
    unfilled(rows);
}

fn syn_from(source: IpAddr, port: u16) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => V4::new(source, NODE4).syn(CLIENT_PORT, port).frame(),
        IpAddr::V6(source) => V6::new(source, NODE6).syn(CLIENT_PORT, port).frame(),
    }
}

/// The first and the last address of each range, and their neighbours outside.
fn edges(rows: &mut Rows) {
    for range in RANGES {
        let net: IpNet = range.parse().expect("the table writes ranges right");
        let (first, last) = (net.network(), net.broadcast());
        for (name, source, want) in [
            ("first", first, Pass(Authorized)),
            ("last", last, Pass(Authorized)),
            ("before-the-first", step(first, false), Drop(Unauthorized)),
            ("behind-the-last", step(last, true), Drop(Unauthorized)),
        ] {
            for port in [443, 6443] {
                let name = format!("policies/edge/{range}/{name}/tcp-{port}");
                rows.add(name, syn_from(source, port), want);
            }
            let frame = syn_from(source, 80);
            rows.add(
                format!("policies/edge/{range}/{name}/tcp-80"),
                frame,
                Pass(OtherPort),
            );
        }
    }
}

/// The next address up or down.
fn step(address: IpAddr, up: bool) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let number = u32::from(address);
            Ipv4Addr::from(if up { number + 1 } else { number - 1 }).into()
        }
        IpAddr::V6(address) => {
            let number = u128::from(address);
            Ipv6Addr::from(if up { number + 1 } else { number - 1 }).into()
        }
    }
}

/// Whole families: prefixes of length zero, and none.
fn everybody(rows: &mut Rows) {
    let sources = [
        "0.0.0.0",
        "0.0.0.1",
        "1.2.3.4",
        "127.0.0.1",
        "128.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:198.51.100.7",
        "2001:db8:bb::9",
        "7fff::",
        "8000::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    for source in sources {
        for (rules, v4, v6) in [
            (Rules::Anyone, true, true),
            (Rules::AnyoneV4, true, false),
            (Rules::AnyoneV6, false, true),
            (Rules::Nobody, false, false),
        ] {
            let address = ip(source);
            let in_range = if address.is_ipv4() { v4 } else { v6 };
            // A list that authorizes no client can only be written as the range of this address.
            if rules == Rules::Nobody && source == "0.0.0.0" {
                continue;
            }
            let want = if in_range {
                Pass(Authorized)
            } else {
                Drop(Unauthorized)
            };
            rows.under(
                rules,
                format!("policies/{rules:?}/{source}"),
                syn_from(address, 6443),
                want,
            );
        }
    }
    // A packet whose source is never trusted is dropped under the widest list, too.
    let misplaced = v6(Source::Unlisted)
        .destination_options(8)
        .fragment(0, false, 1)
        .syn(CLIENT_PORT, 6443)
        .frame();
    rows.under(
        Rules::Anyone,
        "policies/Anyone/misplaced-fragment",
        misplaced,
        Drop(MisplacedFragment),
    );
}

/// A frame of every reason: with enforcement, in monitor mode, and off.
fn modes(rows: &mut Rows) {
    let cases: Vec<(&str, Vec<u8>, DropReason)> = vec![
        (
            "unauthorized-ipv4",
            v4(Source::Unlisted).syn(CLIENT_PORT, 443).frame(),
            Unauthorized,
        ),
        (
            "unauthorized-ipv6",
            v6(Source::Unlisted).syn(CLIENT_PORT, 6443).frame(),
            Unauthorized,
        ),
        (
            "malformed",
            v4(Source::Unlisted)
                .syn(CLIENT_PORT, 443)
                .version_ihl(0x44)
                .frame(),
            Malformed,
        ),
        (
            "truncated",
            v6(Source::Unlisted).syn(CLIENT_PORT, 443).cut(2).frame(),
            Truncated,
        ),
        (
            "incomplete-first-fragment",
            v6(Source::Unlisted)
                .fragment(0, true, 1)
                .announces(TCP)
                .frame(),
            IncompleteFirstFragment,
        ),
        (
            "headers-too-deep",
            tagged_as(0x0800, &vec![(TAG_8021Q, 0); 16_381], &[0; 40]),
            DropReason::HeadersTooDeep,
        ),
        (
            "misplaced-fragment",
            v6(Source::Listed)
                .destination_options(8)
                .fragment(0, false, 1)
                .syn(CLIENT_PORT, 443)
                .frame(),
            MisplacedFragment,
        ),
    ];
    for (name, frame, reason) in cases {
        rows.add(
            format!("policies/mode/enforce/{name}"),
            frame.clone(),
            Drop(reason),
        );
        rows.under(
            Rules::Monitor,
            format!("policies/mode/monitor/{name}"),
            frame.clone(),
            WouldDrop(reason),
        );
        rows.under(
            Rules::Off,
            format!("policies/mode/off/{name}"),
            frame,
            Pass(EnforcementOff),
        );
    }
    let others: [(&str, Vec<u8>, Verdict); 5] = [
        (
            "listed",
            v4(Source::Listed).syn(CLIENT_PORT, 443).frame(),
            Pass(Authorized),
        ),
        (
            "listed-doubt",
            v4(Source::Listed).syn(CLIENT_PORT, 443).cut(1).frame(),
            Pass(AuthorizedUnclassifiable),
        ),
        (
            "other-port",
            v4(Source::Unlisted).syn(CLIENT_PORT, 80).frame(),
            Pass(OtherPort),
        ),
        (
            "udp",
            v6(Source::Unlisted).datagram(CLIENT_PORT, 443, b"").frame(),
            Pass(NotTcp),
        ),
        ("arp", tagged_as(0x0806, &[], &[0; 28]), Pass(NotIp)),
    ];
    for (name, frame, want) in others {
        rows.under(
            Rules::Monitor,
            format!("policies/mode/monitor/{name}"),
            frame.clone(),
            want,
        );
        rows.under(
            Rules::Off,
            format!("policies/mode/off/{name}"),
            frame,
            Pass(EnforcementOff),
        );
    }
}

/// Ports of the user's choice, and the usual ones, which then are not protected.
fn ports(rows: &mut Rows) {
    for (port, protected) in [
        (0, false),
        (1, true),
        (2, false),
        (443, false),
        (6443, false),
        (8442, false),
        (8443, true),
        (65_534, false),
        (65_535, true),
    ] {
        for source in Source::BOTH {
            let want = match (protected, source) {
                (false, _) => Pass(OtherPort),
                (true, Source::Unlisted) => Drop(Unauthorized),
                (true, Source::Listed) => Pass(Authorized),
            };
            let name = |family: &str| format!("policies/port/{port}/{family}/{}", source.word());
            rows.under(
                Rules::Ports,
                name("ipv4"),
                v4(source).syn(CLIENT_PORT, port).frame(),
                want,
            );
            rows.under(
                Rules::Ports,
                name("ipv6"),
                v6(source).syn(CLIENT_PORT, port).frame(),
                want,
            );
        }
    }
}

/// Ports with lists of their own, by the fast and by the slow path, and packets whose port cannot
/// be read: they pass only if the source is in every such list.
fn guards(rows: &mut Rows) {
    let rules = Rules::Guards;
    // Of each source: whether all lists, the first guard and the second one have it.
    for (source, all, one, two) in [
        ("198.51.100.7", true, true, true),
        ("198.51.100.127", true, true, true),
        ("198.51.100.128", true, false, true),
        ("198.51.99.1", true, false, true),
        ("192.0.2.77", true, true, false),
        ("192.0.2.128", true, false, false),
        ("10.1.2.3", true, true, true),
        ("10.1.3.3", true, true, false),
        ("10.2.0.1", false, false, false),
        ("203.0.113.9", false, false, false),
        ("2001:db8:aa::7", true, true, true),
        ("2001:db8:aa:1::7", true, false, true),
        ("2001:db8:aa:8000::7", true, false, false),
        ("2001:db8:ee::1", true, true, true),
        ("2001:db8:ee::2", true, true, false),
        ("2001:db8:cc::1", true, false, false),
        ("2001:db8:bb::9", false, false, false),
    ] {
        let address = ip(source);
        for (port, passes) in [
            (443, all),
            (2379, one),
            (2380, one),
            (6443, two),
            (65_535, two),
        ] {
            let want = match passes {
                true => Pass(Authorized),
                false => Drop(Unauthorized),
            };
            let name = |path: &str| format!("policies/{rules:?}/{source}/tcp-{port}/{path}");
            rows.under(rules, name("fast"), syn_from(address, port), want);
            rows.under(rules, name("slow"), slow_syn_from(address, port), want);
        }
        for port in [0, 442, 444, 2378, 2381, 6442, 65_534] {
            let name = format!("policies/{rules:?}/{source}/tcp-{port}");
            rows.under(rules, name, syn_from(address, port), Pass(OtherPort));
        }
        let want = |why| match one && two {
            true => Pass(AuthorizedUnclassifiable),
            false => Drop(why),
        };
        let name = |what: &str| format!("policies/{rules:?}/{source}/{what}");
        let (cut, malformed) = match address {
            IpAddr::V4(address) => {
                let syn = || V4::new(address, NODE4).syn(CLIENT_PORT, 443);
                (syn().cut(1).frame(), syn().version_ihl(0x44).frame())
            }
            IpAddr::V6(address) => {
                let packet = || V6::new(address, NODE6);
                let first = packet().fragment(0, true, 1).announces(TCP).frame();
                (packet().syn(CLIENT_PORT, 443).cut(2).frame(), first)
            }
        };
        let reason = if address.is_ipv4() {
            Malformed
        } else {
            IncompleteFirstFragment
        };
        rows.under(rules, name("cut"), cut, want(Truncated));
        rows.under(rules, name("unclassifiable"), malformed, want(reason));
    }
}

/// A SYN that only the slow path judges.
fn slow_syn_from(source: IpAddr, port: u16) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => {
            let syn = V4::new(source, NODE4).syn(CLIENT_PORT, port);
            syn.options(&[1; 4]).frame()
        }
        IpAddr::V6(source) => {
            let packet = V6::new(source, NODE6).hop_by_hop(8);
            packet.syn(CLIENT_PORT, port).frame()
        }
    }
}

/// An empty slot is the strictest policy: the default ports, and no source.
fn unfilled(rows: &mut Rows) {
    let rules = Rules::Unfilled;
    for source in [
        "0.0.0.0",
        "198.51.100.7",
        "2001:db8:aa::7",
        "64:ff9b::1",
        "::",
    ] {
        for (port, want) in [
            (443, Drop(Unauthorized)),
            (6443, Drop(Unauthorized)),
            (0, Pass(OtherPort)),
            (442, Pass(OtherPort)),
            (65_535, Pass(OtherPort)),
        ] {
            let name = format!("policies/{rules:?}/{source}/tcp-{port}");
            rows.under(rules, name, syn_from(ip(source), port), want);
        }
    }
    for (name, frame, want) in [
        (
            "ipv4-options",
            v4(Source::Listed)
                .syn(CLIENT_PORT, 443)
                .options(&[1; 4])
                .frame(),
            Drop(Unauthorized),
        ),
        (
            "ipv6-options",
            v6(Source::Listed)
                .hop_by_hop(8)
                .syn(CLIENT_PORT, 6443)
                .frame(),
            Drop(Unauthorized),
        ),
        (
            "cut",
            v6(Source::Listed).syn(CLIENT_PORT, 6443).cut(2).frame(),
            Drop(Truncated),
        ),
        (
            "udp",
            v4(Source::Unlisted)
                .datagram(CLIENT_PORT, 6443, b"")
                .frame(),
            Pass(NotTcp),
        ),
        ("arp", tagged_as(0x0806, &[], &[0; 28]), Pass(NotIp)),
    ] {
        rows.under(rules, format!("policies/{rules:?}/{name}"), frame, want);
    }
}
