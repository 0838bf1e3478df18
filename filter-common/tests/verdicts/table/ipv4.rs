//! IPv4: options, lengths, protocols, fragments.

use filter_common::{
    DropReason::{IncompleteFirstFragment, Malformed, Truncated},
    PassReason::{LaterFragment, NotTcp, OtherPort},
};

use super::row::{Rows, Source, v4};
use crate::packets::{CLIENT_PORT, SCTP, TCP, V4};

pub(super) fn add(rows: &mut Rows) {
    ports(rows);
    options(rows);
    lengths(rows);
    protocols(rows);
    fragments(rows);
    authentication(rows);
}

fn syn(source: Source, port: u16) -> V4 {
    v4(source).syn(CLIENT_PORT, port)
}

fn ports(rows: &mut Rows) {
    for port in [443, 6443] {
        rows.segment(&format!("ipv4/port/{port}"), |source| {
            syn(source, port).frame()
        });
    }
    for port in [
        0, 1, 22, 80, 442, 444, 6442, 6444, 8443, 10250, 0x2b19, 0xbb01, 65_535,
    ] {
        rows.ordinary(
            &format!("ipv4/port/{port}"),
            |source| syn(source, port).frame(),
            OtherPort,
        );
    }
    for port in [443, 6443] {
        rows.ordinary(
            &format!("ipv4/reply-from-{port}"),
            |source| v4(source).syn(port, 50_000).frame(),
            OtherPort,
        );
    }
    // Flags are ignored.
    for flags in [0x00, 0x01, 0x04, 0x10, 0x11, 0x12, 0x18, 0x29, 0xff] {
        rows.segment(&format!("ipv4/flags-{flags:02x}"), |source| {
            let mut frame = syn(source, 6443).frame();
            frame[14 + 20 + 13] = flags;
            frame
        });
    }
    rows.segment("ipv4/data-offset-0", |source| {
        let mut frame = syn(source, 6443).frame();
        frame[14 + 20 + 12] = 0;
        frame
    });
}

/// Options that look like ports to a reader at offset 20.
fn options(rows: &mut Rows) {
    for ihl in 5..=15_u8 {
        let len = usize::from(ihl - 5) * 4;
        rows.segment(&format!("ipv4/ihl-{ihl}/nops"), |source| {
            syn(source, 6443).options(&vec![1; len]).frame()
        });
        rows.ordinary(
            &format!("ipv4/ihl-{ihl}/nops-other-port"),
            |source| syn(source, 6444).options(&vec![1; len]).frame(),
            OtherPort,
        );
        if ihl > 5 {
            // 50000 and 80, or 50000 and 6443, where a header without options has its ports.
            let decoy = |port: u16| {
                let ports = [50_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
                ports.repeat(len / 4)
            };
            rows.segment(&format!("ipv4/ihl-{ihl}/decoy-80"), |source| {
                syn(source, 6443).options(&decoy(80)).frame()
            });
            rows.ordinary(
                &format!("ipv4/ihl-{ihl}/decoy-6443"),
                |source| syn(source, 80).options(&decoy(6443)).frame(),
                OtherPort,
            );
        }
        rows.doubt(
            &format!("ipv4/ihl-{ihl}/ends-behind-the-options"),
            |source| syn(source, 6443).options(&vec![1; len]).cut(0).frame(),
            Truncated,
        );
    }
    for ihl in 0..5 {
        let byte = 0x40 | ihl;
        rows.doubt(
            &format!("ipv4/ihl-{ihl}/tcp"),
            |source| syn(source, 6443).version_ihl(byte).frame(),
            Malformed,
        );
        rows.doubt(
            &format!("ipv4/ihl-{ihl}/tcp-other-port"),
            |source| syn(source, 80).version_ihl(byte).frame(),
            Malformed,
        );
        rows.ordinary(
            &format!("ipv4/ihl-{ihl}/udp"),
            |source| {
                v4(source)
                    .datagram(CLIENT_PORT, 6443, b"?")
                    .version_ihl(byte)
                    .frame()
            },
            NotTcp,
        );
        rows.ordinary(
            &format!("ipv4/ihl-{ihl}/later-fragment"),
            |source| {
                syn(source, 6443)
                    .version_ihl(byte)
                    .fragment(1, false)
                    .frame()
            },
            LaterFragment,
        );
    }
    // The header claims more options than the frame has.
    rows.doubt(
        "ipv4/ihl-15-in-a-frame-for-10",
        |source| syn(source, 6443).version_ihl(0x4f).frame(),
        Truncated,
    );
}

/// The bytes after the total length are padding.
fn lengths(rows: &mut Rows) {
    for len in [1, 19, 20, 21, 22, 23] {
        rows.doubt(
            &format!("ipv4/total-len-{len}/port-in-padding"),
            |source| syn(source, 6443).total_len(len).frame(),
            Truncated,
        );
        rows.doubt(
            &format!("ipv4/total-len-{len}/other-port-in-padding"),
            |source| syn(source, 80).total_len(len).frame(),
            Truncated,
        );
    }
    for len in [24, 39, 40, 41, 1500, 65_535] {
        rows.segment(&format!("ipv4/total-len-{len}"), |source| {
            syn(source, 6443).total_len(len).frame()
        });
    }
    rows.segment("ipv4/total-len-0-means-the-frame", |source| {
        syn(source, 6443).total_len(0).frame()
    });
    let four = |source, port| syn(source, port).cut(4).frame();
    rows.segment("ipv4/four-bytes-of-tcp", |source| four(source, 6443));
    rows.ordinary(
        "ipv4/four-bytes-of-tcp-other-port",
        |source| four(source, 6442),
        OtherPort,
    );
    rows.doubt(
        "ipv4/three-bytes-of-tcp",
        |source| syn(source, 6443).cut(3).frame(),
        Truncated,
    );
    // Padding of the smallest frame that looks like a segment.
    for (name, port) in [("protected", 6443), ("other", 80)] {
        rows.doubt(
            &format!("ipv4/padding-is-a-syn-to-a-{name}-port"),
            |source| {
                [
                    v4(source).payload(TCP, &[]).frame(),
                    syn(source, port).packet()[20..].to_vec(),
                ]
                .concat()
            },
            Truncated,
        );
    }
    rows.ordinary(
        "ipv4/udp-with-a-syn-as-padding",
        |source| {
            let udp = v4(source).datagram(CLIENT_PORT, 6443, b"").frame();
            [udp, syn(source, 6443).packet()].concat()
        },
        NotTcp,
    );
}

/// Every protocol number in front of the bytes of a SYN.
fn protocols(rows: &mut Rows) {
    for protocol in 0..=255 {
        let frame = |source: Source| {
            let segment = syn(source, 6443).packet()[20..].to_vec();
            v4(source).payload(protocol, &segment).frame()
        };
        let name = format!("ipv4/protocol-{protocol}");
        match protocol {
            TCP => rows.segment(&name, frame),
            // As an authentication header it names protocol 156, the first byte of the source port.
            _ => rows.ordinary(&name, frame, NotTcp),
        }
    }
    for port in [443, 6443] {
        let udp = |source| v4(source).datagram(CLIENT_PORT, port, b"hello").frame();
        rows.ordinary(&format!("ipv4/udp-{port}"), udp, NotTcp);
        let ports = [CLIENT_PORT.to_be_bytes(), port.to_be_bytes()].concat();
        let sctp = |source| {
            v4(source)
                .payload(SCTP, &[&ports[..], &[0; 8]].concat())
                .frame()
        };
        rows.ordinary(&format!("ipv4/sctp-{port}"), sctp, NotTcp);
    }
    rows.ordinary(
        "ipv4/icmp-echo",
        |source| v4(source).payload(1, &[8, 0, 0, 0, 0, 1, 0, 1]).frame(),
        NotTcp,
    );
    rows.ordinary(
        "ipv4/icmp-error-about-a-syn",
        |source| {
            let about = syn(source, 6443).packet();
            v4(source)
                .payload(1, &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &about[..28]].concat())
                .frame()
        },
        NotTcp,
    );
    rows.ordinary(
        "ipv4/ipip-around-a-syn",
        |source| v4(source).payload(4, &syn(source, 6443).packet()).frame(),
        NotTcp,
    );
}

fn fragments(rows: &mut Rows) {
    let long = |source, port| {
        let segment = syn(source, port).packet()[20..].to_vec();
        v4(source).payload(TCP, &[segment, vec![0x5a; 44]].concat())
    };
    for len in [4, 8, 16, 24, 32, 56] {
        rows.segment(&format!("ipv4/first-fragment/{len}-bytes"), |source| {
            long(source, 6443).piece(0..len).frame()
        });
        rows.ordinary(
            &format!("ipv4/first-fragment/{len}-bytes-other-port"),
            |source| long(source, 6442).piece(0..len).frame(),
            OtherPort,
        );
        rows.segment(
            &format!("ipv4/first-fragment/{len}-bytes-do-not-fragment"),
            |source| long(source, 443).piece(0..len).dont_fragment().frame(),
        );
        rows.segment(
            &format!("ipv4/first-fragment/{len}-bytes-behind-options"),
            |source| long(source, 443).piece(0..len).options(&[1; 40]).frame(),
        );
    }
    for len in 0..4 {
        rows.doubt(
            &format!("ipv4/first-fragment/{len}-bytes"),
            |source| long(source, 6443).piece(0..len).frame(),
            IncompleteFirstFragment,
        );
        rows.doubt(
            &format!("ipv4/first-fragment/{len}-bytes-and-a-syn-as-padding"),
            |source| [long(source, 6443).piece(0..len).frame(), vec![0; 64]].concat(),
            IncompleteFirstFragment,
        );
    }
    rows.segment("ipv4/fragment/flags-only-reserved", |source| {
        let mut frame = syn(source, 6443).frame();
        frame[14 + 6] = 0x80;
        frame
    });
    for offset in [1, 2, 3, 185, 0x0fff, 0x1000, 0x1fff] {
        for more in [true, false] {
            rows.ordinary(
                &format!("ipv4/later-fragment/at-{offset}-more-{more}"),
                |source| syn(source, 6443).fragment(offset, more).frame(),
                LaterFragment,
            );
        }
        rows.ordinary(
            &format!("ipv4/later-fragment/at-{offset}-do-not-fragment"),
            |source| {
                syn(source, 6443)
                    .fragment(offset, true)
                    .dont_fragment()
                    .frame()
            },
            LaterFragment,
        );
    }
    rows.ordinary(
        "ipv4/first-fragment/udp",
        |source| {
            v4(source)
                .datagram(CLIENT_PORT, 6443, &[7; 100])
                .piece(0..48)
                .frame()
        },
        NotTcp,
    );
}

/// RFC 4302 headers are walked under IPv4 too; no others are.
fn authentication(rows: &mut Rows) {
    for words in [0, 1, 3, 4, 8, 60] {
        rows.segment(&format!("ipv4/authentication/{words}-words"), |source| {
            syn(source, 6443).authentication(words).frame()
        });
        rows.ordinary(
            &format!("ipv4/authentication/{words}-words-other-port"),
            |source| syn(source, 6444).authentication(words).frame(),
            OtherPort,
        );
        rows.ordinary(
            &format!("ipv4/authentication/{words}-words-udp"),
            |source| {
                v4(source)
                    .datagram(CLIENT_PORT, 6443, b"")
                    .authentication(words)
                    .frame()
            },
            NotTcp,
        );
    }
    rows.segment("ipv4/authentication/twice", |source| {
        syn(source, 6443)
            .authentication(3)
            .authentication(0)
            .frame()
    });
    rows.segment("ipv4/authentication/behind-options", |source| {
        syn(source, 6443)
            .authentication(3)
            .options(&[1; 12])
            .frame()
    });
    rows.segment("ipv4/authentication/first-fragment", |source| {
        syn(source, 6443)
            .authentication(3)
            .fragment(0, true)
            .frame()
    });
    for len in [0, 3, 4, 11, 12, 14] {
        rows.doubt(
            &format!("ipv4/authentication/cut-to-{len}"),
            |source| syn(source, 6443).authentication(0).cut(len).frame(),
            Truncated,
        );
        rows.doubt(
            &format!("ipv4/authentication/first-fragment-cut-to-{len}"),
            |source| {
                syn(source, 6443)
                    .authentication(0)
                    .cut(len)
                    .fragment(0, true)
                    .frame()
            },
            IncompleteFirstFragment,
        );
    }
    // These have a meaning under IPv6 only.
    for number in [0, 43, 44, 60, 135, 139, 140] {
        rows.ordinary(
            &format!("ipv4/authentication/then-{number}"),
            |source| {
                let segment = syn(source, 6443).packet()[20..].to_vec();
                let options = [&[TCP, 0, 0, 0, 0, 0, 0, 0][..], &segment].concat();
                v4(source)
                    .payload(number, &options)
                    .authentication(0)
                    .frame()
            },
            NotTcp,
        );
    }
}
