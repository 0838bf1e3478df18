//! The language that both sides of the kernel boundary speak.
//!
//! The XDP program and user space call the same [`judge`]: the first over a live frame and BPF maps, the
//! second over a byte slice and plain sets. Nothing here allocates, does I/O or is `unsafe`.

#![no_std]
#![forbid(unsafe_code)]

mod packet;
mod verdict;

pub mod wire;

mod classify;
mod judge;
mod plain;
mod sight;

pub mod map;
pub mod table;

pub use classify::{Carried, Class, Doubt, Flow, Place, carried};
pub use judge::{Judgement, Mode, Policy, judge, judge_any};
pub use packet::{
    Bytes, BytesHead, Head, LinkHeader, MAX_OFFSET, MAX_STEPS, PacketBytes, Step, Walk,
};
pub use plain::judge_plain;
pub use sight::{Sight, Spot, address, look};
pub use verdict::{DropReason, PassReason, REASON_SLOTS, Verdict};
