//! The use of a range.

use bytemuck::{Pod, Zeroable};

/// What one CPU saw of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Usage {
    /// Packets that passed because of it.
    pub packets: u64,
    /// When the last of them did, in nanoseconds of the monotonic clock, within some milliseconds
    /// (`bpf_ktime_get_coarse_ns`, Linux 5.11, commit d055126180564a57fe533728a4e93d0cb53d49b3); 0 if none.
    pub last_seen: u64,
}

const _: () = assert!(size_of::<Usage>() == 16);
