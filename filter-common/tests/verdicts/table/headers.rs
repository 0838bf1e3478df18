//! Chains of extension headers: every kind with its own unit of length, in any order and number.

use filter_common::{
    DropReason::{Truncated, Unauthorized},
    PassReason::{Authorized, NotTcp, OtherPort},
    Verdict::{Drop, Pass},
};

use super::{
    row::{NODE6, Rows, Source, v6},
    rules::Rules,
};
use crate::packets::{
    CLIENT_PORT, TCP, UDP, V6,
    v6::{DESTINATION_OPTIONS, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6},
};

pub(super) fn add(rows: &mut Rows) {
    kinds(rows);
    units(rows);
    routing(rows);
    orders(rows);
    chains(rows);
    ends(rows);
}

/// Headers whose length is in units of 8 bytes.
const OPTIONS: [(&str, u8); 5] = [
    ("hop-by-hop", HOP_BY_HOP),
    ("destination-options", DESTINATION_OPTIONS),
    ("mobility", MOBILITY),
    ("hip", HIP),
    ("shim6", SHIM6),
];

fn kinds(rows: &mut Rows) {
    for (name, number) in OPTIONS {
        for len in [8, 16, 24, 64, 256, 2048] {
            rows.chain(&format!("headers/{name}/{len}-bytes"), |packet| {
                packet.options(number, len)
            });
        }
        rows.chain(&format!("headers/{name}/eight-times"), |packet| {
            (0..8).fold(packet, |packet, _| packet.options(number, 8))
        });
    }
    for len in [8, 12, 16, 20, 24, 32, 40, 264, 1028] {
        rows.chain(&format!("headers/authentication/{len}-bytes"), |packet| {
            packet.authentication(len)
        });
    }
}

/// A length read in the wrong unit leads to a port that is not there.
fn units(rows: &mut Rows) {
    // Every aligned word of the filler looks like ports.
    let filled = |number: u8, units: u8, len: usize, decoy: u16| {
        move |packet: V6| {
            let mut header = vec![0, units, 0, 0];
            while header.len() < len {
                header.extend(CLIENT_PORT.to_be_bytes());
                header.extend(decoy.to_be_bytes());
            }
            packet.header(number, &header)
        }
    };
    for (name, number, units, len) in [
        ("destination-options", DESTINATION_OPTIONS, 6, 56),
        ("hop-by-hop", HOP_BY_HOP, 6, 56),
        ("mobility", MOBILITY, 6, 56),
        ("hip", HIP, 6, 56),
        ("shim6", SHIM6, 6, 56),
        ("authentication", 51, 6, 32),
        ("authentication-of-8", 51, 0, 8),
        ("routing", ROUTING, 6, 56),
    ] {
        rows.segment(&format!("headers/unit/{name}-full-of-port-80"), |source| {
            filled(number, units, len, 80)(v6(source))
                .syn(CLIENT_PORT, 6443)
                .frame()
        });
        rows.ordinary(
            &format!("headers/unit/{name}-full-of-port-6443"),
            |source| {
                filled(number, units, len, 6443)(v6(source))
                    .syn(CLIENT_PORT, 80)
                    .frame()
            },
            OtherPort,
        );
    }
    // The reserved byte of a fragment header is not a length.
    for reserved in [1, 2, 0x7f, 0xff] {
        rows.segment(
            &format!("headers/unit/fragment-reserved-{reserved:02x}"),
            |source| {
                let packet = v6(source).fragment_with_reserved(reserved, 0, false, 9);
                packet.syn(CLIENT_PORT, 6443).frame()
            },
        );
        rows.segment(
            &format!("headers/unit/fragment-reserved-{reserved:02x}-first-of-several"),
            |source| {
                let packet = v6(source).fragment_with_reserved(reserved, 0, true, 9);
                packet.syn(CLIENT_PORT, 6443).bytes(&[0; 4]).frame()
            },
        );
    }
}

fn routing(rows: &mut Rows) {
    for kind in [0, 1, 2, 3, 4, 5, 6, 253, 255] {
        for left in [0, 1, 2, 255] {
            rows.chain(
                &format!("headers/routing/type-{kind}-left-{left}"),
                |packet| packet.routing(kind, left, &[NODE6]),
            );
        }
        rows.chain(
            &format!("headers/routing/type-{kind}-without-segments"),
            |packet| packet.routing(kind, 0, &[]),
        );
        rows.chain(
            &format!("headers/routing/type-{kind}-three-times"),
            |packet| (0..3).fold(packet, |packet, _| packet.routing(kind, 0, &[NODE6, NODE6])),
        );
    }
    rows.chain("headers/routing/segments", |packet| {
        packet.segments(0, &[NODE6, NODE6])
    });
}

/// Any pair of headers, in both orders.
fn orders(rows: &mut Rows) {
    type Add = fn(V6) -> V6;
    let headers: [(&str, Add); 7] = [
        ("hop-by-hop", |packet| packet.hop_by_hop(16)),
        ("destination-options", |packet| {
            packet.destination_options(24)
        }),
        ("routing", |packet| packet.routing(2, 0, &[NODE6])),
        ("authentication", |packet| packet.authentication(20)),
        ("mobility", |packet| packet.options(MOBILITY, 8)),
        ("hip", |packet| packet.options(HIP, 40)),
        ("shim6", |packet| packet.options(SHIM6, 16)),
    ];
    for (first_name, first) in headers {
        for (second_name, second) in headers {
            let name = format!("headers/order/{first_name}-{second_name}");
            rows.chain(&name, |packet| second(first(packet)));
            let name = format!("headers/order/{first_name}-{second_name}-atomic-fragment-first");
            rows.chain(&name, |packet| second(first(packet.fragment(0, false, 5))));
            let name =
                format!("headers/order/hop-by-hop-atomic-fragment-{first_name}-{second_name}");
            rows.chain(&name, |packet| {
                second(first(packet.hop_by_hop(8).fragment(0, false, 5)))
            });
        }
    }
}

/// The number of headers has no limit.
fn chains(rows: &mut Rows) {
    let counts = (1..=170).chain([255, 256, 257, 500, 1000, 1110, 4000, 8000]);
    for count in counts {
        let chain = |packet: V6| (0..count).fold(packet, |packet, _| packet.destination_options(8));
        for source in Source::BOTH {
            let want = match source {
                Source::Unlisted => Drop(Unauthorized),
                Source::Listed => Pass(Authorized),
            };
            let name = |what: &str| format!("headers/chain/{count}/{what}/{}", source.word());
            let frame = chain(v6(source)).syn(CLIENT_PORT, 6443).frame();
            rows.add(name("tcp-6443"), frame, want);
            let frame = chain(v6(source)).syn(CLIENT_PORT, 6444).frame();
            rows.add(name("tcp-6444"), frame, Pass(OtherPort));
            let frame = chain(v6(source)).datagram(CLIENT_PORT, 6443, b"").frame();
            rows.add(name("udp-6443"), frame, Pass(NotTcp));
        }
    }
    for count in [2, 9, 40, 170] {
        rows.chain(&format!("headers/chain/{count}/mixed"), |packet| {
            (0..count).fold(packet.hop_by_hop(8), |packet, at| match at % 3 {
                0 => packet.destination_options(8),
                1 => packet.routing(0, 0, &[]),
                _ => packet.authentication(16),
            })
        });
    }
    rows.under(
        Rules::Monitor,
        "headers/chain/170/monitored",
        (0..170)
            .fold(v6(Source::Unlisted), |packet, _| {
                packet.destination_options(8)
            })
            .syn(CLIENT_PORT, 443)
            .frame(),
        filter_common::Verdict::WouldDrop(Unauthorized),
    );
}

/// Numbers that end the walk, and chains that do not end.
fn ends(rows: &mut Rows) {
    for (name, number) in [
        ("esp", 50),
        ("nothing", 59),
        ("ipcomp", 108),
        ("experiment", 253),
        ("udp", UDP),
    ] {
        rows.ordinary(
            &format!("headers/end/{name}-then-what-looks-like-a-syn"),
            |source| {
                let segment = v6(source).syn(CLIENT_PORT, 6443).packet()[40..].to_vec();
                v6(source)
                    .destination_options(8)
                    .payload(number, &segment)
                    .frame()
            },
            NotTcp,
        );
    }
    for (name, number) in OPTIONS {
        rows.doubt(
            &format!("headers/end/{name}-longer-than-the-packet"),
            |source| {
                let segment = v6(source).syn(CLIENT_PORT, 80).packet()[40..].to_vec();
                v6(source)
                    .header(number, &[0, 200, 0, 0, 0, 0, 0, 0])
                    .payload(TCP, &segment)
                    .frame()
            },
            Truncated,
        );
        rows.doubt(
            &format!("headers/end/{name}-announced-and-not-there"),
            |source| v6(source).announces(number).frame(),
            Truncated,
        );
    }
    // The header's own source decides, not the one from the home address option (RFC 6275 section
    // 6.3).
    for (name, source, home, want) in [
        (
            "listed-home",
            Source::Unlisted,
            Source::Listed,
            Drop(Unauthorized),
        ),
        (
            "unlisted-home",
            Source::Listed,
            Source::Unlisted,
            Pass(Authorized),
        ),
    ] {
        let mut options = vec![0, 2, 1, 2, 0, 0, 0xc9, 16];
        options.extend(home.v6().octets());
        let frame = v6(source)
            .header(DESTINATION_OPTIONS, &options)
            .syn(CLIENT_PORT, 6443)
            .frame();
        rows.add(format!("headers/home-address/{name}"), frame, want);
    }
}
