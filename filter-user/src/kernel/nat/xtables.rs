//! Matches and targets of iptables inside nftables rules, as `iptables-nft` writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Fit, Packet};
use crate::kernel::net::nfnetlink::{attribute, number, text};

/// `NFTA_MATCH_*`, `NFTA_TARGET_*`.
const NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// Whether a match holds, and whether it tests the port.
pub(super) fn fits(data: &[u8], packet: &Packet<'_>) -> Option<(Fit, bool)> {
    let name = text(attribute(data, &[NAME])?);
    let revision = attribute(data, &[REVISION]).and_then(number);
    let info = attribute(data, &[INFO]).unwrap_or_default();
    Some(match (&*name, revision) {
        ("tcp", _) => tcp(info, packet.port)?,
        ("multiport", Some(1)) => multiport(info, packet.port)?,
        ("addrtype", Some(1)) => (address_type(info)?, false),
        ("mark", Some(1)) => (mark(info)?, false),
        ("comment", _) => (Fit::Yes, false),
        (
            "statistic" | "conntrack" | "state" | "limit" | "hashlimit" | "recent" | "connlimit",
            _,
        ) => (Fit::Maybe, false),
        // An unknown match counts as one that does not hold.
        _ => (Fit::No, false),
    })
}

/// A number in this machine's byte order.
fn number_at(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}

fn word_at(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?))
}

/// `struct xt_tcp`: source ports from and to, destination ports from and to, option, flags and
/// their mask, inversion bits.
fn tcp(info: &[u8], port: u16) -> Option<(Fit, bool)> {
    const INVERTED: u8 = 2;
    let inside = (number_at(info, 4)?..=number_at(info, 6)?).contains(&port);
    let is_inverted = info.get(11)? & INVERTED != 0;
    let asks =
        !is_inverted && (number_at(info, 4), number_at(info, 6)) != (Some(0), Some(u16::MAX));
    let any_source = (number_at(info, 0), number_at(info, 2)) == (Some(0), Some(u16::MAX));
    let fit = match (inside != is_inverted, any_source) {
        (false, _) => Fit::No,
        (true, true) => Fit::Yes,
        (true, false) => Fit::Maybe,
    };
    Some((fit, asks))
}

/// `struct xt_multiport_v1`: which ports, their number; 15 ports; flags for a range's end;
/// inversion.
fn multiport(info: &[u8], port: u16) -> Option<(Fit, bool)> {
    const MAX_PORTS: usize = 15;
    const RANGES: usize = 2 + 2 * MAX_PORTS;
    let (which, count) = (*info.first()?, usize::from(*info.get(1)?));
    let is_inverted = *info.get(RANGES + MAX_PORTS)? != 0;
    let mut inside = false;
    let mut place = 0;
    while place < count.min(MAX_PORTS) {
        let from = number_at(info, 2 + 2 * place)?;
        let is_range = *info.get(RANGES + place)? != 0;
        place += usize::from(is_range);
        let to = if is_range && place < MAX_PORTS {
            number_at(info, 2 + 2 * place)?
        } else {
            from
        };
        inside |= (from..=to).contains(&port);
        place += 1;
    }
    // `XT_MULTIPORT_SOURCE`, `_DESTINATION`, `_EITHER`.
    let fit = match which {
        1 => Fit::of(inside != is_inverted),
        2 if inside && !is_inverted => Fit::Yes,
        _ => Fit::Maybe,
    };
    Some((fit, which != 0 && inside && !is_inverted))
}

/// `struct xt_addrtype_info_v1`: types of the source, types of the destination, inversion bits.
fn address_type(info: &[u8]) -> Option<Fit> {
    const UNICAST: u16 = 1 << 1;
    const LOCAL: u16 = 1 << 2;
    let (source, destination) = (number_at(info, 0)?, number_at(info, 2)?);
    let flags = word_at(info, 4)?;
    let holds = |types: u16, own: u16, inverted: bool| types == 0 || (types & own != 0) != inverted;
    Some(Fit::of(
        holds(source, UNICAST, flags & 1 != 0) && holds(destination, LOCAL, flags & 2 != 0),
    ))
}

/// `struct xt_mark_mtinfo1`: the mark, its mask, inversion. A packet arrives without a mark.
fn mark(info: &[u8]) -> Option<Fit> {
    let is_inverted = *info.get(8)? != 0;
    Some(Fit::of((word_at(info, 0)? == 0) != is_inverted))
}

/// The destination that a target writes: an address, unless it is this node's own, and a port,
/// unless it stays.
pub(super) fn rewritten(data: &[u8], family: u8) -> Option<(Option<IpAddr>, Option<u16>)> {
    const IPV4: u8 = 2;
    let name = text(attribute(data, &[NAME])?);
    let revision = attribute(data, &[REVISION]).and_then(number)?;
    let info = attribute(data, &[INFO])?;
    // `struct nf_nat_ipv4_multi_range_compat`, or `struct nf_nat_range` and `nf_nat_range2`, which
    // share their first fields.
    let is_old = revision == 0 && family == IPV4;
    let (flags, address, port) = if is_old { (4, 8, 16) } else { (0, 4, 36) };
    let flags = word_at(info, flags)?;
    let port = u16::from_be_bytes(info.get(port..port + 2)?.try_into().ok()?);
    // `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
    let port = (flags & 2 != 0).then_some(port);
    match &*name {
        "REDIRECT" => Some((None, port)),
        "DNAT" if flags & 1 != 0 => {
            let bytes = info.get(address..)?;
            let address = if family == IPV4 {
                IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
            } else {
                IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?))
            };
            Some((Some(address), port))
        }
        "DNAT" => Some((None, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiport_knows_ports_ranges_and_their_opposite() {
        let info = |which: u8, ports: &[u16], ranges: &[usize], inverted: bool| {
            let mut info = vec![which, ports.len() as u8];
            for place in 0..15 {
                info.extend(ports.get(place).copied().unwrap_or(0).to_ne_bytes());
            }
            info.extend((0..15).map(|place| u8::from(ranges.contains(&place))));
            info.push(u8::from(inverted));
            info
        };
        for (info, want) in [
            (info(1, &[80, 443], &[], false), (Fit::Yes, true)),
            (info(1, &[80, 8443], &[], false), (Fit::No, false)),
            (info(1, &[80, 400, 500], &[1], false), (Fit::Yes, true)),
            (info(1, &[400, 500, 80], &[0], true), (Fit::No, false)),
            (info(1, &[80], &[], true), (Fit::Yes, false)),
            (info(0, &[443], &[], false), (Fit::Maybe, false)),
            (info(2, &[443], &[], false), (Fit::Yes, true)),
        ] {
            assert_eq!(multiport(&info, 443), Some(want), "{info:?}");
            assert_eq!(multiport(&info[..20], 443), None);
        }
    }
}
