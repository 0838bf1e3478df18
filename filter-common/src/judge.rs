//! The verdict on a frame: from its class and the active policy.

use core::net::IpAddr;

use crate::{
    classify::{Class, Flow, PacketBounds, Payload, Unclassifiable, ipv4, ipv6, link::payload},
    fast_path::judge_fast,
    packet::PacketBytes,
    policy::{Encapsulation, Judgement, Mode, Policy, evaluate_segment},
    reported::PacketLocation,
    verdict::{DropReason, PassReason},
};

/// The verdict on `packet` under `policy`: the fast path where it applies, otherwise the slow path.
#[inline(always)]
pub fn judge<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Judgement {
    match judge_fast(packet, policy, |judgement, _| judgement) {
        Some(judgement) => judgement,
        None => judge_slow(packet, policy),
    }
}

/// The verdict by the slow path, which judges any frame.
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

/// How many nested IP packets are read, the outermost included.
const PACKETS_DEEP: usize = 2;

/// The reason to pass, or the reason to drop and the location of the packet.
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
    // The innermost source is not read, so no authorization is possible.
    Err((DropReason::HeadersTooDeep, PacketLocation::UNKNOWN))
}

/// A [`Payload`] without its bounds. [`split`](Payload::split) returns these separately, and always
/// initialized: BPF does not allow a move of an uninitialized register, and the compiler emits such
/// moves even where the value does not matter.
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

/// The outcome for one IP packet.
enum Outcome {
    Pass(PassReason),
    Drop(DropReason, PacketLocation),
    /// The inner packet decides.
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
        // The source decides, as if the packet were for any protected port. So a client in all
        // lists never loses an unclassifiable packet, and with one no source reaches a port that is
        // not open to it.
        Class::Unclassifiable { flow, why } => {
            if destination_is_unguarded(packet, policy, &flow) {
                return Outcome::Pass(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into(), None) {
                return Outcome::Pass(PassReason::AuthorizedUnclassifiable);
            }
            Outcome::Drop(why.reason(), location)
        }
        Class::AlwaysDrop(reason) => Outcome::Drop(reason, PacketLocation::UNKNOWN),
        Class::Encapsulated(inner) => Outcome::Inner(inner),
    }
}

/// Whether the packet certainly ends at a destination that the policy does not guard.
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
    /// The reason under which the packet of an unlisted source is dropped.
    const fn reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::Malformed,
            Self::Truncated => DropReason::Truncated,
            Self::IncompleteFirstFragment => DropReason::IncompleteFirstFragment,
            Self::TooDeep => DropReason::HeadersTooDeep,
        }
    }
}
