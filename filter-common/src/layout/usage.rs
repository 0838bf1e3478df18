//! The usage of a range.

use bytemuck::{Pod, Zeroable};

/// One CPU's counters of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Usage {
    /// Packets that it authorized.
    pub packets: u64,
    /// Time of the last one, in nanoseconds of the monotonic clock, accurate to some milliseconds
    /// (`bpf_ktime_get_coarse_ns`, Linux 5.11, commit d055126180564a57fe533728a4e93d0cb53d49b3); 0
    /// if there is none.
    pub last_seen: u64,
}

const _: () = assert!(size_of::<Usage>() == 16);
