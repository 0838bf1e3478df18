//! Packets inside packets. Linux itself decapsulates directly after a segment routing or RPL
//! header, and after any chain of headers if a route ends a segment. Anything else needs a tunnel
//! device, which gets a filter of its own.

use filter_common::{
    DropReason::{
        HeadersTooDeep, IncompleteFirstFragment, MisplacedFragment, Truncated, Unauthorized,
    },
    PassReason::{
        Authorized, AuthorizedUnclassifiable, LaterFragment, NotTcp, OtherPort, ShortHeader,
    },
    Verdict::{Drop, Pass},
};

use super::{
    row::{NODE6, Rows, SID4, SID6, SID6_NEXT_HOP, Source, v4, v6},
    rules::Rules,
};
use crate::packets::{
    CLIENT_PORT, TCP, V6,
    v6::{DESTINATION_OPTIONS, HEADER_LEN},
};

pub(super) fn add(rows: &mut Rows) {
    for (kind, tunnel) in TUNNELS {
        inside(rows, kind, tunnel);
        cut(rows, kind, tunnel);
    }
    not_taken_out(rows);
    taken_out(rows);
    nested(rows);
}

type Add = fn(V6) -> V6;

const TUNNELS: [(&str, Add); 5] = [
    ("segments-none-left", |packet| packet.segments(0, &[NODE6])),
    ("segments-one-left", |packet| {
        packet.segments(1, &[NODE6, NODE6])
    }),
    ("options-and-segments", |packet| {
        packet.destination_options(8).segments(0, &[NODE6])
    }),
    ("atomic-fragment-and-segments", |packet| {
        packet.fragment(0, false, 1).segments(0, &[NODE6])
    }),
    ("rpl", |packet| packet.routing(3, 0, &[NODE6])),
];

/// Next-header numbers of the inner packet by its family.
const INNER: [(&str, u8); 2] = [("ipv4", 4), ("ipv6", 41)];

fn syn(number: u8, source: Source, port: u16) -> Vec<u8> {
    super::row::syn_packet(number == 41, source, port)
}

/// The inner source decides, and the outer source does not count.
fn inside(rows: &mut Rows, kind: &str, tunnel: Add) {
    for (family, number) in INNER {
        for outer in Source::BOTH {
            let name = format!("tunnels/{kind}/{family}-from-{}", outer.word());
            let around = |packet: &[u8]| tunnel(v6(outer)).payload(number, packet).frame();
            rows.segment(&format!("{name}/tcp"), |source| {
                around(&syn(number, source, 6443))
            });
            let other = |source| around(&syn(number, source, 6444));
            rows.ordinary(&format!("{name}/tcp-other-port"), other, OtherPort);
        }
    }
    let around =
        |number, packet: &[u8]| tunnel(v6(Source::Unlisted)).payload(number, packet).frame();
    rows.ordinary(
        &format!("tunnels/{kind}/udp"),
        |source| around(41, &v6(source).datagram(CLIENT_PORT, 6443, b"").packet()),
        NotTcp,
    );
    rows.segment(&format!("tunnels/{kind}/ipv4-with-options"), |source| {
        around(
            4,
            &v4(source).syn(CLIENT_PORT, 443).options(&[1; 40]).packet(),
        )
    });
    rows.segment(&format!("tunnels/{kind}/ipv6-with-options"), |source| {
        around(
            41,
            &v6(source)
                .hop_by_hop(8)
                .destination_options(24)
                .syn(CLIENT_PORT, 443)
                .packet(),
        )
    });
    rows.ordinary(
        &format!("tunnels/{kind}/later-fragment"),
        |source| {
            around(
                41,
                &v6(source)
                    .fragment(3, false, 1)
                    .syn(CLIENT_PORT, 443)
                    .packet(),
            )
        },
        LaterFragment,
    );
    rows.doubt(
        &format!("tunnels/{kind}/first-fragment-without-port"),
        |source| {
            around(
                41,
                &v6(source)
                    .fragment(0, true, 1)
                    .destination_options(8)
                    .announces(TCP)
                    .packet(),
            )
        },
        IncompleteFirstFragment,
    );
    rows.hostile(
        &format!("tunnels/{kind}/misplaced-fragment"),
        |source| {
            around(
                41,
                &v6(source)
                    .destination_options(8)
                    .fragment(0, false, 1)
                    .syn(CLIENT_PORT, 80)
                    .packet(),
            )
        },
        MisplacedFragment,
    );
}

fn cut(rows: &mut Rows, kind: &str, tunnel: Add) {
    let front = tunnel(v6(Source::Listed)).chain_len();
    for (family, number) in INNER {
        let fixed = if number == 41 { HEADER_LEN } else { 20 };
        for len in [0, 8, fixed - 1, fixed, fixed + 3, fixed + 4] {
            for source in Source::BOTH {
                let packet = tunnel(v6(Source::Listed)).payload(number, &syn(number, source, 6443));
                let want = match source {
                    _ if len < fixed => Pass(ShortHeader),
                    Source::Unlisted if len < fixed + 4 => Drop(Truncated),
                    Source::Listed if len < fixed + 4 => Pass(AuthorizedUnclassifiable),
                    Source::Unlisted => Drop(Unauthorized),
                    Source::Listed => Pass(Authorized),
                };
                let name = format!("tunnels/{kind}/{family}-cut-to-{len}/{}", source.word());
                rows.add(&*name, packet.clone().cut(front + len).frame(), want);
                // With the rest as padding it is not longer.
                let outer_len = u16::try_from(front + len).expect("it is short");
                let name = format!(
                    "tunnels/{kind}/{family}-outer-length-{len}/{}",
                    source.word()
                );
                rows.add(name, packet.payload_len(outer_len).frame(), want);
            }
        }
    }
}

/// In the first of several fragments the inner source may be in a later one.
fn nested(rows: &mut Rows) {
    let front = 8 + 24;
    for ((family, number), header_len) in INNER.into_iter().zip([20, 40]) {
        for len in [0, 8, header_len - 8, header_len, header_len + 8] {
            for source in Source::BOTH {
                let packet = v6(Source::Listed)
                    .fragment(0, true, 1)
                    .segments(0, &[NODE6]);
                let packet = packet.payload(number, &syn(number, source, 6443));
                let want = match source {
                    _ if len < header_len => Drop(IncompleteFirstFragment),
                    Source::Unlisted if len < header_len + 4 => Drop(IncompleteFirstFragment),
                    Source::Listed if len < header_len + 4 => Pass(AuthorizedUnclassifiable),
                    Source::Unlisted => Drop(Unauthorized),
                    Source::Listed => Pass(Authorized),
                };
                let name = format!("tunnels/first-fragment/{family}");
                let cut = format!("{name}/cut-to-{len}/{}", source.word());
                rows.add(cut, packet.clone().cut(front + len).frame(), want);
                let outer_len = u16::try_from(front + len).expect("it is short");
                let padded = format!("{name}/the-rest-is-padding-from-{len}/{}", source.word());
                rows.add(padded, packet.payload_len(outer_len).frame(), want);
            }
        }
    }
    rows.hostile(
        "tunnels/three-deep",
        |source| {
            let around =
                |inner: &[u8]| v6(source).segments(0, &[NODE6]).payload(41, inner).packet();
            crate::packets::frame(&around(&around(&syn(41, source, 80))))
        },
        HeadersTooDeep,
    );
    // Only the inner packet's destination is a guarded one.
    let around = |inner: V6| {
        v6(Source::Unlisted)
            .segments(0, &[NODE6])
            .payload(41, &inner.packet())
            .frame()
    };
    let inner = V6::new(Source::Unlisted.v6(), super::row::OTHER6).syn(CLIENT_PORT, 443);
    let elsewhere = Pass(filter_common::PassReason::OtherDestination);
    rows.under(
        Rules::Destinations,
        "tunnels/to-an-unguarded-destination",
        around(inner),
        elsewhere,
    );
    let to_other =
        V6::new(Source::Unlisted.v6(), super::row::OTHER6).segments(0, &[super::row::OTHER6]);
    let inner = v6(Source::Unlisted).syn(CLIENT_PORT, 443).packet();
    rows.under(
        Rules::Destinations,
        "tunnels/by-way-of-an-unguarded-destination",
        to_other.payload(41, &inner).frame(),
        Drop(Unauthorized),
    );
}

/// In front of a packet, but not directly after a segment routing or RPL header.
const OTHER_FRONTS: [(&str, Add); 8] = [
    ("bare", |packet| packet),
    ("behind-options", |packet| packet.destination_options(8)),
    ("behind-hop-by-hop", |packet| packet.hop_by_hop(8)),
    ("behind-routing-type-0", |packet| {
        packet.routing(0, 0, &[NODE6])
    }),
    ("behind-routing-type-2", |packet| {
        packet.routing(2, 0, &[NODE6])
    }),
    ("behind-an-atomic-fragment", |packet| {
        packet.fragment(0, false, 1)
    }),
    ("behind-segments-and-options", |packet| {
        packet.segments(0, &[NODE6]).options(DESTINATION_OPTIONS, 8)
    }),
    ("behind-much", |packet| {
        let packet = packet.hop_by_hop(8).destination_options(24);
        packet.routing(0, 0, &[NODE6]).destination_options(8)
    }),
];

/// Without a route that ends a segment these need a device, or Linux ignores them.
fn not_taken_out(rows: &mut Rows) {
    for (family, number) in INNER {
        for (name, front) in OTHER_FRONTS {
            rows.ordinary(
                &format!("tunnels/not-taken-out/{name}/{family}"),
                |source| {
                    front(v6(source))
                        .payload(number, &syn(number, source, 6443))
                        .frame()
                },
                NotTcp,
            );
        }
    }
}

/// With such a route the inner packet is judged, at any offset.
fn taken_out(rows: &mut Rows) {
    let rules = Rules::Decapsulating;
    let kinds = [
        ("ipv4", 4, SID4),
        ("ipv6", 41, SID6),
        ("ipv6-next-hop", 41, SID6_NEXT_HOP),
    ];
    for (family, number, sid) in kinds {
        let fixed = if number == 41 { HEADER_LEN } else { 20 };
        for (name, front) in OTHER_FRONTS.into_iter().chain(TUNNELS) {
            let name = format!("tunnels/taken-out/{name}/{family}");
            for outer in Source::BOTH {
                let around =
                    |packet: &[u8]| front(V6::new(outer.v6(), sid)).payload(number, packet);
                let name = format!("{name}-from-{}", outer.word());
                rows.pair_under(
                    rules,
                    &format!("{name}/tcp"),
                    |source| around(&syn(number, source, 6443)).frame(),
                    Drop(Unauthorized),
                    Pass(Authorized),
                );
                rows.pair_under(
                    rules,
                    &format!("{name}/tcp-other-port"),
                    |source| around(&syn(number, source, 6444)).frame(),
                    Pass(OtherPort),
                    Pass(OtherPort),
                );
            }
            // Cut in the inner header, and in front of the port.
            let around = |source| {
                front(V6::new(source, sid)).payload(number, &syn(number, Source::Unlisted, 443))
            };
            let front_len = front(V6::new(Source::Listed.v6(), sid)).chain_len();
            for (len, want) in [
                (0, Pass(ShortHeader)),
                (fixed - 1, Pass(ShortHeader)),
                (fixed, Drop(Truncated)),
                (fixed + 4, Drop(Unauthorized)),
            ] {
                let frame = around(Source::Listed.v6()).cut(front_len + len).frame();
                rows.under(rules, format!("{name}-cut-to-{len}/unlisted"), frame, want);
            }
        }
    }
    // The first of several fragments: Linux looks for the inner packet before it waits for the
    // rest.
    for len in [0, 8, 40, 44] {
        let packet = V6::new(Source::Listed.v6(), SID6).fragment(0, true, 1);
        let packet = packet
            .payload(41, &syn(41, Source::Unlisted, 6443))
            .cut(8 + len);
        let want = match len {
            44 => Drop(Unauthorized),
            _ => Drop(IncompleteFirstFragment),
        };
        let name = format!("tunnels/taken-out/first-fragment/cut-to-{len}/unlisted");
        rows.under(rules, name, packet.frame(), want);
    }
    let later = v6(Source::Unlisted)
        .fragment(3, true, 1)
        .payload(41, &syn(41, Source::Unlisted, 6443));
    rows.under(
        rules,
        "tunnels/taken-out/later-fragment/unlisted",
        later.frame(),
        Pass(LaterFragment),
    );
    // Linux does not decapsulate from IPv4 here: that needs a device.
    for (family, number) in INNER {
        let packet = v4(Source::Unlisted).payload(number, &syn(number, Source::Unlisted, 6443));
        rows.under(
            rules,
            format!("tunnels/taken-out/not-from-ipv4/{family}"),
            packet.frame(),
            Pass(NotTcp),
        );
    }
    let udp = v6(Source::Unlisted)
        .datagram(CLIENT_PORT, 6443, b"")
        .packet();
    let around = V6::new(Source::Unlisted.v6(), SID6)
        .payload(41, &udp)
        .frame();
    rows.under(rules, "tunnels/taken-out/udp", around, Pass(NotTcp));
    let inner = v6(Source::Unlisted)
        .payload(41, &syn(41, Source::Listed, 80))
        .packet();
    let around = V6::new(Source::Unlisted.v6(), SID6)
        .payload(41, &inner)
        .frame();
    rows.under(
        rules,
        "tunnels/taken-out/three-deep",
        around,
        Drop(HeadersTooDeep),
    );
}
