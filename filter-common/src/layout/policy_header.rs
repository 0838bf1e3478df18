//! The header of a policy: the first lookup of a packet.

use bytemuck::{Pod, Zeroable};

use crate::{
    policy::{Encapsulation, Mode},
    prefilter::PrefilterHead,
};

/// The part of a policy that every packet needs, in one map value for one lookup.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyHeader {
    /// A [`Mode`](crate::Mode) as a number.
    pub mode: u8,
    /// 0 if every destination is guarded, 1 if the destination tries list the guarded ones.
    pub has_destinations: u8,
    /// 1 in a header that user space wrote.
    pub filled: u8,
    /// A set of [`Encapsulation`] bits: those that this node removes without a tunnel device.
    pub decapsulates: u8,
    /// Always zero.
    pub unused: [u8; 4],
    /// The protected TCP ports.
    pub ports: PortSet,
    /// The start of the [`prefilter`](crate::prefilter) of the sources.
    pub prefilter: PrefilterHead,
}

const _: () = assert!(
    size_of::<PolicyHeader>() == 8 + size_of::<PortSet>() + size_of::<PrefilterHead>(),
    "no padding"
);

/// A header of zeros is the strictest one: no source reaches the default ports.
impl PolicyHeader {
    /// The mode. An unknown number is the strict mode.
    #[inline(always)]
    pub const fn mode(&self) -> Mode {
        match self.mode {
            1 => Mode::Monitor,
            2 => Mode::Off,
            _ => Mode::Enforce,
        }
    }

    /// Whether this node decapsulates such packets.
    #[inline(always)]
    pub const fn decapsulates(&self, how: Encapsulation) -> bool {
        self.filled == 0 || self.decapsulates & how as u8 != 0
    }

    /// Whether `port` (host order) is protected.
    #[inline(always)]
    pub const fn protects(&self, port: u16) -> bool {
        self.ports.contains(port) || self.filled == 0 && is_default_port(port)
    }
}

/// The protected ports by default.
pub const DEFAULT_PORTS: [u16; 2] = [443, 6443];

/// Whether `port` is one of [`DEFAULT_PORTS`].
#[inline(always)]
pub const fn is_default_port(port: u16) -> bool {
    port == DEFAULT_PORTS[0] || port == DEFAULT_PORTS[1]
}

/// A set of ports, one bit each: a lookup costs one load whatever the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortSet {
    words: [u64; 1024],
}

const _: () = assert!(size_of::<PortSet>() == 65_536 / 8);

impl PortSet {
    /// No port.
    pub const EMPTY: Self = Self { words: [0; 1024] };

    /// Whether `port` (host order) is in the set.
    #[inline(always)]
    pub const fn contains(&self, port: u16) -> bool {
        self.words[port as usize >> 6] >> (port & 63) & 1 == 1
    }

    /// Adds `port` (host order).
    pub const fn insert(&mut self, port: u16) {
        self.words[port as usize >> 6] |= 1 << (port & 63);
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::EMPTY;
        for port in ports {
            set.insert(port);
        }
        set
    }
}
