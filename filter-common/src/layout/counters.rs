//! The counters of all interfaces, and the row of each interface.

use bytemuck::{Pod, Zeroable};

/// The maximum number of interfaces with a filter. Each takes a row of counters on each CPU.
pub const MAX_INTERFACES: u32 = 128;

const _: () = assert!(
    MAX_INTERFACES.is_power_of_two(),
    "the home row is a remainder, without a division"
);

/// The ifindex of each row of the counters; 0 in a free row.
///
/// User space writes an ifindex before the program sees the interface's first packet, and one at a
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct InterfaceRows {
    /// The ifindexes.
    pub ifindexes: [u32; MAX_INTERFACES as usize],
}

impl InterfaceRows {
    /// The row for packets of interfaces without a row.
    pub const NO_ROW: u32 = MAX_INTERFACES;
    /// The number of rows of counters.
    pub const ROWS: u32 = MAX_INTERFACES + 1;

    /// The first row to try for an interface. The next rows follow in order; row 0 follows the
    /// last.
    #[inline(always)]
    pub const fn home(ifindex: u32) -> u32 {
        ifindex % MAX_INTERFACES
    }

    /// The row of an interface; [`NO_ROW`](Self::NO_ROW) if it has none.
    #[inline(always)]
    pub fn row(&self, ifindex: u32) -> u32 {
        let mut row = Self::home(ifindex);
        for _ in 0..MAX_INTERFACES {
            if self.ifindexes[row as usize] == ifindex {
                return row;
            }
            row = (row + 1) % MAX_INTERFACES;
        }
        Self::NO_ROW
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
