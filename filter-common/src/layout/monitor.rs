//! Unlisted sources that monitor mode let pass.

use bytemuck::{Pod, Zeroable};

/// Whom monitor mode let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct MonitoredSourceKey {
    /// Source address, see [`FlowInfo::source`](crate::FlowInfo::source).
    pub source: [u32; 4],
    /// 4 or 6.
    pub family: u32,
}

const _: () = assert!(size_of::<MonitoredSourceKey>() == 20);

/// What monitor mode saw of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MonitoredSource {
    /// Packets that enforce mode would have dropped. All CPUs add to it, each in one step: none is lost.
    pub packets: u64,
    /// When the first of them came, in nanoseconds of the monotonic clock, within some milliseconds.
    pub first_seen: u64,
    /// When the last of them came.
    pub last_seen: u64,
    /// The destination port of the last, in host order; 0 if it was not known.
    pub port: u16,
    /// The verdict and reason of the last: a [`Verdict::index`](crate::Verdict::index).
    pub verdict: u8,
    /// Always zero.
    pub unused: [u8; 5],
}

const _: () = assert!(size_of::<MonitoredSource>() == 32);
