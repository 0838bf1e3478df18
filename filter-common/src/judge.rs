//! From what a frame is, and the policy in force, to the verdict.

use core::net::IpAddr;

use crate::{
    Carried, Class, Doubt, DropReason, Flow, PacketBytes, PassReason, Verdict,
    classify::carried,
    wire::{ipv4, ipv6},
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
    fn guards_any_destination(&self) -> bool;
    /// Whether the policy guards `destination`; asked only if it does not guard any.
    fn guards(&self, destination: IpAddr) -> bool;
    /// Whether `source` is in an authorized range.
    fn authorizes(&self, source: IpAddr) -> bool;
}

/// The verdict on `packet` under `policy`.
#[inline(always)]
pub fn judge<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Verdict {
    let mode = policy.mode();
    if mode == Mode::Off {
        return Verdict::Pass(PassReason::EnforcementOff);
    }
    match (decide(packet, policy), mode) {
        (Ok(reason), _) => Verdict::Pass(reason),
        (Err(reason), Mode::Monitor) => Verdict::WouldDrop(reason),
        (Err(reason), Mode::Enforce | Mode::Off) => Verdict::Drop(reason),
    }
}

/// Why the packet passes, or why it must not.
#[inline(always)]
fn decide<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Result<PassReason, DropReason> {
    match carried(packet) {
        Carried::Ipv4(offset) => weigh(packet, policy, ipv4::classify(packet, offset)),
        Carried::Ipv6(offset) => weigh(packet, policy, ipv6::classify(packet, offset)),
        Carried::Other(reason) => Ok(reason),
        Carried::Hidden(reason) => Err(reason),
    }
}

#[inline(always)]
fn weigh<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    class: Class<A>,
) -> Result<PassReason, DropReason> {
    match class {
        Class::Other(reason) => Ok(reason),
        Class::Segment { flow, port } => {
            if !policy.protects(port) {
                return Ok(PassReason::OtherPort);
            }
            if elsewhere(packet, policy, &flow) {
                return Ok(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Ok(PassReason::Authorized);
            }
            Err(DropReason::Unauthorized)
        }
        // Doubt is decided by source: it never costs an authorized client a packet, nor lets a stranger in.
        Class::Doubt { flow, why } => {
            if elsewhere(packet, policy, &flow) {
                return Ok(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Ok(PassReason::AuthorizedDoubt);
            }
            Err(why.reason())
        }
        Class::Hostile(reason) => Err(reason),
    }
}

/// Whether the packet certainly ends at a destination the policy does not guard.
#[inline(always)]
fn elsewhere<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    flow: &Flow<A>,
) -> bool {
    !policy.guards_any_destination()
        && !policy.guards(flow.destination.into())
        && !flow.may_be_redirected(packet)
}

impl Doubt {
    /// The reason to drop the packet of an unauthorized source under.
    const fn reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::Malformed,
            Self::Truncated => DropReason::Truncated,
            Self::IncompleteFirstFragment => DropReason::IncompleteFirstFragment,
            Self::TooDeep => DropReason::HeadersTooDeep,
        }
    }
}
