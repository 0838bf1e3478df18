//! Reports of dropped frames, for user space to read. With `maps.rs` and `packet.rs` the only file
//! with `unsafe`.

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, xdp_md},
    btf_maps::{LruHashMap, PerCpuArray},
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::btf_map,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use filter_common::{
    PacketLocation, Verdict,
    layout::{
        MAX_MONITORED_SOURCES, MonitoredSource, MonitoredSourceKey, REPORT_BUDGET,
        REPORT_WINDOW_SHIFT, REPORTS_PER_CPU, Report, ReportHead,
    },
    read_flow,
};

use crate::{
    maps,
    packet::{Frame, IP_AT_START},
};

#[btf_map]
static REPORTS: PerCpuArray<Report, { REPORTS_PER_CPU as usize }> = PerCpuArray::new();
#[btf_map]
static REPORT_HEADS: PerCpuArray<ReportHead, 1> = PerCpuArray::new();
#[btf_map]
static MONITORED_SOURCES: LruHashMap<
    MonitoredSourceKey,
    MonitoredSource,
    { MAX_MONITORED_SOURCES as usize },
> = LruHashMap::new();

/// Reports a frame that is or would be dropped if the budget of this CPU allows it; otherwise
/// counts it as skipped.
///
/// During a flood nearly every frame ends at the first two comparisons: two loads, no call. The
/// verifier replaces the helper by a load of the kernel's tick counter (Linux 5.6, commit
/// 5576b991e9c1a11d2cc21c4b94fc75ec27603896).
#[inline(always)]
pub(crate) fn report_drop(ctx: &XdpContext, location: PacketLocation, verdict_index: u32) {
    if !Verdict::is_drop(verdict_index) {
        record_unlisted_source(ctx.ctx, location.bits(), verdict_index);
    }
    let Some(head) = REPORT_HEADS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the head belongs to this CPU, where no other XDP program interrupts this one. User
    // space only reads it.
    let head = unsafe { &mut *head };
    if head.spent >= REPORT_BUDGET {
        // SAFETY: the helper takes nothing and reads a counter.
        let tick = unsafe { bpf_jiffies64() };
        // The clock is read at most once per tick.
        if head.tick == tick {
            head.skipped += 1;
            return;
        }
        head.tick = tick;
        let window = now() >> REPORT_WINDOW_SHIFT;
        if head.window == window {
            head.skipped += 1;
            return;
        }
        head.window = window;
        head.spent = 0;
    }
    head.spent += 1;
    write_report(ctx.ctx, location.bits(), verdict_index);
}

/// The time on the monotonic clock, in nanoseconds, exact to some milliseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Overwrites the oldest report, then advances the head.
///
/// A global function, like [`record_unlisted_source`]: the verifier checks it once, not at each
/// call (see `maps.rs`). `location` is a [`PacketLocation`] as a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_report(ctx: *mut xdp_md, location: u64, verdict_index: u32) -> u32 {
    let ctx = &XdpContext::new(ctx);
    let Some(head) = REPORT_HEADS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `report_drop`, which holds no reference any more.
    let head = unsafe { &mut *head };
    let sequence = head.written + 1;
    let index = head.written as u32 & (REPORTS_PER_CPU - 1);
    let Some(report) = REPORTS.get_ptr_mut(index) else {
        return 0;
    };
    // Offsets count from the start of the frame, whatever its link header.
    let frame = Frame::<IP_AT_START>::new(ctx);
    // SAFETY: the report and the head belong to this CPU. User space may read the report meanwhile,
    // and detects that by the head.
    unsafe {
        let report = &mut *report;
        *report = Report {
            sequence,
            seen: now(),
            ifindex: ctx.ingress_ifindex() as u32,
            frame_len: frame.len() as u32,
            verdict: verdict_index as u8,
            ..Report::EMPTY
        };
        // The fields are read into the map because the stack has no room for a copy.
        let (family, has_ports) = read_flow(
            &frame,
            PacketLocation::from_bits(location),
            &mut report.source,
            &mut report.destination,
            &mut report.ports,
        );
        report.family = family;
        report.has_ports = u8::from(has_ports);
        // An exchange is a full barrier on every machine. So the report is complete before the head
        // advances, and the next report starts after that
        // (`Documentation/bpf/standardization/instruction-set.rst`, atomic operations).
        atomic_xchg::<_, { AtomicOrdering::SeqCst }>(&raw mut head.written, sequence);
    }
    if let Some(verdict) = Verdict::from_index(verdict_index) {
        debug!(ctx, "{}: {}", verdict.label(), verdict.reason());
    }
    0
}

/// Records the source of a frame that monitor mode passes and enforce mode would drop.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record_unlisted_source(ctx: *mut xdp_md, location: u64, verdict_index: u32) -> u32 {
    let now = now();
    let mut key = MonitoredSourceKey {
        source: [0; 4],
        family: 0,
        group: 0,
    };
    let (mut destination, mut ports) = ([0; 4], [0; 2]);
    let (family, has_ports) = read_flow(
        &Frame::<IP_AT_START>::new(&XdpContext::new(ctx)),
        PacketLocation::from_bits(location),
        &mut key.source,
        &mut destination,
        &mut ports,
    );
    if family == 0 {
        return 0;
    }
    key.family = u16::from(family);
    key.group = maps::group_of(has_ports.then_some(ports[1])) as u16;
    if MONITORED_SOURCES.get_ptr_mut(key).is_none() {
        let entry = MonitoredSource {
            packets: 0,
            first_seen: now,
            last_seen: now,
            port: 0,
            verdict: 0,
            unused: [0; 5],
        };
        // Another CPU may have inserted the same key first; either entry is correct.
        let _ = MONITORED_SOURCES.insert(key, entry, u64::from(BPF_NOEXIST));
    }
    if let Some(entry) = MONITORED_SOURCES.get_ptr_mut(key) {
        // SAFETY: the kernel keeps the value while the program runs. Other CPUs may write it too.
        // Packets are added atomically; for the other fields the value of any CPU is correct.
        unsafe {
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(&raw mut (*entry).packets, 1u64);
            (*entry).last_seen = now;
            (*entry).port = ports[1];
            (*entry).verdict = verdict_index as u8;
        }
    }
    0
}
