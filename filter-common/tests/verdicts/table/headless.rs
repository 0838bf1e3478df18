//! Devices whose frames start with the IP header: the packets of all other rows get the same
//! verdicts there.

use filter_common::{
    LinkHeader, MAX_OFFSET,
    PassReason::{NotIp, ShortHeader},
    Verdict::{self, Pass},
};

use super::{
    row::{Row, Rows},
    rules::Rules,
};
use crate::packets::ethernet::{HEADER_LEN, IPV4, IPV6};

pub(super) fn add(rows: &mut Rows) {
    let packets: Vec<Row> = rows.0.iter().filter_map(headless).collect();
    rows.0.extend(packets);
    for (name, frame, want) in [
        ("nothing", &[][..], Pass(ShortHeader)),
        ("ipv4-cut", &[0x45; 19], Pass(ShortHeader)),
        ("ipv6-cut", &[0x60; 39], Pass(ShortHeader)),
        // Bytes that an Ethernet header would have there: a node's address, and an EtherType.
        ("version-0", &[0; 60], Pass(NotIp)),
        ("version-5", &[0x55; 60], Pass(NotIp)),
        ("version-15", &[0xff; 60], Pass(NotIp)),
    ] {
        for rules in [Rules::Enforce, Rules::Monitor] {
            rows.0.push(row(
                format!("headless/{rules:?}/{name}"),
                rules,
                frame.to_vec(),
                want,
            ));
        }
    }
}

/// The packet in an untagged frame, if its version agrees with the EtherType. Without the longest
/// frames, because the limit of reading counts from the start of the frame.
fn headless(row: &Row) -> Option<Row> {
    let (header, packet) = row.frame.split_at_checked(HEADER_LEN)?;
    let version = packet.first()? >> 4;
    let named = match u16::from_be_bytes([header[12], header[13]]) {
        IPV4 => 4,
        IPV6 => 6,
        _ => return None,
    };
    (version == named && row.frame.len() <= MAX_OFFSET).then(|| {
        self::row(
            format!("headless/{}", row.name),
            row.rules,
            packet.to_vec(),
            row.want,
        )
    })
}

fn row(name: String, rules: Rules, frame: Vec<u8>, want: Verdict) -> Row {
    Row {
        name,
        link_header: LinkHeader::None,
        frame,
        rules,
        want,
    }
}
