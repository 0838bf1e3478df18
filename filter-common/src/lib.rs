//! The language that both sides of the kernel boundary speak.
//!
//! The XDP program and user space call the same [`judge`]: the first over a live frame and BPF maps, the
//! second over a byte slice and plain sets. Nothing here allocates, does I/O or is `unsafe`.

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

pub mod map;
pub mod table;

pub use fast_path::judge_fast;
pub use judge::{judge, judge_slow};
pub use packet::{
    Bytes, BytesHead, Head, LinkHeader, MAX_OFFSET, MAX_STEPS, PacketBytes, Step, Walk,
};
pub use policy::{Encapsulation, Judgement, Mode, Policy};
pub use reported::{FlowInfo, PacketLocation, ip_address, read_flow};
pub use verdict::{COUNTERS_PER_INTERFACE, DropReason, PassReason, Verdict};
