//! IPv6 fragments: whole ones, first ones without the port (RFC 7112), later ones, and misplaced
//! ones.

use filter_common::{
    DropReason::{IncompleteFirstFragment, MisplacedFragment, Truncated},
    PassReason::{LaterFragment, NotTcp, OtherPort},
};

use super::row::{NODE6, Rows, Source, v6};
use crate::packets::{
    CLIENT_PORT, TCP, UDP, V6,
    v6::{HIP, MOBILITY, SHIM6},
};

pub(super) fn add(rows: &mut Rows) {
    for (place, before) in PLACES {
        atomic(rows, place, before);
        first(rows, place, before);
        later(rows, place, before);
    }
    misplaced(rows);
    pieces(rows);
}

type Add = fn(V6) -> V6;

/// Positions of a fragment header.
const PLACES: [(&str, Add); 4] = [
    ("alone", |packet| packet),
    ("behind-hop-by-hop", |packet| packet.hop_by_hop(8)),
    ("behind-hop-by-hop-of-264", |packet| packet.hop_by_hop(264)),
    ("behind-hop-by-hop-of-2048", |packet| {
        packet.hop_by_hop(2048)
    }),
];

/// A fragment at offset 0 that is also the last one is a whole packet.
fn atomic(rows: &mut Rows, place: &str, before: Add) {
    let name = format!("fragments/atomic/{place}");
    rows.chain(&name, |packet| before(packet).fragment(0, false, 3));
    rows.chain(&format!("{name}/options-inside"), |packet| {
        before(packet)
            .fragment(0, false, 3)
            .destination_options(16)
            .routing(2, 0, &[NODE6])
    });
    rows.doubt(
        &format!("{name}/ends-before-the-port"),
        |source| {
            before(v6(source))
                .fragment(0, false, 3)
                .payload(TCP, &[0; 3])
                .frame()
        },
        Truncated,
    );
    // The two reserved bits between offset and flag belong to neither.
    rows.segment(&format!("{name}/reserved-bits"), |source| {
        let mut frame = before(v6(source))
            .fragment(0, false, 3)
            .syn(CLIENT_PORT, 6443)
            .frame();
        let at = frame.len() - 20 - 8 + 3;
        frame[at] |= 0b110;
        frame
    });
}

fn first(rows: &mut Rows, place: &str, before: Add) {
    let name = format!("fragments/first/{place}");
    rows.chain(&format!("{name}/whole-header"), |packet| {
        before(packet).fragment(0, true, 3)
    });
    rows.segment(&format!("{name}/8-bytes"), |source| {
        let segment = v6(source).syn(CLIENT_PORT, 6443).packet()[40..48].to_vec();
        before(v6(source))
            .fragment(0, true, 3)
            .payload(TCP, &segment)
            .frame()
    });
    for len in 0..4 {
        rows.doubt(
            &format!("{name}/{len}-bytes"),
            |source| {
                before(v6(source))
                    .fragment(0, true, 3)
                    .payload(TCP, &vec![0; len])
                    .frame()
            },
            IncompleteFirstFragment,
        );
    }
    // The chain is options of 16 and 24 bytes, then the segment: 4 bytes of that are needed.
    let after = |packet: V6| {
        packet
            .fragment(0, true, 3)
            .destination_options(16)
            .destination_options(24)
    };
    let tcp = |source, port| after(before(v6(source))).syn(CLIENT_PORT, port);
    let front = before(v6(Source::Listed)).chain_len() + 8;
    for len in (0..=56).step_by(4) {
        let cut = |source: Source| tcp(source, 6443).cut(front + len).frame();
        let other = |source: Source| tcp(source, 6442).cut(front + len).frame();
        let udp = |source: Source| {
            after(before(v6(source)))
                .datagram(CLIENT_PORT, 6443, &[0; 40])
                .cut(front + len)
                .frame()
        };
        let padded = |source: Source| {
            let decoy = tcp(source, 80).packet()[40 + front + len..].to_vec();
            [cut(source), decoy].concat()
        };
        let name = format!("{name}/chain-cut-to-{len}");
        if len < 44 {
            rows.doubt(&format!("{name}/tcp"), cut, IncompleteFirstFragment);
            rows.doubt(
                &format!("{name}/tcp-other-port"),
                other,
                IncompleteFirstFragment,
            );
            rows.doubt(
                &format!("{name}/the-rest-as-padding"),
                padded,
                IncompleteFirstFragment,
            );
        } else {
            rows.segment(&format!("{name}/tcp"), cut);
            rows.ordinary(&format!("{name}/tcp-other-port"), other, OtherPort);
        }
        // The second header says UDP as soon as its first four bytes are present.
        if len < 20 {
            rows.doubt(&format!("{name}/udp"), udp, IncompleteFirstFragment);
        } else {
            rows.ordinary(&format!("{name}/udp"), udp, NotTcp);
        }
    }
}

fn later(rows: &mut Rows, place: &str, before: Add) {
    for offset in [1, 2, 0x100, 0x1000, 0x1fff] {
        for more in [true, false] {
            let name = format!("fragments/later/{place}/at-{offset}-more-{more}");
            let fragment = |source| before(v6(source)).fragment(offset, more, 3);
            rows.ordinary(
                &name,
                |source| fragment(source).syn(CLIENT_PORT, 6443).frame(),
                LaterFragment,
            );
            rows.ordinary(
                &format!("{name}/says-options"),
                |source| {
                    fragment(source)
                        .destination_options(8)
                        .syn(CLIENT_PORT, 6443)
                        .frame()
                },
                LaterFragment,
            );
            rows.ordinary(
                &format!("{name}/says-fragment"),
                |source| {
                    fragment(source)
                        .fragment(0, false, 3)
                        .syn(CLIENT_PORT, 6443)
                        .frame()
                },
                LaterFragment,
            );
        }
    }
}

/// After anything but one hop-by-hop header, no source is trusted.
fn misplaced(rows: &mut Rows) {
    let places: [(&str, Add); 14] = [
        ("destination-options", |packet| {
            packet.destination_options(8)
        }),
        ("destination-options-of-264", |packet| {
            packet.destination_options(224).destination_options(8)
        }),
        ("destination-options-of-272", |packet| {
            packet.destination_options(232).destination_options(8)
        }),
        ("routing", |packet| packet.routing(0, 0, &[])),
        ("routing-with-segments-left", |packet| {
            packet.routing(2, 1, &[NODE6])
        }),
        ("authentication", |packet| packet.authentication(24)),
        ("mobility", |packet| packet.options(MOBILITY, 8)),
        ("hip", |packet| packet.options(HIP, 8)),
        ("shim6", |packet| packet.options(SHIM6, 8)),
        ("hop-by-hop-twice", |packet| {
            packet.hop_by_hop(8).hop_by_hop(8)
        }),
        ("hop-by-hop-and-options", |packet| {
            packet.hop_by_hop(8).destination_options(8)
        }),
        ("options-and-hop-by-hop", |packet| {
            packet.destination_options(8).hop_by_hop(8)
        }),
        ("another-fragment", |packet| packet.fragment(0, false, 3)),
        ("another-first-fragment", |packet| {
            packet.fragment(0, true, 3)
        }),
    ];
    for (place, before) in places {
        for (kind, offset, more) in [
            ("atomic", 0, false),
            ("first", 0, true),
            ("later", 1, true),
            ("last", 0x1fff, false),
        ] {
            let name = format!("fragments/misplaced/{place}/{kind}");
            let fragment = |source| before(v6(source)).fragment(offset, more, 3);
            let tcp = |source| fragment(source).syn(CLIENT_PORT, 6443).frame();
            rows.hostile(&format!("{name}/tcp"), tcp, MisplacedFragment);
            let other = |source| fragment(source).syn(CLIENT_PORT, 80).frame();
            rows.hostile(&format!("{name}/tcp-other-port"), other, MisplacedFragment);
            rows.hostile(
                &format!("{name}/says-udp"),
                |source| {
                    let segment = v6(source).syn(CLIENT_PORT, 6443).packet()[40..].to_vec();
                    let options = [TCP, 0, 1, 4, 0, 0, 0, 0];
                    fragment(source)
                        .payload(UDP, &[&options[..], &segment].concat())
                        .frame()
                },
                MisplacedFragment,
            );
        }
        rows.hostile(
            &format!("fragments/misplaced/{place}/announced-and-not-there"),
            |source| before(v6(source)).announces(44).frame(),
            MisplacedFragment,
        );
    }
}

/// The pieces of one packet, each judged by itself.
fn pieces(rows: &mut Rows) {
    let packet = |source| {
        v6(source)
            .destination_options(16)
            .syn(CLIENT_PORT, 6443)
            .bytes(&[0x5a; 64])
    };
    for cut in [24, 32, 40, 96] {
        let len = packet(Source::Listed).chain_len();
        rows.segment(&format!("fragments/pieces/first-{cut}"), |source| {
            packet(source).piece(0..cut, 1).frame()
        });
        rows.ordinary(
            &format!("fragments/pieces/rest-from-{cut}"),
            |source| packet(source).piece(cut..len, 1).frame(),
            LaterFragment,
        );
    }
    for cut in [8, 16] {
        rows.doubt(
            &format!("fragments/pieces/first-{cut}"),
            |source| packet(source).piece(0..cut, 1).frame(),
            IncompleteFirstFragment,
        );
    }
}
