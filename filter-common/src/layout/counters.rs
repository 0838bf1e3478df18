//! The counters of all interfaces, and which rows of them are whose.

use bytemuck::{Pod, Zeroable};

/// Most interfaces with a filter at a time. Each takes a row of counters on each CPU.
pub const MAX_INTERFACES: u32 = 128;

const _: () = assert!(
    MAX_INTERFACES.is_power_of_two(),
    "the home row is a remainder, without a division"
);

/// The interface of each row of the counters, by its number; 0 in a free row.
///
/// User space writes an interface's number before the program sees its first packet, and one interface at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct InterfaceRows {
    /// Numbers of interfaces.
    pub ifindexes: [u32; MAX_INTERFACES as usize],
}

impl InterfaceRows {
    /// The row for packets of interfaces that have none.
    pub const NO_ROW: u32 = MAX_INTERFACES;
    /// How many rows of counters there are.
    pub const ROWS: u32 = MAX_INTERFACES + 1;

    /// The row in which an interface is looked for first. The next ones follow in their order, the first one behind the last.
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
    /// Bytes of those frames, from the link header on, or from the IP header where a device has none. Of a frame in several buffers those that hold nothing but padding behind the
    /// packet may be left out.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);
