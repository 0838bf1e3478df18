//! MPLS labels: Linux removes them if the interface is configured so, and a packet follows the last
//! one.

use filter_common::{
    DropReason::{HeadersTooDeep, Truncated, Unauthorized},
    PassReason::{Authorized, NotIp, OtherPort, ShortHeader},
    Verdict::{Drop, Pass},
};

use super::{
    row::{FAMILIES, Rows, Source, syn_packet},
    rules::Rules,
};
use crate::packets::{
    ethernet::{MPLS, MPLS_MULTICAST, TAG_8021Q},
    tagged_as, typed,
};

/// `labels`, the last of them at the bottom of the stack, in front of a packet.
fn labelled(labels: &[u32], packet: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, label) in labels.iter().enumerate() {
        let bottom = u32::from(place + 1 == labels.len());
        bytes.extend((label << 12 | bottom << 8 | 64).to_be_bytes());
    }
    bytes.extend(packet);
    bytes
}

pub(super) fn add(rows: &mut Rows) {
    let rules = Rules::Decapsulating;
    // Some look like the start of an IP packet.
    let stacks: [(&str, &[u32]); 6] = [
        ("one", &[100]),
        ("explicit-null", &[0]),
        ("two", &[200, 100]),
        ("like-ipv4", &[0x45_000]),
        ("like-ipv6", &[0x60_000, 0x45_000]),
        ("many", &[16; 100]),
    ];
    for (family, v6) in FAMILIES {
        for (name, labels) in stacks {
            let name = format!("mpls/{name}/{family}");
            let frame =
                |source, port| typed(MPLS, &labelled(labels, &syn_packet(v6, source, port)));
            rows.pair_under(
                rules,
                &format!("{name}/tcp"),
                |source| frame(source, 6443),
                Drop(Unauthorized),
                Pass(Authorized),
            );
            rows.pair_under(
                rules,
                &format!("{name}/tcp-other-port"),
                |source| frame(source, 6444),
                Pass(OtherPort),
                Pass(OtherPort),
            );
            // No device removes these labels.
            rows.ordinary(
                &format!("{name}/not-taken-off"),
                |source| frame(source, 6443),
                NotIp,
            );
        }
        let packet = syn_packet(v6, Source::Unlisted, 443);
        let behind = labelled(&[100], &packet);
        let tagged = tagged_as(MPLS, &[(TAG_8021Q, 0), (TAG_8021Q, 7)], &behind);
        rows.under(
            rules,
            format!("mpls/behind-tags/{family}"),
            tagged,
            Drop(Unauthorized),
        );
        let multicast = typed(MPLS_MULTICAST, &behind);
        rows.under(
            rules,
            format!("mpls/multicast/{family}"),
            multicast,
            Pass(NotIp),
        );
        let fixed = if v6 { 40 } else { 20 };
        for (len, want) in [
            (3, Pass(ShortHeader)),
            (4, Pass(ShortHeader)),
            (5, Pass(ShortHeader)),
            (4 + fixed - 1, Pass(ShortHeader)),
            (4 + fixed, Drop(Truncated)),
            (4 + fixed + 4, Drop(Unauthorized)),
        ] {
            let name = format!("mpls/cut-to-{len}/{family}");
            rows.under(rules, name, typed(MPLS, &behind[..len]), want);
        }
        let deep = typed(MPLS, &labelled(&[16; 16_400], &packet));
        rows.under(
            rules,
            format!("mpls/too-deep/{family}"),
            deep,
            Drop(HeadersTooDeep),
        );
    }
    for (name, payload) in [("ethernet", [0; 60]), ("version-5", [0x55; 60])] {
        let frame = typed(MPLS, &labelled(&[100], &payload));
        rows.under(rules, format!("mpls/{name}"), frame, Pass(NotIp));
    }
    let endless = typed(MPLS, &[0; 60]);
    rows.under(rules, "mpls/no-bottom", endless, Pass(ShortHeader));
}
