//! The packet that rules are evaluated with: the first of a connection from any client to a port of
//! this node.

use std::net::IpAddr;

/// A byte of the packet or of its metadata, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Byte {
    /// Exactly this value.
    Known(u8),
    /// This value, and part of the destination port.
    Port(u8),
    /// Part of the client's address: matches no rule that names a client.
    Client,
    /// Any value: it varies from packet to packet.
    Any,
    /// Not known.
    Unknown,
}

impl Byte {
    const fn value(self) -> Option<u8> {
        match self {
            Self::Known(value) | Self::Port(value) => Some(value),
            _ => None,
        }
    }

    /// The byte with its value changed.
    pub(super) fn map(self, with: impl Fn(u8) -> u8) -> Self {
        match self {
            Self::Known(value) => Self::Known(with(value)),
            Self::Port(value) => Self::Port(with(value)),
            other => other,
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not for this packet, or not known.
    No,
    /// For some packets.
    Maybe,
    /// For each packet.
    Yes,
}

impl Fit {
    pub(super) const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    const fn inverted(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// Whether `bytes` equal `wanted`.
pub(super) fn equal(bytes: &[Byte], wanted: &[u8]) -> Fit {
    between(bytes, wanted, wanted)
}

/// Whether `bytes`, in network order, are between `from` and `to`, both inclusive.
pub(super) fn between(bytes: &[Byte], from: &[u8], to: &[u8]) -> Fit {
    let known: Option<Vec<u8>> = bytes.iter().map(|byte| byte.value()).collect();
    if let Some(known) = known {
        return Fit::of(known.as_slice() >= from && known.as_slice() <= to);
    }
    // Where both ends are the same, one byte that differs is enough.
    let mut all = bytes.iter().zip(from.iter().zip(to));
    let differs = all
        .any(|(byte, (from, to))| from == to && byte.value().is_some_and(|value| value != *from));
    let is_open = |byte: &Byte| matches!(byte, Byte::Client | Byte::Unknown);
    if differs || bytes.iter().any(is_open) {
        Fit::No
    } else {
        Fit::Maybe
    }
}

/// The negation of `fit`; on unknown bytes it may hold.
pub(super) fn opposite(bytes: &[Byte], fit: Fit) -> Fit {
    if bytes.contains(&Byte::Unknown) {
        Fit::Maybe
    } else {
        fit.inverted()
    }
}

/// An interface that packets arrive on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: u32,
}

/// A segment that opens a connection.
#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    pub(super) target: IpAddr,
    pub(super) port: u16,
    ingress: &'a Ingress,
    network: Vec<Byte>,
    transport: Vec<Byte>,
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

impl<'a> Packet<'a> {
    pub(super) fn new(target: IpAddr, port: u16, ingress: &'a Ingress) -> Self {
        let known = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| Byte::Known(*byte))
                .collect::<Vec<_>>()
        };
        let network = match target {
            IpAddr::V4(target) => {
                let mut header = vec![Byte::Any; 20];
                header[0] = Byte::Known(0x45);
                header[9] = Byte::Known(TCP);
                header[12..16].fill(Byte::Client);
                header[16..20].copy_from_slice(&known(&target.octets()));
                header
            }
            IpAddr::V6(target) => {
                let mut header = vec![Byte::Any; 40];
                header[6] = Byte::Known(TCP);
                header[8..24].fill(Byte::Client);
                header[24..40].copy_from_slice(&known(&target.octets()));
                header
            }
        };
        let mut transport = vec![Byte::Any; 20];
        let [high, low] = port.to_be_bytes();
        transport[2..4].copy_from_slice(&[Byte::Port(high), Byte::Port(low)]);
        // SYN without an acknowledgement number.
        transport[8..12].fill(Byte::Known(0));
        transport[13] = Byte::Known(2);
        Self {
            target,
            port,
            ingress,
            network,
            transport,
        }
    }

    /// `NFPROTO_*`.
    pub(super) const fn family(&self) -> u8 {
        if self.target.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// Bytes of a header: `base` is `NFT_PAYLOAD_NETWORK_HEADER` or `_TRANSPORT_HEADER`.
    pub(super) fn payload(&self, base: u32, offset: usize, len: usize) -> Vec<Byte> {
        let header = match base {
            1 => &self.network,
            2 => &self.transport,
            _ => return vec![Byte::Unknown; len],
        };
        let end = offset.saturating_add(len);
        match header.get(offset..end) {
            Some(bytes) => bytes.to_vec(),
            None => vec![Byte::Unknown; len],
        }
    }

    /// Metadata of the packet, by its `NFT_META_*`.
    pub(super) fn meta(&self, key: u32) -> Vec<Byte> {
        let known = |bytes: &[u8]| bytes.iter().map(|byte| Byte::Known(*byte)).collect();
        match key {
            // The protocol above Ethernet, the mark, the interface, its name.
            1 => known(&if self.target.is_ipv4() {
                [8, 0]
            } else {
                [0x86, 0xdd]
            }),
            3 => known(&[0; 4]),
            4 => known(&self.ingress.ifindex.to_ne_bytes()),
            6 => {
                let mut name = self.ingress.name.clone().into_bytes();
                // `IFNAMSIZ`.
                name.resize(16, 0);
                known(&name)
            }
            // The family, the transport protocol, the packet type.
            15 => known(&[self.family()]),
            16 => known(&[TCP]),
            19 => known(&[0]),
            // A random number.
            24 => vec![Byte::Any; 4],
            _ => vec![Byte::Unknown; 16],
        }
    }

    /// State of connection tracking, by its `NFT_CT_*`.
    pub(super) fn tracked(key: u32) -> Vec<Byte> {
        let known = |bytes: &[u8]| bytes.iter().map(|byte| Byte::Known(*byte)).collect();
        match key {
            // `NF_CT_STATE_BIT(IP_CT_NEW)`.
            0 => known(&8_u32.to_ne_bytes()),
            // The direction; the status and the mark.
            1 => known(&[0]),
            2 | 3 => known(&[0; 4]),
            _ => vec![Byte::Unknown; 16],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_none_for_some_or_for_all() {
        let known = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| Byte::Known(*byte))
                .collect::<Vec<_>>()
        };
        for (bytes, from, to, want) in [
            (known(&[1, 187]), [1, 187], [1, 187], Fit::Yes),
            (known(&[1, 187]), [1, 144], [1, 244], Fit::Yes),
            (known(&[1, 187]), [1, 188], [1, 244], Fit::No),
            (vec![Byte::Any, Byte::Any], [1, 187], [1, 187], Fit::Maybe),
            (vec![Byte::Known(2), Byte::Any], [1, 187], [1, 187], Fit::No),
            (vec![Byte::Client, Byte::Client], [10, 0], [10, 0], Fit::No),
            (vec![Byte::Unknown, Byte::Any], [10, 0], [10, 0], Fit::No),
        ] {
            assert_eq!(
                between(&bytes, &from, &to),
                want,
                "{bytes:?} {from:?} {to:?}"
            );
        }
        assert_eq!(opposite(&[Byte::Client], Fit::No), Fit::Yes);
        assert_eq!(opposite(&[Byte::Unknown], Fit::No), Fit::Maybe);
    }
}
