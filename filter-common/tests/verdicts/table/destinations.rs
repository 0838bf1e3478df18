//! Only some destinations are guarded, with routes to them through others.

use std::net::{Ipv4Addr, Ipv6Addr};

use filter_common::{
    DropReason::{IncompleteFirstFragment, Malformed, Truncated, Unauthorized},
    PassReason::{Authorized, AuthorizedUnclassifiable, NotTcp, OtherDestination, OtherPort},
    Verdict::{Drop, Pass},
};

use super::{
    row::{NODE4, NODE6, OTHER4, OTHER6, Rows, Source},
    rules::Rules,
};
use crate::packets::{CLIENT_PORT, TCP, V4, V6};

pub(super) fn add(rows: &mut Rows) {
    destinations(rows);
    source_routes(rows);
}

/// Only some destinations are guarded.
fn destinations(rows: &mut Rows) {
    for source in Source::BOTH {
        let guarded = match source {
            Source::Unlisted => Drop(Unauthorized),
            Source::Listed => Pass(Authorized),
        };
        let to = [
            ("node", NODE4, NODE6, guarded),
            ("other", OTHER4, OTHER6, Pass(OtherDestination)),
            (
                "neighbour",
                Ipv4Addr::new(192, 0, 2, 9),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xf),
                Pass(OtherDestination),
            ),
            (
                "far",
                Ipv4Addr::new(8, 8, 8, 8),
                Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0, 0, 8),
                Pass(OtherDestination),
            ),
        ];
        for (name, to4, to6, want) in to {
            let (v4, v6) = (V4::new(source.v4(), to4), V6::new(source.v6(), to6));
            let mut add = |what: &str, frame, want| {
                let name = format!("policies/destination/{name}/{what}/{}", source.word());
                rows.under(Rules::Destinations, name, frame, want);
            };
            add("ipv4", v4.clone().syn(CLIENT_PORT, 443).frame(), want);
            add("ipv6", v6.clone().syn(CLIENT_PORT, 6443).frame(), want);
            add(
                "ipv4-other-port",
                v4.clone().syn(CLIENT_PORT, 80).frame(),
                Pass(OtherPort),
            );
            add(
                "ipv6-udp",
                v6.clone().datagram(CLIENT_PORT, 443, b"").frame(),
                Pass(NotTcp),
            );
            add(
                "ipv6-behind-options",
                v6.clone()
                    .destination_options(8)
                    .syn(CLIENT_PORT, 443)
                    .frame(),
                want,
            );
            let doubt = |reason| match (want, source) {
                (Pass(OtherDestination), _) => want,
                (_, Source::Unlisted) => Drop(reason),
                (_, Source::Listed) => Pass(AuthorizedUnclassifiable),
            };
            add(
                "ipv4-truncated",
                v4.clone().syn(CLIENT_PORT, 443).cut(3).frame(),
                doubt(Truncated),
            );
            add(
                "ipv4-malformed",
                v4.syn(CLIENT_PORT, 443).version_ihl(0x43).frame(),
                doubt(Malformed),
            );
            add(
                "ipv6-truncated",
                v6.clone()
                    .destination_options(8)
                    .syn(CLIENT_PORT, 443)
                    .cut(2)
                    .frame(),
                doubt(Truncated),
            );
            let first = v6.fragment(0, true, 1);
            add(
                "ipv6-incomplete-tcp",
                first.clone().announces(TCP).frame(),
                doubt(IncompleteFirstFragment),
            );
            // The missing part may be a routing header to a guarded destination.
            let hidden = match source {
                Source::Unlisted => Drop(IncompleteFirstFragment),
                Source::Listed => Pass(AuthorizedUnclassifiable),
            };
            add(
                "ipv6-incomplete-options",
                first.clone().destination_options(8).announces(43).frame(),
                hidden,
            );
            add(
                "ipv6-incomplete-at-once",
                first.announces(60).frame(),
                hidden,
            );
        }
    }
}

/// A route in the packet may lead to a guarded destination through another.
fn source_routes(rows: &mut Rows) {
    let stop = |left| {
        V6::new(Source::Unlisted.v6(), NODE6)
            .by_way_of(OTHER6)
            .segments(left, &[NODE6, OTHER6])
    };
    let mut add = |name: &str, frame, want| {
        rows.under(
            Rules::Destinations,
            format!("policies/source-route/{name}"),
            frame,
            want,
        );
    };
    add(
        "ipv6-one-left",
        stop(1).syn(CLIENT_PORT, 6443).frame(),
        Drop(Unauthorized),
    );
    add(
        "ipv6-one-left-udp",
        stop(1).datagram(CLIENT_PORT, 6443, b"").frame(),
        Pass(NotTcp),
    );
    add(
        "ipv6-one-left-other-port",
        stop(1).syn(CLIENT_PORT, 80).frame(),
        Pass(OtherPort),
    );
    add(
        "ipv6-none-left",
        stop(0).syn(CLIENT_PORT, 6443).frame(),
        Pass(OtherDestination),
    );
    add(
        "ipv6-one-left-then-options",
        stop(1).destination_options(8).syn(CLIENT_PORT, 443).frame(),
        Drop(Unauthorized),
    );
    let then_none = stop(1).routing(0, 0, &[]).syn(CLIENT_PORT, 443).frame();
    add("ipv6-one-left-then-none", then_none, Drop(Unauthorized));
    add(
        "ipv6-one-left-truncated",
        stop(1).syn(CLIENT_PORT, 443).cut(42).frame(),
        Drop(Truncated),
    );

    let to_other = |options: &[u8]| {
        V4::new(Source::Unlisted.v4(), OTHER4)
            .syn(CLIENT_PORT, 6443)
            .options(options)
            .frame()
    };
    let [a, b, c, d] = NODE4.octets();
    let elsewhere = Pass(OtherDestination);
    for (name, options, want) in [
        ("nops", vec![1; 8], elsewhere),
        ("loose", vec![131, 7, 4, a, b, c, d, 0], Drop(Unauthorized)),
        ("strict", vec![137, 7, 4, a, b, c, d, 0], Drop(Unauthorized)),
        (
            "loose-behind-nops",
            vec![1, 1, 1, 131, 7, 4, a, b, c, d, 0, 0],
            Drop(Unauthorized),
        ),
        (
            "loose-behind-an-option",
            vec![148, 4, 0, 0, 131, 7, 4, a, b, c, d, 0],
            Drop(Unauthorized),
        ),
        (
            "loose-behind-the-end",
            vec![0, 131, 7, 4, a, b, c, d],
            elsewhere,
        ),
        (
            "inside-another-option",
            vec![68, 12, 5, 0, 131, 7, 4, a, b, c, d, 0],
            elsewhere,
        ),
        ("record-route", vec![7, 7, 4, 0, 0, 0, 0, 0], elsewhere),
        ("option-of-length-0", vec![68, 0, 0, 0], Drop(Unauthorized)),
        ("option-of-length-1", vec![68, 1, 0, 0], Drop(Unauthorized)),
        (
            "option-longer-than-the-header",
            vec![68, 40, 0, 0],
            elsewhere,
        ),
        (
            "loose-in-the-last-byte",
            vec![1, 1, 1, 131],
            Drop(Unauthorized),
        ),
        ("forty-nops", vec![1; 40], elsewhere),
    ] {
        add(&format!("ipv4-{name}"), to_other(&options), want);
    }
}
