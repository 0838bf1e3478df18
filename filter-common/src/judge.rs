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

/// How many IP packets inside one another are looked at.
const PACKETS_DEEP: usize = 2;

/// Why the packet passes, or why it must not.
#[inline(always)]
fn decide<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Result<PassReason, DropReason> {
    let mut found = carried(packet);
    for _ in 0..PACKETS_DEEP {
        let weighed = match found {
            Carried::Ipv4(place) => weigh(packet, policy, ipv4::classify(packet, place)),
            Carried::Ipv6(place) => weigh(packet, policy, ipv6::classify(packet, place)),
            Carried::Other(reason) => return Ok(reason),
            Carried::Hidden(reason) => return Err(reason),
        };
        match weighed {
            Weighed::Pass(reason) => return Ok(reason),
            Weighed::Drop(reason) => return Err(reason),
            Weighed::Look(inside) => found = inside,
        }
    }
    // The source that counts is further in: nobody can be asked to vouch for it.
    Err(DropReason::HeadersTooDeep)
}

/// What one IP packet comes to.
enum Weighed {
    Pass(PassReason),
    Drop(DropReason),
    /// It is for the packet inside to say.
    Look(Carried),
}

#[inline(always)]
fn weigh<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    class: Class<A>,
) -> Weighed {
    match class {
        Class::Other(reason) => Weighed::Pass(reason),
        Class::Segment { flow, port } => {
            if !policy.protects(port) {
                return Weighed::Pass(PassReason::OtherPort);
            }
            if elsewhere(packet, policy, &flow) {
                return Weighed::Pass(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Weighed::Pass(PassReason::Authorized);
            }
            Weighed::Drop(DropReason::Unauthorized)
        }
        // Doubt is decided by source: it never costs an authorized client a packet, nor lets a stranger in.
        Class::Doubt { flow, why } => {
            if elsewhere(packet, policy, &flow) {
                return Weighed::Pass(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Weighed::Pass(PassReason::AuthorizedDoubt);
            }
            Weighed::Drop(why.reason())
        }
        Class::Hostile(reason) => Weighed::Drop(reason),
        Class::Around(inside) => Weighed::Look(inside),
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
