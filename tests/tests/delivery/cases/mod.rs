//! Evasions, each from both sources, each with a source port of its own.

mod case;
mod fragments;
mod misleading;
mod random;
mod routes;

use tests::{
    packets::{
        ICMP6, V6,
        ethernet::{TAG_8021AD, TAG_8021Q},
        tagged,
    },
    table::{NODE6, v4, v6},
};

use case::{Add, Cases};
pub(crate) use case::{Case, Works};
pub(crate) use routes::routes;

/// All cases of the usual policy.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Cases::new();
    chains(&mut cases);
    tags(&mut cases);
    options(&mut cases);
    fragments::add(&mut cases);
    misleading::add(&mut cases);
    random::add(&mut cases);
    cases.cases
}

fn many(packet: V6, count: usize) -> V6 {
    (0..count).fold(packet, |packet, _| packet.destination_options(8))
}

fn chains(cases: &mut Cases) {
    let chains: [(&str, Add); 18] = [
        ("nothing", |packet| packet),
        ("options", |packet| packet.destination_options(8)),
        ("options-of-1408", |packet| {
            packet.destination_options(1_408)
        }),
        ("options-of-2048", |packet| {
            packet.destination_options(2_048)
        }),
        ("options-of-2048-four-times", |packet| {
            (0..4).fold(packet, |packet, _| packet.destination_options(2_048))
        }),
        ("options-behind-data-of-3300", |packet| {
            packet.destination_options(2_048).destination_options(1_448)
        }),
        ("hop-by-hop", |packet| packet.hop_by_hop(8)),
        ("hop-by-hop-and-options", |packet| {
            packet.hop_by_hop(264).destination_options(24)
        }),
        ("routing", |packet| packet.routing(0, 0, &[NODE6])),
        ("routing-of-no-known-type", |packet| {
            packet.routing(253, 0, &[])
        }),
        ("segments", |packet| packet.segments(0, &[NODE6])),
        ("routing-and-options-in-turn", |packet| {
            packet
                .routing(0, 0, &[])
                .destination_options(16)
                .routing(2, 0, &[NODE6])
                .destination_options(8)
        }),
        ("atomic-fragment", |packet| packet.fragment(0, false, 77)),
        ("hop-by-hop-and-atomic-fragment", |packet| {
            packet.hop_by_hop(8).fragment(0, false, 78)
        }),
        ("atomic-fragment-and-options", |packet| {
            packet.fragment(0, false, 79).destination_options(24)
        }),
        ("8-options", |packet| many(packet, 8)),
        ("170-options", |packet| many(packet, 170)),
        ("1110-options", |packet| many(packet, 1_110)),
    ];
    for (name, chain) in chains {
        for port in [443, 6443] {
            cases.hostile(
                &format!("chain/{name}/tcp-{port}"),
                Works::Always,
                |who, tag| vec![chain(v6(who)).syn(tag, port).frame()],
            );
        }
        for port in [80, 442, 444, 6444] {
            cases.ordinary(
                &format!("chain/{name}/tcp-{port}"),
                Works::Always,
                |who, tag| vec![chain(v6(who)).syn(tag, port).frame()],
            );
        }
        cases.ordinary(&format!("chain/{name}/udp"), Works::Always, |who, tag| {
            vec![chain(v6(who)).datagram(tag, 6443, b"?").frame()]
        });
    }
    cases.hostile("chain/payload-length-0", Works::Always, |who, tag| {
        vec![v6(who).hop_by_hop(8).syn(tag, 6443).payload_len(0).frame()]
    });
    cases.ordinary("icmp/ipv4-echo", Works::Always, |who, tag| {
        let [high, low] = tag.to_be_bytes();
        vec![
            v4(who)
                .payload(1, &summed(0, &[8, 0, 0, 0, high, low, 0, 1]))
                .frame(),
        ]
    });
    cases.ordinary("icmp/ipv6-echo", Works::Always, |who, tag| {
        let [high, low] = tag.to_be_bytes();
        let pseudo = who
            .v6()
            .octets()
            .into_iter()
            .chain(NODE6.octets())
            .collect::<Vec<_>>();
        let start = words(&pseudo) + 8 + u32::from(ICMP6);
        vec![
            v6(who)
                .payload(ICMP6, &summed(start, &[128, 0, 0, 0, high, low, 0, 1]))
                .frame(),
        ]
    });
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// An ICMP message with its checksum.
fn summed(start: u32, message: &[u8]) -> Vec<u8> {
    let mut sum = start + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded it fits");
    let mut message = message.to_vec();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn tags(cases: &mut Cases) {
    type Tag = fn(usize) -> (u16, u16);
    let mixes: [(&str, Tag); 3] = [
        ("8021q", |_| (TAG_8021Q, 0)),
        ("8021ad", |_| (TAG_8021AD, 0)),
        ("alternating", |at| ([TAG_8021AD, TAG_8021Q][at % 2], 0)),
    ];
    for (mix, tag) in mixes {
        for count in [1, 2, 3, 8, 100, 350, 2_230] {
            let tags: Vec<_> = (0..count).map(tag).collect();
            let name = format!("tags/{count}-{mix}");
            cases.hostile(&format!("{name}/ipv4"), Works::Always, |who, tag| {
                vec![tagged(&tags, &v4(who).syn(tag, 6443).packet())]
            });
            cases.hostile(&format!("{name}/ipv6"), Works::Always, |who, tag| {
                vec![tagged(&tags, &v6(who).syn(tag, 443).packet())]
            });
            cases.ordinary(
                &format!("{name}/ipv4-other-port"),
                Works::Always,
                |who, tag| vec![tagged(&tags, &v4(who).syn(tag, 6444).packet())],
            );
            cases.ordinary(&format!("{name}/ipv6-udp"), Works::Always, |who, tag| {
                vec![tagged(&tags, &v6(who).datagram(tag, 6443, b"?").packet())]
            });
        }
    }
}

fn options(cases: &mut Cases) {
    for len in (0..=10).map(|words| words * 4) {
        cases.hostile(&format!("ipv4/{len}-nops"), Works::Always, |who, tag| {
            vec![v4(who).syn(tag, 6443).options(&vec![1; len]).frame()]
        });
        cases.ordinary(
            &format!("ipv4/{len}-nops-other-port"),
            Works::Always,
            |who, tag| vec![v4(who).syn(tag, 442).options(&vec![1; len]).frame()],
        );
        cases.ordinary(
            &format!("ipv4/{len}-nops-udp"),
            Works::Always,
            |who, tag| {
                vec![
                    v4(who)
                        .datagram(tag, 6443, b"?")
                        .options(&vec![1; len])
                        .frame(),
                ]
            },
        );
    }
    // A router alert and the end of the list, where a header without options has its ports.
    cases.hostile("ipv4/end-of-options", Works::Always, |who, tag| {
        vec![
            v4(who)
                .syn(tag, 443)
                .options(&[0, 0, 0, 80, 0, 0, 0, 80])
                .frame(),
        ]
    });
    for ihl in 0..5 {
        cases.hostile(&format!("ipv4/ihl-{ihl}"), Works::Never, |who, tag| {
            vec![v4(who).syn(tag, 443).version_ihl(0x40 | ihl).frame()]
        });
    }
}
