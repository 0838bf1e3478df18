//! The XDP program: judges each frame and turns the verdict into an action.

#![no_std]
#![no_main]
// `core::sync::atomic` has no exchange or addition for this target, which declares no
// compare-and-swap. The kernel has both (Linux 5.12, commit
// 5ffa25502b5ab3d639829a2d1e316cff7f59a41e).
#![feature(core_intrinsics)]
// Loads of a word at any address are single instructions (`packet.rs`).
#![feature(asm_experimental_arch)]
#![expect(internal_features, reason = "atomic operations, see above")]

mod maps;
mod packet;
mod report;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use filter_common::{Judgement, Verdict, judge_fast, judge_slow};
use maps::InForce;
use packet::{Frame, IP_AFTER_ETHERNET, IP_AT_START};

/// Entry point for devices whose frames start with an Ethernet header.
///
/// Without `frags` the kernel refuses to attach where frames may span buffers
/// (`BPF_F_XDP_HAS_FRAGS`, Linux 5.18, commit f45d5b6ce2e835834c94b8b700787984f02cd662).
#[xdp(frags)]
fn apifence(ctx: XdpContext) -> u32 {
    filter::<IP_AFTER_ETHERNET>(ctx)
}

/// Entry point for devices whose frames start with the IP header.
#[xdp(frags)]
fn apifence_ip(ctx: XdpContext) -> u32 {
    filter::<IP_AT_START>(ctx)
}

#[inline(always)]
fn filter<const IP_OFFSET: usize>(ctx: XdpContext) -> u32 {
    let policy = InForce::select();
    let frame = Frame::<IP_OFFSET>::new(&ctx);
    let action = judge_fast(
        &frame,
        &policy,
        #[inline(always)]
        |judgement, end| count_and_act(&ctx, judgement, frame.len_with_end(end)),
    );
    match action {
        Some(action) => action,
        None => filter_slow::<IP_OFFSET>(ctx, policy),
    }
}

/// The slow path. A separate function, so that its stack and registers cost nothing on the fast
/// path.
#[inline(never)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "in registers, where references would point to the stack"
)]
fn filter_slow<const IP_OFFSET: usize>(ctx: XdpContext, policy: InForce) -> u32 {
    let frame = Frame::<IP_OFFSET>::new(&ctx);
    let judgement = judge_slow(&frame, &policy.with_shared_code());
    count_and_act(&ctx, judgement, frame.len())
}

/// Counts a frame of `len` bytes, reports it if it is or would be dropped, and returns the action.
#[inline(always)]
fn count_and_act(ctx: &XdpContext, judgement: Judgement, len: usize) -> u32 {
    let Judgement {
        verdict_index,
        location,
    } = judgement;
    maps::count(ctx.ingress_ifindex() as u32, verdict_index, len);
    if Verdict::is_pass(verdict_index) {
        return xdp_action::XDP_PASS;
    }
    report::report_drop(ctx, location, verdict_index);
    if Verdict::is_drop(verdict_index) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// The program calls no GPL-only helper. The declaration keeps them available.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
