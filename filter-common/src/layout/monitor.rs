//! Unlisted sources that monitor mode let pass.

use bytemuck::{Pod, Zeroable};

/// A source that monitor mode let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct MonitoredSourceKey {
    /// Source address, see [`FlowInfo::source`](crate::FlowInfo::source).
    pub source: [u32; 4],
    /// 4 or 6.
    pub family: u16,
    /// The group of sources that it is not in: that of the port. A source that is refused at ports
    /// with different lists is one entry for each.
    pub group: u16,
}

const _: () = assert!(size_of::<MonitoredSourceKey>() == 20);

/// The counters of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MonitoredSource {
    /// Packets that enforce mode would have dropped. All CPUs add to it atomically: none is lost.
    pub packets: u64,
    /// Time of the first one, in nanoseconds of the monotonic clock, accurate to some milliseconds.
    pub first_seen: u64,
    /// Time of the last one.
    pub last_seen: u64,
    /// The destination port of the last one, in host order; 0 if unknown.
    pub port: u16,
    /// The verdict and reason of the last one: a [`Verdict::index`](crate::Verdict::index).
    pub verdict: u8,
    /// Always zero.
    pub unused: [u8; 5],
}

const _: () = assert!(size_of::<MonitoredSource>() == 32);
