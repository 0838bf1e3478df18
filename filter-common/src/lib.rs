//! What the XDP program and user space share: the packet classifier, verdicts and map layouts.
//!
//! Both sides call the same [`judge`](fn@judge): the XDP program on a live frame and BPF maps, the
//! tests on a byte slice and plain sets. This crate allocates nothing, does no I/O and contains no
//! `unsafe`.

#![no_std]
#![forbid(unsafe_code)]

mod packet;

pub mod wire;

mod classify;
mod verdict;

mod policy;
mod reported;

mod fast_path;
mod judge;

pub mod layout;
pub mod prefilter;

pub use fast_path::judge_fast;
pub use judge::{judge, judge_slow};
pub use packet::{
    Bytes, BytesHead, Head, LinkHeader, MAX_OFFSET, MAX_STEPS, PacketBytes, Step, Walk,
};
pub use policy::{Encapsulation, Judgement, Mode, Policy};
pub use reported::{FlowInfo, PacketLocation, ip_address, read_flow};
pub use verdict::{COUNTERS_PER_INTERFACE, DropReason, PassReason, Verdict};
