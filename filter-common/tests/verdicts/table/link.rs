//! The link layer: tags, EtherTypes, frames that are too short.

use filter_common::{
    DropReason::{HeadersTooDeep, Truncated, Unauthorized},
    PassReason::{Authorized, NotIp, NotTcp, OtherPort, ShortHeader},
    Verdict::{Drop, Pass},
};

use super::row::{FAMILIES, Rows, Source, syn_packet, v4, v6};
use crate::packets::{
    CLIENT_PORT,
    ethernet::{HEADER_LEN, IPV4, IPV6, TAG_8021AD, TAG_8021Q, tagged_as},
    tagged, typed,
};

pub(super) fn add(rows: &mut Rows) {
    tags(rows);
    types(rows);
    truncated(rows);
    addresses(rows);
}

fn tags(rows: &mut Rows) {
    type Tag = fn(usize) -> (u16, u16);
    let mixes: [(&str, Tag); 6] = [
        ("8021q-priority", |_| (TAG_8021Q, 0)),
        ("8021ad-priority", |_| (TAG_8021AD, 0)),
        ("8021q-id-5", |_| (TAG_8021Q, 5)),
        ("8021q-priority-bits-7", |_| (TAG_8021Q, 0xe000)),
        ("alternating", |at| ([TAG_8021AD, TAG_8021Q][at % 2], 0)),
        ("alternating-with-ids", |at| {
            ([TAG_8021Q, TAG_8021AD][at % 2], [0, 100][at % 2])
        }),
    ];
    for (mix, tag) in mixes {
        for count in [1, 2, 3, 8, 100, 2230] {
            let tags: Vec<_> = (0..count).map(tag).collect();
            for (family, is_v6) in FAMILIES {
                let name = format!("link/tags/{count}-{mix}/{family}");
                for port in [443, 6443] {
                    rows.segment(&format!("{name}/tcp-{port}"), |source| {
                        tagged(&tags, &syn_packet(is_v6, source, port))
                    });
                }
                let other = |source| tagged(&tags, &syn_packet(is_v6, source, 6442));
                rows.ordinary(&format!("{name}/tcp-6442"), other, OtherPort);
                let udp = |source| tagged(&tags, &udp_packet(is_v6, source));
                rows.ordinary(&format!("{name}/udp-6443"), udp, NotTcp);
            }
            let arp = tagged_as(0x0806, &tags, &[0; 28]);
            rows.add(format!("link/tags/{count}-{mix}/arp"), arp, Pass(NotIp));
        }
    }
    // Two bytes of a tag, or its type alone, at the end of the frame.
    for count in [1, 2, 3, 40] {
        let tags = vec![(TAG_8021Q, 0); count];
        let whole = tagged_as(TAG_8021Q, &tags, &[]);
        for cut in 1..=4 {
            let frame = whole[..whole.len() - cut].to_vec();
            rows.add(
                format!("link/tags/cut/{cut}-bytes-off-{count}"),
                frame,
                Pass(ShortHeader),
            );
        }
    }
    // Beyond the readable part, the source is unknown.
    let tags = vec![(TAG_8021Q, 0); 16_381];
    rows.hostile(
        "link/tags/beyond-reach",
        |source| tagged(&tags, &syn_packet(false, source, 80)),
        HeadersTooDeep,
    );
    let tags = vec![(TAG_8021AD, 0); 16_371];
    let frame = |source| tagged(&tags, &syn_packet(true, source, 80));
    rows.hostile("link/tags/ip-header-beyond-reach", frame, HeadersTooDeep);
}

fn udp_packet(is_v6: bool, source: Source) -> Vec<u8> {
    if is_v6 {
        v6(source).datagram(CLIENT_PORT, 6443, b"?").packet()
    } else {
        v4(source).datagram(CLIENT_PORT, 6443, b"?").packet()
    }
}

fn types(rows: &mut Rows) {
    for (name, ether_type) in [
        ("loopback-0060", 0x0060),
        ("length-46", 46),
        ("length-1500", 1500),
        ("first-ethertype-0600", 0x0600),
        ("arp", 0x0806),
        ("reverse-arp", 0x8035),
        ("old-qinq-9100", 0x9100),
        ("old-qinq-9200", 0x9200),
        ("mpls", 0x8847),
        ("pppoe-session", 0x8864),
        ("lldp", 0x88cc),
        ("macsec", 0x88e5),
        ("service-tag-88e7", 0x88e7),
        ("bridged-ethernet", 0x6558),
        ("ffff", 0xffff),
    ] {
        for (family, is_v6) in FAMILIES {
            rows.ordinary(
                &format!("link/type/{name}/{family}-syn-behind"),
                |source| typed(ether_type, &syn_packet(is_v6, source, 6443)),
                NotIp,
            );
            // Read as a tag, there would be a packet.
            rows.ordinary(
                &format!("link/type/{name}/{family}-syn-where-a-tag-would-end"),
                |source| {
                    let inside = if is_v6 { IPV6 } else { IPV4 };
                    tagged_as(inside, &[(ether_type, 0)], &syn_packet(is_v6, source, 6443))
                },
                NotIp,
            );
        }
    }
    for (family, is_v6) in FAMILIES {
        let inside = if is_v6 { IPV6 } else { IPV4 };
        rows.ordinary(
            &format!("link/llc/{family}-in-snap"),
            |source| {
                let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &inside.to_be_bytes()].concat();
                let payload = [snap, syn_packet(is_v6, source, 6443)].concat();
                typed(u16::try_from(payload.len()).expect("it is short"), &payload)
            },
            NotIp,
        );
        rows.ordinary(
            &format!("link/llc/{family}-by-its-sap"),
            |source| {
                let payload = [&[6, 6, 3][..], &syn_packet(is_v6, source, 6443)].concat();
                typed(u16::try_from(payload.len()).expect("it is short"), &payload)
            },
            NotIp,
        );
        rows.ordinary(
            &format!("link/type/{family}-under-the-other-ethertype"),
            |source| {
                typed(
                    if is_v6 { IPV4 } else { IPV6 },
                    &padded(syn_packet(is_v6, source, 6443)),
                )
            },
            NotIp,
        );
        for version in [0, 1, 5, 7, 15] {
            rows.ordinary(
                &format!("link/type/{family}-version-{version}"),
                |source| {
                    let mut packet = syn_packet(is_v6, source, 6443);
                    packet[0] = packet[0] & 0x0f | version << 4;
                    typed(inside, &packet)
                },
                NotIp,
            );
        }
    }
}

/// The packet, padded to the smallest frame.
fn padded(mut packet: Vec<u8>) -> Vec<u8> {
    packet.resize(packet.len().max(46), 0);
    packet
}

/// Every frame at every length: every byte up to the port is needed, and none after it.
fn truncated(rows: &mut Rows) {
    for tags in [0, 1, 3] {
        let tags = vec![(TAG_8021Q, 0); tags];
        for (family, is_v6) in FAMILIES {
            for source in Source::BOTH {
                let whole = tagged(&tags, &syn_packet(is_v6, source, 6443));
                let ip = HEADER_LEN + 4 * tags.len();
                let ports = ip + if is_v6 { 40 } else { 20 };
                for len in 0..=whole.len() {
                    let want = match (len, source) {
                        _ if len < ports => Pass(ShortHeader),
                        (_, Source::Unlisted) if len < ports + 4 => Drop(Truncated),
                        (_, Source::Unlisted) => Drop(Unauthorized),
                        (_, Source::Listed) if len < ports + 4 => {
                            Pass(filter_common::PassReason::AuthorizedUnclassifiable)
                        }
                        (_, Source::Listed) => Pass(Authorized),
                    };
                    rows.add(
                        format!(
                            "link/cut/{family}-{}-tags-to-{len}/{}",
                            tags.len(),
                            source.word()
                        ),
                        whole[..len].to_vec(),
                        want,
                    );
                }
            }
        }
    }
}

/// The destination address of a frame does not matter.
fn addresses(rows: &mut Rows) {
    for (name, mac) in [
        ("broadcast", [0xff; 6]),
        ("ipv4-multicast", [0x01, 0, 0x5e, 0, 0, 1]),
        ("ipv6-multicast", [0x33, 0x33, 0, 0, 0, 1]),
        ("somebody-else", [0x02, 0, 0, 0, 0, 0x99]),
        ("all-zero", [0; 6]),
    ] {
        for (family, is_v6) in FAMILIES {
            rows.segment(&format!("link/to/{name}/{family}"), |source| {
                let mut frame = tagged(&[], &syn_packet(is_v6, source, 6443));
                frame[..6].copy_from_slice(&mac);
                frame
            });
        }
    }
}
