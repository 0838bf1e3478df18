//! Reports of dropped packets.

use bytemuck::{Pod, Zeroable};

use crate::reported::FlowInfo;

/// One frame that was dropped, or would have been.
///
/// The program writes it whole, and only then moves [`ReportHead::written`]. A reader that finds the head less than a ring further
/// on after it read a record has read a whole one: the next to be written in its place had not been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Report {
    /// The how-manyth of its CPU, from 1 on; it stands at index `(sequence - 1) % REPORTS_PER_CPU`.
    pub sequence: u64,
    /// When, in nanoseconds of the monotonic clock, within some milliseconds.
    pub seen: u64,
    /// Source address, see [`FlowInfo::source`].
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source and destination port, in host order; zero if unknown.
    pub ports: [u16; 2],
    /// Number of the interface it came in on.
    pub ifindex: u32,
    /// Bytes of the frame, from the Ethernet header on.
    pub frame_len: u32,
    /// The verdict and reason: a [`Verdict::index`](crate::Verdict::index).
    pub verdict: u8,
    /// 4 or 6; 0 if the addresses are unknown.
    pub family: u8,
    /// 1 if the ports are known.
    pub has_ports: u8,
    /// Always zero.
    pub unused: u8,
}

impl Report {
    /// Of nothing.
    pub const EMPTY: Self = Self {
        sequence: 0,
        seen: 0,
        source: [0; 4],
        destination: [0; 4],
        ports: [0; 2],
        ifindex: 0,
        frame_len: 0,
        verdict: 0,
        family: 0,
        has_ports: 0,
        unused: 0,
    };

    /// Who sent it and where to, as far as that is known.
    pub const fn flow_info(&self) -> FlowInfo {
        FlowInfo {
            source: self.source,
            destination: self.destination,
            family: self.family,
            ports: self.ports,
            has_ports: self.has_ports == 1,
        }
    }
}

const _: () = assert!(size_of::<Report>() == 64, "one cache line");

/// How far one CPU is with its reports, and what it may still write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ReportHead {
    /// Reports written, ever.
    pub written: u64,
    /// Frames that were not reported because the budget was spent, ever.
    pub skipped: u64,
    /// The window that the budget is for: the monotonic clock in units of 2^[`REPORT_WINDOW_SHIFT`] ns.
    pub window: u64,
    /// Reports written since that window began.
    pub spent: u64,
    /// The kernel's tick in which the clock was last asked for the window.
    pub tick: u64,
}

const _: () = assert!(size_of::<ReportHead>() == 40);
