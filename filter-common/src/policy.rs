//! The active policy, as far as a verdict needs it, and its answer for a TCP segment.

use core::net::IpAddr;

use crate::{
    reported::PacketLocation,
    verdict::{DropReason, PassReason, Verdict},
};

/// What the policy does with packets that it does not authorize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Drop them. The number is zero, so that a policy record of zeros enforces.
    Enforce = 0,
    /// Count what enforce mode would drop, and drop nothing.
    Monitor = 1,
    /// Pass every frame unread. The user emptied the list on purpose.
    Off = 2,
}

/// The active policy, as far as a verdict needs it.
///
/// `filter-ebpf` implements it over BPF maps, the tests over plain sets.
pub trait Policy {
    /// What to do with packets that are not authorized.
    fn mode(&self) -> Mode;
    /// Whether `port` (host order) is protected.
    fn protects(&self, port: u16) -> bool;
    /// Whether the policy guards every destination.
    fn guards_every_destination(&self) -> bool;
    /// Whether the policy guards `destination`. Asked only if
    /// [`guards_every_destination`](Self::guards_every_destination) is false.
    fn guards(&self, destination: IpAddr) -> bool;
    /// Whether this node takes inner packets out of this encapsulation.
    fn decapsulates(&self, how: Encapsulation) -> bool;
    /// Whether `source` is in a range that is authorized for `port` (host order), which is
    /// protected. `None` stands for a port that cannot be read: the source must then be authorized
    /// for every port that has lists of its own.
    fn authorizes(&self, source: IpAddr, port: Option<u16>) -> bool;
}

/// The verdict on a packet, and where the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Verdict and reason as a [`Verdict::index`]: one number, which the XDP program keeps in a
    /// register.
    pub verdict_index: u32,
    /// Location of a packet that is dropped or would be. [`PacketLocation::UNKNOWN`] for a packet
    /// that passes, and where the addresses cannot be read or trusted.
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

/// An encapsulation that Linux removes without a tunnel device, if the node is configured so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encapsulation {
    /// A packet in IPv6, after any chain of extension headers. A route ends a segment and removes
    /// the outer packet (`encap seg6local action End.D*`, RFC 8986 sections 4.4 to 4.8; Linux 4.14,
    /// commit d1df6fd8a1d22d37cffa0075ab8ad423ce656777).
    SegmentRouting = 1,
    /// A packet after MPLS labels (RFC 3032), where an interface accepts them.
    Mpls = 2,
}

/// The reason to pass a segment for `port` (host order); `None` if its source is not authorized.
///
/// `destination_is_unguarded` says whether the segment certainly ends at a destination that the
/// policy does not guard. `source` is called last because a value that is loaded early occupies a
/// register or the stack.
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
    } else if policy.authorizes(source(), Some(port)) {
        Some(PassReason::Authorized)
    } else {
        None
    }
}
