//! The registers that the expressions of a rule compute with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Byte, Packet};
use crate::kernel::net::nfnetlink::{attribute, number};

/// The registers of `nf_tables`: 20 words, the first four of which hold the verdict.
pub(super) struct Registers(Vec<Byte>);

impl Default for Registers {
    fn default() -> Self {
        Self(vec![Byte::Unknown; 80])
    }
}

impl Registers {
    /// Loads a value of the packet, or changes a loaded one; `None` if it is of no known form.
    pub(super) fn load(&mut self, name: &str, data: &[u8], packet: &Packet<'_>) -> Option<()> {
        let word = |kind| word_at(data, kind);
        match name {
            // Register, base, offset, length.
            "payload" => {
                if let [Some(to), Some(base), Some(offset), Some(len)] = [1, 2, 3, 4].map(word) {
                    self.set(to, &packet.payload(base, offset as usize, len as usize));
                }
            }
            "meta" => {
                if let (Some(to), Some(key)) = (word(1), word(2)) {
                    self.set(to, &packet.meta(key));
                }
            }
            "ct" => {
                if let (Some(to), Some(key)) = (word(1), word(2)) {
                    self.set(to, &Packet::tracked(key));
                }
            }
            "fib" => self.set(word(1)?, &fib(word(2)?, word(3)?)),
            // Random, or different from client to client.
            "numgen" => self.set(word(1)?, &[Byte::Any; 4]),
            "hash" => self.set(word(2)?, &[Byte::Any; 4]),
            _ => self.mask(data),
        }
        Some(())
    }

    /// First byte of a register: four long ones from number 1, and short ones, which are parts of
    /// them, from number 8 (`nft_parse_register`).
    fn offset(register: u32) -> usize {
        match register {
            0..=4 => register as usize * 16,
            _ => register.saturating_sub(4) as usize * 4,
        }
    }

    pub(super) fn get(&self, from: u32, len: usize) -> Vec<Byte> {
        let place = Self::offset(from);
        let bytes = self.0.get(place..).unwrap_or_default();
        let mut found = bytes[..len.min(bytes.len())].to_vec();
        found.resize(len, Byte::Unknown);
        found
    }

    /// Fills the last word with zeros, as the kernel does.
    pub(super) fn set(&mut self, to: u32, bytes: &[Byte]) {
        let place = Self::offset(to);
        for (at, register) in self.0.iter_mut().skip(place).enumerate() {
            match bytes.get(at) {
                Some(byte) => *register = *byte,
                None if at < bytes.len().next_multiple_of(4) => *register = Byte::Known(0),
                None => break,
            }
        }
    }

    pub(super) fn set_known(&mut self, to: u32, bytes: &[u8]) {
        let bytes: Vec<Byte> = bytes.iter().map(|byte| Byte::Known(*byte)).collect();
        self.set(to, &bytes);
    }

    /// `NFTA_BITWISE_*`: source, destination, length, mask, xor; without them it is a shift.
    fn mask(&mut self, data: &[u8]) {
        let word = |kind| word_at(data, kind);
        let bytes = |kind| attribute(data, &[kind, 1]);
        let (Some(from), Some(to), Some(len)) = (word(1), word(2), word(3)) else {
            return;
        };
        let (Some(mask), Some(other)) = (bytes(4), bytes(5)) else {
            self.set(to, &vec![Byte::Unknown; len as usize]);
            return;
        };
        let masked = self.get(from, (len as usize).min(64)).into_iter();
        let masked = masked
            .zip(mask.iter().zip(other))
            .map(|(byte, (mask, other))| match (byte, mask) {
                (Byte::Any | Byte::Client, 0) => Byte::Known(*other),
                _ => byte.map(|value| value & mask ^ other),
            });
        let masked: Vec<Byte> = masked.collect();
        self.set(to, &masked);
    }

    /// Whether a key that starts at register `from` contains the port.
    pub(super) fn has_port(&self, from: u32) -> bool {
        self.get(from, 64)
            .iter()
            .any(|byte| matches!(byte, Byte::Port(_)))
    }

    fn known<const N: usize>(&self, from: u32) -> Option<[u8; N]> {
        let bytes = self.get(from, N).into_iter().map(|byte| match byte {
            Byte::Known(value) | Byte::Port(value) => Some(value),
            _ => None,
        });
        bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
    }

    pub(super) fn address(&self, from: u32, packet: &Packet<'_>) -> Option<IpAddr> {
        match packet.target {
            IpAddr::V4(_) => Some(Ipv4Addr::from(self.known::<4>(from)?).into()),
            IpAddr::V6(_) => Some(Ipv6Addr::from(self.known::<16>(from)?).into()),
        }
    }

    pub(super) fn port(&self, from: u32) -> Option<u16> {
        Some(u16::from_be_bytes(self.known::<2>(from)?))
    }
}

/// The routing result for the packet, by `NFT_FIB_RESULT_*` and `NFTA_FIB_F_*`.
fn fib(result: u32, flags: u32) -> [Byte; 4] {
    const ADDRESS_TYPE: u32 = 3;
    const DESTINATION: u32 = 2;
    const IS_THERE: u32 = 32;
    /// `RTN_LOCAL`.
    const LOCAL: u32 = 2;
    if result == ADDRESS_TYPE && flags & DESTINATION != 0 && flags & IS_THERE == 0 {
        LOCAL.to_ne_bytes().map(Byte::Known)
    } else {
        [Byte::Unknown; 4]
    }
}

/// The number in the attribute of this kind.
pub(super) fn word_at(data: &[u8], kind: u16) -> Option<u32> {
    attribute(data, &[kind]).and_then(number)
}
