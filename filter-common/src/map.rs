//! The maps that the XDP program and user space share: names, capacities, keys and values.
//!
//! A *generation* is one compiled policy: what [`PolicyRecord`] holds, and the tries of both families for sources and
//! destinations. There are two slots for them, the current and the previous one; the one word in
//! `SELECTOR` says which is in force.

use bytemuck::{Pod, Zeroable};

/// The version of everything in this file, and of the numbers in `verdict.rs`.
///
/// Pins carry it in their path. Raise it with any change: a binary that reads maps of another layout would read a
/// policy that nobody wrote.
pub const LAYOUT_VERSION: u32 = 1;

/// The name of the XDP program, as the kernel lists it.
pub const PROGRAM: &str = "apifence";

/// Array of one `u32`: the slot of the generation in force, 0 or 1.
///
/// Written in one step, read once per packet. Only its lowest byte ever changes, so that no copy of it can tear.
pub const SELECTOR: &str = "SELECTOR";
/// Array of one [`PolicyRecord`] per slot.
pub const POLICY: &str = "POLICY";
/// Array of [`SETTINGS_LEN`] bytes per slot: the settings the policy was compiled from, as JSON padded with zeros. Only user
/// space reads it.
pub const SETTINGS: &str = "SETTINGS";
/// Array of LPM tries, one per slot: authorized IPv4 sources.
pub const SOURCES_V4: &str = "SOURCES_V4";
/// Array of LPM tries, one per slot: authorized IPv6 sources.
pub const SOURCES_V6: &str = "SOURCES_V6";
/// Array of LPM tries, one per slot: guarded IPv4 destinations; empty where all are.
pub const DESTINATIONS_V4: &str = "DESTINATIONS_V4";
/// Array of LPM tries, one per slot: guarded IPv6 destinations.
pub const DESTINATIONS_V6: &str = "DESTINATIONS_V6";
/// Per-CPU array of [`Counter`], one map per interface, indexed by [`Verdict::slot`](crate::Verdict::slot).
pub const COUNTERS: &str = "COUNTERS";

/// How many generations the kernel holds: the current and the previous.
pub const SLOTS: u32 = 2;

const _: () = assert!(SLOTS.is_power_of_two(), "the program masks the selector");
/// Most prefixes in one trie.
pub const MAX_PREFIXES: u32 = 1_100_000;
/// Room for the settings of one generation, in bytes.
pub const SETTINGS_LEN: usize = 32 * 1024;

/// What one generation says besides its prefixes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyRecord {
    /// Counts the policies put in force since the pins were made; 0 in a slot that never held one.
    pub generation: u64,
    /// When it was put in force, in nanoseconds since 1970-01-01 UTC.
    pub applied_at: u64,
    /// A [`Mode`](crate::Mode) as a number.
    pub mode: u8,
    /// 0 if every destination is guarded, 1 if the destination tries say which.
    pub has_destinations: u8,
    /// Always zero.
    pub reserved: [u8; 6],
    /// The protected TCP ports.
    pub ports: PortSet,
}

const _: () = assert!(size_of::<PolicyRecord>() == 24 + size_of::<PortSet>());

/// A set of ports, one bit each: a lookup costs one load however many there are.
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

/// What a trie holds for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixValue {
    /// The prefix's own length in bits: a lookup returns the value alone, and this tells which range matched.
    pub prefix_len: u8,
    /// Where the range comes from: a set of [`Origin`] bits.
    pub origins: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<PrefixValue>() == 4);

/// Where an authorized range comes from, as a bit of [`PrefixValue::origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// The user's list.
    List = 1,
    /// The node's own addresses.
    Node = 2,
    /// The cluster's egress addresses: outbound IPs and prefixes.
    Outbound = 4,
    /// The cluster's CIDRs: other nodes, pods, probes.
    Cluster = 8,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Node, Self::Outbound, Self::Cluster];

    /// The name under which it is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Node => "node",
            Self::Outbound => "outbound",
            Self::Cluster => "cluster",
        }
    }
}

/// One counter of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames, from the Ethernet header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);
