//! Frames larger than a page: the program sees their first part as memory, the rest through a
//! helper.

use filter_common::{
    DropReason::{HeadersTooDeep, IncompleteFirstFragment, Truncated, Unauthorized},
    PassReason::{Authorized, NotTcp, OtherPort},
    Verdict::{Drop, Pass},
};

use super::{
    row::{Rows, Source, v4, v6},
    rules::Rules,
};
use crate::packets::{CLIENT_PORT, TCP, V6};

pub(super) fn add(rows: &mut Rows) {
    data(rows);
    // One header after the other across the end of the linear part, in every position: 3,520 bytes
    // on x86-64.
    for fill in (3_304..3_600).step_by(8) {
        rows.chain(&format!("big/options-of-{fill}"), |packet| {
            filled(packet, fill)
        });
    }
    for fill in (3_400..3_540).step_by(4) {
        rows.segment(&format!("big/authentication-of-{fill}"), |source| {
            let packet = v6(source).destination_options(2_048).authentication(1_028);
            packet
                .authentication(fill - 2_048 - 1_028)
                .syn(CLIENT_PORT, 6443)
                .frame()
        });
    }
    for fill in [2_048, 4_096, 8_192, 16_384, 32_768, 60_000] {
        rows.chain(&format!("big/options-of-{fill}"), |packet| {
            filled(packet, fill)
        });
        rows.doubt(
            &format!("big/first-fragment-with-options-of-{fill}"),
            |source| {
                filled(v6(source).fragment(0, true, 1), fill)
                    .announces(TCP)
                    .frame()
            },
            IncompleteFirstFragment,
        );
        rows.doubt(
            &format!("big/cut-behind-options-of-{fill}"),
            |source| {
                filled(v6(source), fill)
                    .syn(CLIENT_PORT, 6443)
                    .cut(fill + 3)
                    .frame()
            },
            Truncated,
        );
    }
    // The last offset at which a port can be read, and the first at which it cannot.
    jumbograms(rows);
}

/// A packet after options of `fill` bytes in all.
fn filled(mut packet: V6, mut fill: usize) -> V6 {
    while fill > 0 {
        let len = fill.min(2_048);
        packet = packet.destination_options(len);
        fill -= len;
    }
    packet
}

/// Ordinary segments with a lot of data.
fn data(rows: &mut Rows) {
    for len in [1_448, 3_400, 3_600, 8_948, 20_000, 65_000] {
        rows.segment(&format!("big/ipv4-data-of-{len}"), |source| {
            let segment = v4(source).syn(CLIENT_PORT, 6443).packet()[20..].to_vec();
            v4(source)
                .payload(TCP, &[segment, vec![7; len]].concat())
                .frame()
        });
        rows.segment(&format!("big/ipv6-data-of-{len}"), |source| {
            v6(source)
                .syn(CLIENT_PORT, 443)
                .bytes(&vec![7; len])
                .frame()
        });
        rows.ordinary(
            &format!("big/ipv4-udp-data-of-{len}"),
            |source| {
                v4(source)
                    .datagram(CLIENT_PORT, 6443, &vec![7; len])
                    .frame()
            },
            NotTcp,
        );
        rows.ordinary(
            &format!("big/ipv6-other-port-data-of-{len}"),
            |source| {
                v6(source)
                    .syn(CLIENT_PORT, 6444)
                    .bytes(&vec![7; len])
                    .frame()
            },
            OtherPort,
        );
    }
}

/// Nothing beyond 65,535 bytes from the start of the frame is read.
fn jumbograms(rows: &mut Rows) {
    // The fixed header ends at 54; the ports are at `54 + fill`.
    for (name, fill, reached) in [
        ("last-readable", 65_480, true),
        ("first-unreadable", 65_488, false),
        ("far", 66_000, false),
    ] {
        for source in Source::BOTH {
            // The jumbogram's length is zero, so the packet ends with the frame.
            let packet = filled(v6(source).hop_by_hop(8), fill - 8).syn(CLIENT_PORT, 6443);
            let want = match (source, reached) {
                (Source::Unlisted, true) => Drop(Unauthorized),
                (Source::Unlisted, false) => Drop(HeadersTooDeep),
                (Source::Listed, true) => Pass(Authorized),
                (Source::Listed, false) => {
                    Pass(filter_common::PassReason::AuthorizedUnclassifiable)
                }
            };
            let name = format!("big/jumbogram/{name}/{}", source.word());
            rows.add(name, packet.payload_len(0).frame(), want);
        }
    }
    // The last header ends beyond both that limit and the packet, so the port cannot be read.
    rows.doubt(
        "big/beyond-reach-and-packet",
        |source| {
            let packet = filled(v6(source), 64_000).destination_options(2_048);
            packet.syn(CLIENT_PORT, 6443).cut(64_016).frame()
        },
        Truncated,
    );
    // If a routing header may follow, the destination is not certain either.
    let unread = filled(
        V6::new(Source::Unlisted.v6(), super::row::OTHER6).hop_by_hop(8),
        66_000,
    );
    rows.under(
        Rules::Destinations,
        "big/jumbogram/unguarded-destination",
        unread.announces(43).bytes(&[0; 64]).payload_len(0).frame(),
        Drop(HeadersTooDeep),
    );
}
