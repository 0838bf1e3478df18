//! The XDP program: judges each frame and turns the verdict into an action.

#![no_std]
#![no_main]
// The target declares no compare-and-swap, and without that `core::sync::atomic` has no exchange and no addition, which the kernel does
// have (Linux 5.12, commit 5ffa25502b5ab3d639829a2d1e316cff7f59a41e).
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic operations, see above")]

mod maps;
mod packet;
mod report;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use filter_common::{Verdict, judge};
use packet::Frame;

/// Entry point.
///
/// `frags`: without it the kernel refuses to attach where frames may span buffers (`BPF_F_XDP_HAS_FRAGS`,
/// Linux 5.18, commit f45d5b6ce2e835834c94b8b700787984f02cd662).
#[xdp(frags)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that `#[xdp]` calls"
)]
fn apifence(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let judgement = judge(&frame, &maps::InForce::select());
    let verdict = judgement.verdict;
    maps::count(verdict, frame.len());
    if !matches!(verdict, Verdict::Pass(_)) {
        report::refused(&ctx, judgement);
    }
    match verdict {
        Verdict::Pass(_) | Verdict::WouldDrop(_) => {
            if let Verdict::WouldDrop(reason) = verdict {
                debug!(&ctx, "would drop: {}", reason.label());
            }
            xdp_action::XDP_PASS
        }
        Verdict::Drop(reason) => {
            debug!(&ctx, "drop: {}", reason.label());
            xdp_action::XDP_DROP
        }
    }
}

/// GPL-only helpers are not used today; the declaration keeps that a choice.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
