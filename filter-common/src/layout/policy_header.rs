//! The header of a policy: the first lookup of a packet.

use bytemuck::{Pod, Zeroable};

use super::SLOTS;
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
    /// 0 if all protected ports are open to the same sources, 1 if `groups` says which are not.
    pub has_groups: u8,
    /// Always zero.
    pub unused: [u8; 3],
    /// The protected TCP ports.
    pub ports: PortSet,
    /// The start of the [`prefilter`](crate::prefilter) of the sources.
    pub prefilter: PrefilterHead,
    /// The group of sources of each port. Last: only packets of authorized sources need it.
    pub groups: PortGroups,
}

const _: () = assert!(
    size_of::<PolicyHeader>()
        == 8 + size_of::<PortSet>() + size_of::<PrefilterHead>() + size_of::<PortGroups>(),
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

    /// The group of the sources that reach `port` (host order), or any port if it is `None`. Only
    /// the lower 16 bits of the number count.
    #[inline(always)]
    pub const fn group(&self, port: Option<u64>) -> u32 {
        match port {
            _ if self.has_groups == 0 => ALL_SOURCES,
            Some(port) => self.groups.of(port),
            None => COMMON_SOURCES,
        }
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

/// The group of the sources of all lists, and of the implicit ones. Ports without lists of their
/// own are open to it. The prefilter is derived from it: every other group is a part of it.
pub const ALL_SOURCES: u32 = 0;
/// The group of the sources that are in every group with lists of its own. It exists if, and only
/// if, there is such a group.
pub const COMMON_SOURCES: u32 = 1;
/// The group of the first ports with lists of their own; the next ones follow.
pub const FIRST_GUARD: u32 = 2;
/// The maximum number of groups of ports with lists of their own.
pub const MAX_GUARDS: u32 = 8;
/// The number of groups of sources.
pub const GROUPS: u32 = FIRST_GUARD + MAX_GUARDS;

/// The index of a group's tries in [`SOURCES_V4`](super::SOURCES_V4) and
/// [`SOURCES_V6`](super::SOURCES_V6). A group without a trie there authorizes no source.
#[inline(always)]
pub const fn source_map(slot: u32, group: u32) -> u32 {
    slot + SLOTS * group
}

/// The group of sources of each port, one byte each: a lookup costs one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortGroups {
    groups: [u8; 65_536],
}

impl PortGroups {
    /// The group of the port in the lower 16 bits.
    #[inline(always)]
    const fn of(&self, port: u64) -> u32 {
        self.groups[(port & 0xffff) as usize] as u32
    }

    /// Puts `port` into `group`, which is below [`GROUPS`].
    pub const fn put(&mut self, port: u16, group: u32) {
        self.groups[port as usize] = group as u8;
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
