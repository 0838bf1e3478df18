//! From what a frame is, and the policy in force, to the verdict.

use core::net::IpAddr;

use crate::{
    classify::{Class, Flow, PacketBounds, Payload, Unclassifiable, ipv4, ipv6, link::payload},
    fast_path::judge_fast,
    packet::PacketBytes,
    policy::{Encapsulation, Judgement, Mode, Policy, evaluate_segment},
    reported::PacketLocation,
    verdict::{DropReason, PassReason},
};

/// The verdict on `packet` under `policy`.
#[inline(always)]
pub fn judge<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Judgement {
    match judge_fast(packet, policy, |judgement, _| judgement) {
        Some(judgement) => judgement,
        None => judge_slow(packet, policy),
    }
}

/// The same for any frame.
#[inline(always)]
pub fn judge_slow<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Judgement {
    let mode = policy.mode();
    if mode == Mode::Off {
        return Judgement::pass(PassReason::EnforcementOff);
    }
    match decide(packet, policy) {
        Ok(reason) => Judgement::pass(reason),
        Err((reason, location)) => Judgement::drop(reason, location, mode),
    }
}

/// How many IP packets inside one another are looked at.
const PACKETS_DEEP: usize = 2;

/// Why the packet passes, or why it must not and where it is.
#[inline(always)]
fn decide<P: PacketBytes, Y: Policy>(
    packet: &P,
    policy: &Y,
) -> Result<PassReason, (DropReason, PacketLocation)> {
    let mpls = || policy.decapsulates(Encapsulation::Mpls);
    let (mut kind, mut bounds) = payload(packet, mpls).split();
    for _ in 0..PACKETS_DEEP {
        let outcome = match kind {
            PayloadKind::Ipv4 => {
                let location = PacketLocation::v4(bounds.offset);
                evaluate(packet, policy, ipv4::classify(packet, bounds), location)
            }
            PayloadKind::Ipv6 => {
                let location = PacketLocation::v6(bounds.offset);
                let decapsulates = policy.decapsulates(Encapsulation::SegmentRouting);
                let class = ipv6::classify(packet, bounds, decapsulates);
                evaluate(packet, policy, class, location)
            }
            PayloadKind::Other(reason) => return Ok(reason),
            PayloadKind::Unreadable(reason) => return Err((reason, PacketLocation::UNKNOWN)),
        };
        match outcome {
            Outcome::Pass(reason) => return Ok(reason),
            Outcome::Drop(reason, location) => return Err((reason, location)),
            Outcome::Inner(inner) => (kind, bounds) = inner.split(),
        }
    }
    // The source that counts is further in: nobody can be asked to vouch for it.
    Err((DropReason::HeadersTooDeep, PacketLocation::UNKNOWN))
}

/// A [`Payload`] whose bounds stands beside it, and is never left open: a register that nobody wrote may not be moved in BPF, not even
/// where its value does not matter, and the compiler moves them.
enum PayloadKind {
    Ipv4,
    Ipv6,
    Other(PassReason),
    Unreadable(DropReason),
}

impl Payload {
    #[inline(always)]
    fn split(self) -> (PayloadKind, PacketBounds) {
        let unused = PacketBounds::in_frame(0);
        match self {
            Self::Ipv4(bounds) => (PayloadKind::Ipv4, bounds),
            Self::Ipv6(bounds) => (PayloadKind::Ipv6, bounds),
            Self::Other(reason) => (PayloadKind::Other(reason), unused),
            Self::Unreadable(reason) => (PayloadKind::Unreadable(reason), unused),
        }
    }
}

/// What one IP packet comes to.
enum Outcome {
    Pass(PassReason),
    Drop(DropReason, PacketLocation),
    /// It is for the packet inside to say.
    Inner(Payload),
}

#[inline(always)]
fn evaluate<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    class: Class<A>,
    location: PacketLocation,
) -> Outcome {
    match class {
        Class::Other(reason) => Outcome::Pass(reason),
        Class::Segment { flow, port, at } => {
            let is_unguarded = || destination_is_unguarded(packet, policy, &flow);
            match evaluate_segment(policy, port, || flow.source.into(), is_unguarded) {
                Some(reason) => Outcome::Pass(reason),
                None => Outcome::Drop(DropReason::Unauthorized, location.with_tcp_header(at)),
            }
        }
        // Doubt is decided by source: it never costs an authorized client a packet, nor lets a stranger in.
        Class::Unclassifiable { flow, why } => {
            if destination_is_unguarded(packet, policy, &flow) {
                return Outcome::Pass(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Outcome::Pass(PassReason::AuthorizedUnclassifiable);
            }
            Outcome::Drop(why.reason(), location)
        }
        Class::AlwaysDrop(reason) => Outcome::Drop(reason, PacketLocation::UNKNOWN),
        Class::Encapsulated(inner) => Outcome::Inner(inner),
    }
}

/// Whether the packet certainly ends at a destination the policy does not guard.
#[inline(always)]
fn destination_is_unguarded<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    flow: &Flow<A>,
) -> bool {
    !policy.guards_every_destination()
        && !policy.guards(flow.destination.into())
        && !flow.may_be_redirected(packet)
}

impl Unclassifiable {
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
