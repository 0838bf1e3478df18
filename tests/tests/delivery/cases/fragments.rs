//! Fragments: of every size, in any order, complete and not.

use std::net::IpAddr;

use tests::{
    packets::{TCP, V4, frame, syn},
    table::{NODE4, NODE6, Source, v4, v6},
};

use super::case::{Cases, Works, cut_at};

pub(super) fn add(cases: &mut Cases) {
    ipv4_fragments(cases);
    ipv6_fragments(cases);
}

fn ipv4_fragments(cases: &mut Cases) {
    let long = |who: Source, tag, port| {
        let segment = long_syn(who.v4().into(), NODE4.into(), tag, port);
        v4(who).payload(TCP, &segment).identification(tag)
    };
    for cut in [8, 16, 24, 40, 56] {
        let pieces = move |who, tag, port| {
            let packet = long(who, tag, port);
            [packet.piece(0..cut), packet.piece(cut..60)]
        };
        let frames = |pieces: &[V4]| pieces.iter().map(V4::frame).collect::<Vec<_>>();
        let name = format!("ipv4/fragments-cut-at-{cut}");
        cases.hostile(&format!("{name}/in-order"), Works::Always, |who, tag| {
            frames(&pieces(who, tag, 6443))
        });
        cases.hostile(&format!("{name}/last-first"), Works::Always, |who, tag| {
            let [first, last] = pieces(who, tag, 6443);
            frames(&[last, first])
        });
        cases.hostile(
            &format!("{name}/do-not-fragment"),
            Works::Always,
            |who, tag| frames(&pieces(who, tag, 443).map(V4::dont_fragment)),
        );
        cases.hostile(&format!("{name}/first-twice"), Works::Never, |who, tag| {
            let [first, last] = pieces(who, tag, 443);
            frames(&[first.clone(), first, last])
        });
        cases.hostile(
            &format!("{name}/first-rewritten"),
            Works::Never,
            |who, tag| {
                let [first, last] = pieces(who, tag, 443);
                let [other, _] = pieces(who, tag, 80);
                frames(&[other, first, last])
            },
        );
        cases.ordinary(&format!("{name}/other-port"), Works::Always, |who, tag| {
            frames(&pieces(who, tag, 80))
        });
    }
    cases.ordinary("ipv4/fragments-of-a-datagram", Works::Always, |who, tag| {
        let packet = v4(who).datagram(tag, 6443, &[7; 100]).identification(tag);
        vec![packet.piece(0..48).frame(), packet.piece(48..108).frame()]
    });
}

/// Linux accepts a first fragment that ends before another extension header (RFC 7112 forbids it),
/// but not one that ends inside TCP's header. Conntrack accepts no fragment but the last below the
/// minimum MTU, so each case comes small and large.
fn ipv6_fragments(cases: &mut Cases) {
    for (size, fill, works) in [("small", 16, Works::Plain), ("large", 1_256, Works::Always)] {
        let packet = move |who: Source, tag, port| {
            let packet = v6(who).destination_options(fill).destination_options(24);
            packet.payload(TCP, &long_syn(who.v6().into(), NODE6.into(), tag, port))
        };
        let tcp = fill + 24;
        for (place, cut, works) in [
            ("inside-the-first-header", fill - 8, works),
            ("between-headers", fill, works),
            ("inside-the-last-header", fill + 8, Works::Never),
            ("before-tcp", tcp, Works::Never),
            ("behind-the-port", tcp + 8, Works::Never),
            ("behind-tcp", tcp + 24, works),
        ] {
            let name = format!("ipv6/fragments-{size}/{place}");
            cases.hostile(&format!("{name}/in-order"), works, |who, tag| {
                cut_at(&packet(who, tag, 6443), &[cut], tag)
            });
            cases.hostile(&format!("{name}/last-first"), works, |who, tag| {
                let mut frames = cut_at(&packet(who, tag, 443), &[cut], tag);
                frames.reverse();
                frames
            });
            cases.hostile(&format!("{name}/first-twice"), Works::Never, |who, tag| {
                let frames = cut_at(&packet(who, tag, 443), &[cut], tag);
                [&frames[..1], &frames].concat()
            });
            cases.hostile(&format!("{name}/hop-by-hop-in-front"), works, |who, tag| {
                let pieces = cut_at(&packet(who, tag, 443), &[cut], tag);
                pieces
                    .into_iter()
                    .map(|piece| behind_hop_by_hop(&piece))
                    .collect()
            });
        }
        let name = format!("ipv6/fragments-{size}");
        cases.ordinary(&format!("{name}/other-port"), works, |who, tag| {
            cut_at(&packet(who, tag, 6444), &[tcp + 24], tag)
        });
        cases.ordinary(&format!("{name}/datagram"), works, |who, tag| {
            let packet = v6(who).datagram(tag, 6443, &vec![7; fill + 100]);
            cut_at(&packet, &[fill + 48], tag)
        });
    }
}

/// The frame with a hop-by-hop header directly after the fixed header.
fn behind_hop_by_hop(whole: &[u8]) -> Vec<u8> {
    let (fixed, rest) = whole[14..].split_at(40);
    let mut packet = fixed.to_vec();
    let len = u16::try_from(rest.len() + 8).expect("it is short");
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet[6] = 0;
    packet.extend([fixed[6], 0, 0x1e, 4, 0, 0, 0, 0]);
    packet.extend(rest);
    frame(&packet)
}

/// A SYN with forty bytes of data, all zero.
fn long_syn(source: IpAddr, destination: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    let mut segment = syn(source, destination, source_port, port);
    segment.resize(60, 0);
    // The zeros change the checksum only by their length.
    let sum = u16::from_be_bytes([segment[16], segment[17]]);
    let (less, borrow) = sum.overflowing_sub(40);
    segment[16..18].copy_from_slice(&(less - u16::from(borrow)).to_be_bytes());
    segment
}
