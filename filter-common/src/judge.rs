//! From what a frame is, and the policy in force, to the verdict.

use core::net::IpAddr;

use crate::{
    classify::{Carried, Class, Doubt, Flow, Place, ipv4, ipv6, link::carried},
    fast_path::judge_plain,
    packet::PacketBytes,
    policy::{Encapsulation, Judgement, Mode, Policy, weigh_segment},
    reported::Spot,
    verdict::{DropReason, PassReason},
};

/// The verdict on `packet` under `policy`.
#[inline(always)]
pub fn judge<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Judgement {
    match judge_plain(packet, policy, |judgement, _| judgement) {
        Some(judgement) => judgement,
        None => judge_any(packet, policy),
    }
}

/// The same for any frame.
#[inline(always)]
pub fn judge_any<P: PacketBytes, Y: Policy>(packet: &P, policy: &Y) -> Judgement {
    let mode = policy.mode();
    if mode == Mode::Off {
        return Judgement::pass(PassReason::EnforcementOff);
    }
    match decide(packet, policy) {
        Ok(reason) => Judgement::pass(reason),
        Err((reason, spot)) => Judgement::refuse(reason, spot, mode),
    }
}

/// How many IP packets inside one another are looked at.
const PACKETS_DEEP: usize = 2;

/// Why the packet passes, or why it must not and where it is.
#[inline(always)]
fn decide<P: PacketBytes, Y: Policy>(
    packet: &P,
    policy: &Y,
) -> Result<PassReason, (DropReason, Spot)> {
    let mpls = || policy.decapsulates(Encapsulation::Mpls);
    let (mut found, mut place) = carried(packet, mpls).apart();
    for _ in 0..PACKETS_DEEP {
        let weighed = match found {
            Found::Ipv4 => {
                let spot = Spot::v4(place.offset);
                weigh(packet, policy, ipv4::classify(packet, place), spot)
            }
            Found::Ipv6 => {
                let spot = Spot::v6(place.offset);
                let decapsulates = policy.decapsulates(Encapsulation::SegmentRouting);
                let class = ipv6::classify(packet, place, decapsulates);
                weigh(packet, policy, class, spot)
            }
            Found::Other(reason) => return Ok(reason),
            Found::Hidden(reason) => return Err((reason, Spot::NOWHERE)),
        };
        match weighed {
            Weighed::Pass(reason) => return Ok(reason),
            Weighed::Drop(reason, spot) => return Err((reason, spot)),
            Weighed::Look(inside) => (found, place) = inside.apart(),
        }
    }
    // The source that counts is further in: nobody can be asked to vouch for it.
    Err((DropReason::HeadersTooDeep, Spot::NOWHERE))
}

/// A [`Carried`] whose place stands beside it, and is never left open: a register that nobody wrote may not be moved in BPF, not even
/// where its value does not matter, and the compiler moves them.
enum Found {
    Ipv4,
    Ipv6,
    Other(PassReason),
    Hidden(DropReason),
}

impl Carried {
    #[inline(always)]
    fn apart(self) -> (Found, Place) {
        let nowhere = Place::in_frame(0);
        match self {
            Self::Ipv4(place) => (Found::Ipv4, place),
            Self::Ipv6(place) => (Found::Ipv6, place),
            Self::Other(reason) => (Found::Other(reason), nowhere),
            Self::Hidden(reason) => (Found::Hidden(reason), nowhere),
        }
    }
}

/// What one IP packet comes to.
enum Weighed {
    Pass(PassReason),
    Drop(DropReason, Spot),
    /// It is for the packet inside to say.
    Look(Carried),
}

#[inline(always)]
fn weigh<P: PacketBytes, Y: Policy, A: Copy + Into<IpAddr>>(
    packet: &P,
    policy: &Y,
    class: Class<A>,
    spot: Spot,
) -> Weighed {
    match class {
        Class::Other(reason) => Weighed::Pass(reason),
        Class::Segment { flow, port, at } => {
            let elsewhere = || elsewhere(packet, policy, &flow);
            match weigh_segment(policy, port, || flow.source.into(), elsewhere) {
                Some(reason) => Weighed::Pass(reason),
                None => Weighed::Drop(DropReason::Unauthorized, spot.with_segment(at)),
            }
        }
        // Doubt is decided by source: it never costs an authorized client a packet, nor lets a stranger in.
        Class::Doubt { flow, why } => {
            if elsewhere(packet, policy, &flow) {
                return Weighed::Pass(PassReason::OtherDestination);
            }
            if policy.authorizes(flow.source.into()) {
                return Weighed::Pass(PassReason::AuthorizedDoubt);
            }
            Weighed::Drop(why.reason(), spot)
        }
        Class::Hostile(reason) => Weighed::Drop(reason, Spot::NOWHERE),
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
