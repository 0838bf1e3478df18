//! Packets with headers that Linux does not follow.

use std::net::Ipv6Addr;

use tests::{
    packets::{TCP, UDP, frame, syn},
    table::{NODE6, Source, v4, v6},
};

use super::case::{Add, Cases, Works};

pub(super) fn add(cases: &mut Cases) {
    confusion(cases);
    tunnels(cases);
}

/// With conntrack, a misplaced fragment header does not count.
fn confusion(cases: &mut Cases) {
    const OPTIONS: [u8; 8] = [TCP, 0, 1, 4, 0, 0, 0, 0];
    let fronts: [(&str, Add); 3] = [
        ("options", |packet| packet.destination_options(8)),
        ("hop-by-hop-and-options", |packet| {
            packet.hop_by_hop(8).destination_options(8)
        }),
        ("routing", |packet| packet.routing(0, 0, &[])),
    ];
    for (name, front) in fronts {
        let works = if name == "options" {
            Works::Tracked
        } else {
            Works::Never
        };
        cases.forbidden(&format!("confusion/{name}/says-udp"), works, |who, tag| {
            let segment = syn(who.v6().into(), NODE6.into(), tag, 6443);
            let packet = front(v6(who)).fragment(0, false, tag.into());
            vec![
                packet
                    .payload(UDP, &[&OPTIONS[..], &segment].concat())
                    .frame(),
            ]
        });
    }
    // The kernel overwrites a byte of the source with the value of the fragment header.
    for (front, byte) in [(224, 0), (232, 8)] {
        cases.forbidden(
            &format!("confusion/source-byte-{byte}-rewritten"),
            Works::Tracked,
            |who, tag| {
                let mut rewritten = who.v6().octets();
                rewritten[byte] = UDP;
                let segment = syn(Ipv6Addr::from(rewritten).into(), NODE6.into(), tag, 6443);
                let packet = v6(who).destination_options(front).destination_options(8);
                let packet = packet.fragment(0, false, tag.into());
                vec![
                    packet
                        .payload(UDP, &[&OPTIONS[..], &segment].concat())
                        .frame(),
                ]
            },
        );
    }
}

/// Linux decapsulates a packet from a segment routing header without a tunnel device.
fn tunnels(cases: &mut Cases) {
    let fronts: [(&str, Add); 4] = [
        ("segments", |packet| packet.segments(0, &[NODE6])),
        ("segments-left", |packet| {
            packet.segments(1, &[NODE6, NODE6])
        }),
        ("options-and-segments", |packet| {
            packet.destination_options(8).segments(0, &[NODE6])
        }),
        ("atomic-fragment-and-segments", |packet| {
            packet.fragment(0, false, 5).segments(0, &[NODE6])
        }),
    ];
    for (name, front) in fronts {
        for outer in Source::BOTH {
            let name = format!("tunnels/{name}/from-{}", outer.word());
            // The packet of an atomic fragment is not decapsulated everywhere.
            let works = if name.contains("atomic") {
                Works::Never
            } else {
                Works::Always
            };
            cases.hostile(&format!("{name}/ipv6"), works, |who, tag| {
                vec![
                    front(v6(outer))
                        .payload(41, &v6(who).syn(tag, 443).packet())
                        .frame(),
                ]
            });
            cases.hostile(&format!("{name}/ipv4"), works, |who, tag| {
                vec![
                    front(v6(outer))
                        .payload(4, &v4(who).syn(tag, 443).packet())
                        .frame(),
                ]
            });
            cases.ordinary(&format!("{name}/ipv6-udp"), works, |who, tag| {
                vec![
                    front(v6(outer))
                        .payload(41, &v6(who).datagram(tag, 6443, b"?").packet())
                        .frame(),
                ]
            });
            cases.ordinary(&format!("{name}/ipv6-other-port"), works, |who, tag| {
                vec![
                    front(v6(outer))
                        .payload(41, &v6(who).syn(tag, 80).packet())
                        .frame(),
                ]
            });
        }
    }
    // Three deep, no source is trusted.
    cases.forbidden("tunnels/three-deep", Works::Always, |who, tag| {
        let around = |inner: &[u8]| {
            v6(Source::Listed)
                .segments(0, &[NODE6])
                .payload(41, inner)
                .packet()
        };
        vec![frame(&around(&around(&v6(who).syn(tag, 443).packet())))]
    });
}
