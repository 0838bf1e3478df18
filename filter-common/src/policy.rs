//! The policy in force, as far as a verdict needs it, and what it says of a segment.

use core::net::IpAddr;

use crate::{
    reported::PacketLocation,
    verdict::{DropReason, PassReason, Verdict},
};

/// What the policy does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Drop. Zero, so that a policy nobody wrote is the strict one.
    Enforce = 0,
    /// Count what enforce would drop, and drop nothing.
    Monitor = 1,
    /// Look at nothing: the user emptied the list on purpose.
    Off = 2,
}

/// The policy in force, as far as a verdict needs it.
///
/// Implemented over BPF maps in `filter-ebpf`, and over plain sets in the tests.
pub trait Policy {
    /// What to do with what is found.
    fn mode(&self) -> Mode;
    /// Whether `port` (host order) is protected.
    fn protects(&self, port: u16) -> bool;
    /// Whether the policy guards every destination there is.
    fn guards_every_destination(&self) -> bool;
    /// Whether the policy guards `destination`; asked only if it does not guard any.
    fn guards(&self, destination: IpAddr) -> bool;
    /// Whether this node takes such a packet out of another one.
    fn decapsulates(&self, how: Encapsulation) -> bool;
    /// Whether `source` is in an authorized range.
    fn authorizes(&self, source: IpAddr) -> bool;
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What happens to it and why, as a [`Verdict::index`]: one number, which the program keeps in a register.
    pub verdict_index: u32,
    /// Where it is, if it is or would be dropped, and its addresses are known and to be believed.
    pub location: PacketLocation,
}

impl Judgement {
    #[inline(always)]
    pub(crate) const fn pass(reason: PassReason) -> Self {
        Self {
            verdict_index: Verdict::Pass(reason).index(),
            location: PacketLocation::UNKNOWN,
        }
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: DropReason, location: PacketLocation, mode: Mode) -> Self {
        let verdict = match mode {
            Mode::Monitor => Verdict::WouldDrop(reason),
            Mode::Enforce | Mode::Off => Verdict::Drop(reason),
        };
        let verdict_index = verdict.index();
        Self {
            verdict_index,
            location,
        }
    }
}

/// How a packet may lie in another one that Linux takes it out of without a tunnel device, if the node is set up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encapsulation {
    /// In IPv6, behind any chain of extension headers: where a route ends a segment and takes off what is around the packet
    /// (`encap seg6local action End.D*`, RFC 8986 sections 4.4 to 4.8; Linux 4.14, commit
    /// d1df6fd8a1d22d37cffa0075ab8ad423ce656777).
    SegmentRouting = 1,
    /// Behind MPLS labels (RFC 3032), where an interface takes them.
    Mpls = 2,
}

/// Why a segment for `port` passes; `None` if its source is not authorized. `destination_is_unguarded` tells whether it certainly ends at a destination
/// that the policy does not guard. `source` is asked last: what is loaded early has to be kept somewhere.
#[inline(always)]
pub(crate) fn evaluate_segment<Y: Policy>(
    policy: &Y,
    port: u16,
    source: impl FnOnce() -> IpAddr,
    destination_is_unguarded: impl FnOnce() -> bool,
) -> Option<PassReason> {
    if !policy.protects(port) {
        Some(PassReason::OtherPort)
    } else if destination_is_unguarded() {
        Some(PassReason::OtherDestination)
    } else if policy.authorizes(source()) {
        Some(PassReason::Authorized)
    } else {
        None
    }
}
