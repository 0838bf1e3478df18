//! IPv6: ports, numbers, lengths, embedded addresses.

use std::net::Ipv6Addr;

use filter_common::{
    DropReason::{Truncated, Unauthorized},
    PassReason::{
        Authorized, AuthorizedUnclassifiable, LaterFragment, NotTcp, OtherPort, ShortHeader,
    },
    Verdict::{Drop, Pass},
};

use super::row::{NODE6, Rows, Source, v6};
use crate::packets::{CLIENT_PORT, ICMP6, SCTP, TCP, V6};

pub(super) fn add(rows: &mut Rows) {
    ports(rows);
    numbers(rows);
    lengths(rows);
    embedded(rows);
    truncated(rows);
}

fn ports(rows: &mut Rows) {
    for port in [443, 6443] {
        rows.segment(&format!("ipv6/port/{port}"), |source| {
            v6(source).syn(CLIENT_PORT, port).frame()
        });
    }
    for port in [
        0, 1, 22, 80, 442, 444, 6442, 6444, 8443, 10250, 0x2b19, 0xbb01, 65_535,
    ] {
        let frame = |source| v6(source).syn(CLIENT_PORT, port).frame();
        rows.ordinary(&format!("ipv6/port/{port}"), frame, OtherPort);
    }
    for port in [443, 6443] {
        let reply = |source| v6(source).syn(port, 50_000).frame();
        rows.ordinary(&format!("ipv6/reply-from-{port}"), reply, OtherPort);
        let udp = |source| v6(source).datagram(CLIENT_PORT, port, b"hello").frame();
        rows.ordinary(&format!("ipv6/udp-{port}"), udp, NotTcp);
        let ports = [CLIENT_PORT.to_be_bytes(), port.to_be_bytes()].concat();
        let sctp = |source| {
            v6(source)
                .payload(SCTP, &[&ports[..], &[0; 8]].concat())
                .frame()
        };
        rows.ordinary(&format!("ipv6/sctp-{port}"), sctp, NotTcp);
    }
    for flags in [0x00, 0x01, 0x04, 0x10, 0x11, 0x12, 0x18, 0x29, 0xff] {
        rows.segment(&format!("ipv6/flags-{flags:02x}"), |source| {
            let mut frame = v6(source).syn(CLIENT_PORT, 6443).frame();
            frame[14 + 40 + 13] = flags;
            frame
        });
    }
}

/// Every next-header number in front of the bytes of a SYN, and neighbour discovery.
fn numbers(rows: &mut Rows) {
    for number in 0..=255 {
        let frame = |source: Source| {
            let segment = v6(source).syn(CLIENT_PORT, 6443).packet()[40..].to_vec();
            v6(source).payload(number, &segment).frame()
        };
        let name = format!("ipv6/number-{number}");
        match number {
            TCP => rows.segment(&name, frame),
            // The port 6443 at the place of the fragment offset.
            44 => rows.ordinary(&name, frame, LaterFragment),
            // As any other extension header it names 156, the first byte of the source port.
            _ => rows.ordinary(&name, frame, NotTcp),
        }
    }
    for (name, kind) in [
        ("echo", 128),
        ("router-solicitation", 133),
        ("router-advertisement", 134),
        ("neighbour-solicitation", 135),
        ("neighbour-advertisement", 136),
    ] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &NODE6.octets()].concat();
        let frame = |source| v6(source).payload(ICMP6, &message).frame();
        rows.ordinary(&format!("ipv6/icmp/{name}"), frame, NotTcp);
    }
    rows.ordinary(
        "ipv6/icmp/listener-report-behind-router-alert",
        |source| {
            v6(source)
                .hop_by_hop(8)
                .payload(ICMP6, &[143, 0, 0, 0, 0, 0, 0, 0])
                .frame()
        },
        NotTcp,
    );
}

/// The bytes after the payload length are padding; a length of zero means the whole frame.
fn lengths(rows: &mut Rows) {
    for len in [1, 2, 3] {
        for port in [6443, 80] {
            rows.doubt(
                &format!("ipv6/payload-len-{len}/port-{port}-in-padding"),
                |source| v6(source).syn(CLIENT_PORT, port).payload_len(len).frame(),
                Truncated,
            );
        }
    }
    for len in [4, 19, 20, 21, 1452, 65_535] {
        rows.segment(&format!("ipv6/payload-len-{len}"), |source| {
            v6(source).syn(CLIENT_PORT, 6443).payload_len(len).frame()
        });
    }
    rows.segment(
        "ipv6/payload-len-0/hop-by-hop-without-jumbo-option",
        |source| {
            v6(source)
                .hop_by_hop(8)
                .syn(CLIENT_PORT, 6443)
                .payload_len(0)
                .frame()
        },
    );
    rows.segment("ipv6/payload-len-0/hop-by-hop-and-others", |source| {
        let packet = v6(source)
            .hop_by_hop(16)
            .destination_options(24)
            .routing(0, 0, &[]);
        packet.syn(CLIENT_PORT, 443).payload_len(0).frame()
    });
    rows.ordinary(
        "ipv6/payload-len-0/hop-by-hop-other-port",
        |source| {
            v6(source)
                .hop_by_hop(8)
                .syn(CLIENT_PORT, 6442)
                .payload_len(0)
                .frame()
        },
        OtherPort,
    );
    rows.segment("ipv6/payload-len-0/tcp", |source| {
        v6(source).syn(CLIENT_PORT, 6443).payload_len(0).frame()
    });
    // Padding that looks like the rest of the chain.
    rows.doubt(
        "ipv6/padding-is-a-syn",
        |source| {
            v6(source)
                .announces(TCP)
                .bytes(&[0; 3])
                .payload_len(3)
                .frame_and(source)
        },
        Truncated,
    );
    rows.doubt(
        "ipv6/padding-is-the-end-of-the-options",
        |source| {
            v6(source)
                .destination_options(24)
                .syn(CLIENT_PORT, 6443)
                .payload_len(16)
                .frame()
        },
        Truncated,
    );
    rows.doubt(
        "ipv6/padding-is-the-second-header-and-a-syn-to-another-port",
        |source| {
            let packet = v6(source).destination_options(8).destination_options(8);
            packet.syn(CLIENT_PORT, 80).payload_len(8).frame()
        },
        Truncated,
    );
    rows.ordinary(
        "ipv6/udp-with-a-syn-as-padding",
        |source| {
            v6(source)
                .datagram(CLIENT_PORT, 6443, b"")
                .frame_and(source)
        },
        NotTcp,
    );
    rows.ordinary(
        "ipv6/nothing-follows-but-a-syn-as-padding",
        |source| v6(source).frame_and(source),
        NotTcp,
    );
}

impl V6 {
    /// The frame with a SYN after the packet's end.
    fn frame_and(self, source: Source) -> Vec<u8> {
        [
            self.frame(),
            v6(source).syn(CLIENT_PORT, 6443).packet()[40..].to_vec(),
        ]
        .concat()
    }
}

/// An IPv6 address that embeds a listed IPv4 address is not listed.
fn embedded(rows: &mut Rows) {
    let listed = Source::Listed.v4();
    let [a, b, c, d] = listed.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    for (name, source, want) in [
        ("mapped", listed.to_ipv6_mapped(), Drop(Unauthorized)),
        (
            "compatible",
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Drop(Unauthorized),
        ),
        (
            "6to4",
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Drop(Unauthorized),
        ),
        (
            "isatap",
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, high, low),
            Drop(Unauthorized),
        ),
        (
            "first-four-bytes",
            Ipv6Addr::new(high, low, 0, 0, 0, 0, 0, 0),
            Drop(Unauthorized),
        ),
        (
            "translated",
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Pass(Authorized),
        ),
        ("unspecified", Ipv6Addr::UNSPECIFIED, Drop(Unauthorized)),
        ("loopback", Ipv6Addr::LOCALHOST, Drop(Unauthorized)),
    ] {
        let packet = V6::new(source, NODE6);
        let frame = packet.clone().syn(CLIENT_PORT, 6443).frame();
        rows.add(format!("ipv6/source-{name}/tcp"), frame, want);
        let frame = packet.datagram(CLIENT_PORT, 6443, b"").frame();
        rows.add(format!("ipv6/source-{name}/udp"), frame, Pass(NotTcp));
    }
}

/// A long chain at every length.
fn truncated(rows: &mut Rows) {
    let packet = |source| {
        let packet = v6(source)
            .hop_by_hop(8)
            .destination_options(16)
            .routing(0, 0, &[NODE6]);
        packet
            .authentication(16)
            .destination_options(8)
            .syn(CLIENT_PORT, 443)
    };
    for source in Source::BOTH {
        let whole = packet(source).frame();
        let ports = 14 + 40 + 8 + 16 + 24 + 16 + 8;
        for len in 14..=whole.len() {
            let want = match source {
                _ if len < 54 => Pass(ShortHeader),
                Source::Unlisted if len < ports + 4 => Drop(Truncated),
                Source::Unlisted => Drop(Unauthorized),
                Source::Listed if len < ports + 4 => Pass(AuthorizedUnclassifiable),
                Source::Listed => Pass(Authorized),
            };
            let name = format!("ipv6/cut/chain-to-{len}/{}", source.word());
            rows.add(name, whole[..len].to_vec(), want);
        }
    }
}
