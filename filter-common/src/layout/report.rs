//! Reports of dropped packets.

use bytemuck::{Pod, Zeroable};

use crate::reported::FlowInfo;

/// One frame that was dropped, or would be in enforce mode.
///
/// The program writes the whole report, and then advances [`ReportHead::written`]. A reader checks
/// the head after it copied a report. If the head advanced by less than a ring, the copy is
/// complete: the program had not started to overwrite it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Report {
    /// Sequence number on this CPU, starting at 1; the report is at index
    /// `(sequence - 1) % REPORTS_PER_CPU`.
    pub sequence: u64,
    /// Time in nanoseconds of the monotonic clock, accurate to some milliseconds.
    pub seen: u64,
    /// Source address, see [`FlowInfo::source`].
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source and destination port, in host order; zero if unknown.
    pub ports: [u16; 2],
    /// The ifindex of the interface that it arrived on.
    pub ifindex: u32,
    /// Length of the frame in bytes, from the Ethernet header on.
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
    /// A report without content.
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

    /// The addresses and ports, as far as they are known.
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

/// The state of one CPU's reports and its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ReportHead {
    /// Number of all reports written.
    pub written: u64,
    /// Number of all frames that were not reported because the budget was spent.
    pub skipped: u64,
    /// The current window: the monotonic clock in units of 2^[`REPORT_WINDOW_SHIFT`] ns.
    pub window: u64,
    /// Reports written since that window began.
    pub spent: u64,
    /// The kernel's tick at the last reading of the clock for the window.
    pub tick: u64,
}

const _: () = assert!(size_of::<ReportHead>() == 40);
