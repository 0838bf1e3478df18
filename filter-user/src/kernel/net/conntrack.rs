//! Tracked connections. One that is forwarded or rewritten has no local socket with the addresses
//! that the filter sees.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;

use super::{
    nfnetlink::{attribute, dump},
    sock_diag::Connection,
};

/// A tracked TCP connection that may still receive packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackEntry {
    /// The two ends as the client and the filter see them.
    pub original: Connection,
    /// The two ends after the rewriting, as a local socket would have them.
    pub rewritten: Connection,
    /// Whether one end is closed.
    pub is_half_closed: bool,
}

/// The tracked TCP connections of this network namespace.
///
/// # Errors
/// If the kernel does not answer.
pub fn tracked() -> Result<Vec<ConntrackEntry>> {
    let mut found = Vec::new();
    let Err(error) = dump(GET, |_, attributes| found.extend(entry(attributes))) else {
        return Ok(found);
    };
    // A kernel may lack either of the two.
    let text = fs::read_to_string("/proc/thread-self/net/nf_conntrack").map_err(|_| error)?;
    Ok(text.lines().filter_map(line).collect())
}

/// `NFNL_SUBSYS_CTNETLINK`, and in it `IPCTNL_MSG_CT_GET`
/// (`linux/netfilter/nfnetlink_conntrack.h`).
const GET: u16 = (1 << 8) | 1;
/// `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
/// `CTA_PROTOINFO`, `CTA_PROTOINFO_TCP`, `CTA_PROTOINFO_TCP_STATE`.
const STATE: [u16; 3] = [4, 1, 1];
/// `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO`.
const IP: u16 = 1;
const PROTOCOL: u16 = 2;
/// `TCP_CONNTRACK_SYN_RECV`, `_ESTABLISHED`, `_FIN_WAIT`, `_CLOSE_WAIT`.
const OPEN: [u8; 4] = [2, 3, 4, 5];
const TCP: u8 = 6;

fn entry(attributes: &[u8]) -> Option<ConntrackEntry> {
    let original = tuple(attribute(attributes, &[ORIGINAL])?)?;
    let reply = tuple(attribute(attributes, &[REPLY])?)?;
    let state = attribute(attributes, &STATE)?.first()?;
    let is_half_closed = [4, 5].contains(state);
    OPEN.contains(state)
        .then(|| both(original, reply, is_half_closed))
}

/// Source and destination of a tuple of TCP.
fn tuple(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let protocol = |kind| attribute(bytes, &[PROTOCOL, kind]);
    if protocol(1)? != [TCP] {
        return None;
    }
    // IPv4 source and destination, then those of IPv6.
    let ip = |v4, v6| -> Option<IpAddr> {
        let octets = attribute(bytes, &[IP, v4]).or_else(|| attribute(bytes, &[IP, v6]))?;
        let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
        v4().or_else(|| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()))
    };
    let port = |kind| Some(u16::from_be_bytes(protocol(kind)?.try_into().ok()?));
    Some((
        SocketAddr::new(ip(1, 3)?, port(2)?),
        SocketAddr::new(ip(2, 4)?, port(3)?),
    ))
}

/// The two ends of both directions; the reply's are swapped.
fn both(
    original: (SocketAddr, SocketAddr),
    reply: (SocketAddr, SocketAddr),
    is_half_closed: bool,
) -> ConntrackEntry {
    let connection = |remote, local| Connection { remote, local };
    ConntrackEntry {
        original: connection(original.0, original.1),
        rewritten: connection(reply.1, reply.0),
        is_half_closed,
    }
}

/// Parses a line of `nf_conntrack`, such as
/// `ipv4 2 tcp 6 431999 ESTABLISHED src=... dst=... sport=... dport=... src=...`.
fn line(line: &str) -> Option<ConntrackEntry> {
    const OPEN: [&str; 4] = ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"];
    let mut words = line.split_whitespace();
    let (protocol, state) = (words.nth(2)?, words.nth(2)?);
    let rest: Vec<&str> = words.collect();
    let values = |name: &str| {
        let values = rest.iter().filter_map(|word| word.strip_prefix(name));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let [src, dst, sport, dport] = ["src=", "dst=", "sport=", "dport="].map(values);
    let end = |ip: &[String], port: &[String], place: usize| {
        let ip: IpAddr = ip.get(place)?.parse().ok()?;
        Some(SocketAddr::new(ip, port.get(place)?.parse().ok()?))
    };
    let direction = |place| Some((end(&src, &sport, place)?, end(&dst, &dport, place)?));
    let (original, reply) = (direction(0)?, direction(1)?);
    let is_open = protocol == "tcp" && OPEN.contains(&state);
    is_open.then(|| both(original, reply, state.ends_with("_WAIT")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_both_ends() {
        let text = "ipv4     2 tcp      6 86397 ESTABLISHED src=203.0.113.9 dst=192.0.2.10 sport=40000 dport=443 src=10.244.0.5 dst=203.0.113.9 sport=8443 dport=40000 [ASSURED] mark=0 zone=0 use=2";
        let found = line(text).expect("a connection");
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(found.original.remote, at("203.0.113.9:40000"));
        assert_eq!(found.original.local, at("192.0.2.10:443"));
        assert_eq!(found.rewritten.remote, at("203.0.113.9:40000"));
        assert_eq!(found.rewritten.local, at("10.244.0.5:8443"));
        for other in [
            text.replace("ESTABLISHED", "TIME_WAIT"),
            text.replace("tcp ", "udp "),
            text[..60].to_owned(),
        ] {
            assert_eq!(line(&other), None, "{other}");
        }
    }
}
