//! The counters of all interfaces, and the row of each interface.

use bytemuck::{Pod, Zeroable};

/// The maximum number of interfaces with a filter. Each takes a row of counters on each CPU.
pub const MAX_INTERFACES: u32 = 128;

const _: () = assert!(
    MAX_INTERFACES.is_power_of_two(),
    "the home row is a remainder, without a division"
);

/// The interfaces whose packets are counted, and the row of counters of each.
///
/// User space enters an interface before the program sees its first packet, and one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct InterfaceRows {
    /// As many entries as rows.
    pub entries: [InterfaceRow; MAX_INTERFACES as usize],
}

/// An interface whose packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct InterfaceRow {
    /// Its ifindex; 0 in a free entry.
    pub ifindex: u32,
    /// From the number of this entry to that of its row; row 0 follows the last. 0 for an interface
    /// with a filter of its own. The packets of a bond arrive on its ports, which count in the row
    /// of the bond (Linux 5.15, commit 9e2ee5c7e7c35d195e2aa0692a7241d47a433d1e).
    pub offset: u32,
}

impl InterfaceRows {
    /// The row for packets of interfaces without a row.
    pub const NO_ROW: u32 = MAX_INTERFACES;
    /// The number of rows of counters.
    pub const ROWS: u32 = MAX_INTERFACES + 1;

    /// The first entry to try for an interface. The next ones follow in order; entry 0 follows the
    /// last.
    #[inline(always)]
    pub const fn home(ifindex: u32) -> u32 {
        ifindex % MAX_INTERFACES
    }

    /// The row of an interface; [`NO_ROW`](Self::NO_ROW) if it has none.
    #[inline(always)]
    pub fn row(&self, ifindex: u32) -> u32 {
        self.entry(ifindex)
            .map_or(Self::NO_ROW, |entry| self.row_of(entry))
    }

    /// The number of the entry of an interface.
    #[inline(always)]
    pub fn entry(&self, ifindex: u32) -> Option<u32> {
        let mut entry = Self::home(ifindex);
        for _ in 0..MAX_INTERFACES {
            if self.entries[entry as usize].ifindex == ifindex {
                return Some(entry);
            }
            entry = (entry + 1) % MAX_INTERFACES;
        }
        None
    }

    /// The row of the interface in an entry.
    #[inline(always)]
    pub const fn row_of(&self, entry: u32) -> u32 {
        entry.wrapping_add(self.entries[entry as usize].offset) % MAX_INTERFACES
    }

    /// The index of a counter.
    #[inline(always)]
    pub const fn index(row: u32, slot: u32) -> u32 {
        row * crate::verdict::COUNTERS_PER_INTERFACE + slot
    }
}

/// One counter of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames, from the link header on, or from the IP header where a device has
    /// none. Buffers of a multi-buffer frame that hold only padding after the packet may be
    /// missing.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);
