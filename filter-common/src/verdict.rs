//! What is decided about a frame, and why.
//!
//! The numbers are part of the map layout: they index the counters. Never reuse one; a change of meaning is a new
//! number and a new [`LAYOUT_VERSION`](crate::map::LAYOUT_VERSION).

/// How many counters an interface has: one for each verdict and reason, gaps included.
pub const COUNTERS_PER_INTERFACE: u32 = 3 * REASONS_PER_VERDICT;

/// Room for the reasons of one kind of verdict.
const REASONS_PER_VERDICT: u32 = 16;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $label:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            const fn of_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name under which it is counted and shown: a stable word for scripts and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        $(const _: () = assert!($number < REASONS_PER_VERDICT, "a reason's number must fit its block of counters");)+
    };
}

reasons! {
    /// Why a frame passes.
    PassReason {
        /// Enforcement is switched off on purpose (the empty list): nothing is looked at.
        EnforcementOff = 0, "enforcement_off";
        /// No IPv4 or IPv6, or an IP version that contradicts the EtherType: not a packet that TCP could get.
        NotIp = 1, "not_ip";
        /// The frame ends inside the fixed part of its IP header: no stack takes it as a packet.
        ShortHeader = 2, "short_header";
        /// Another protocol than TCP.
        NotTcp = 3, "not_tcp";
        /// A fragment that is not the first: it carries no ports, and without the first it never reassembles.
        LaterFragment = 4, "later_fragment";
        /// TCP to a port that is not protected.
        OtherPort = 5, "other_port";
        /// To a protected port, but of a destination the policy does not guard.
        OtherDestination = 6, "other_destination";
        /// To a protected port, from an authorized source.
        Authorized = 7, "authorized";
        /// From an authorized source, and not classifiable: doubt is decided by source.
        AuthorizedUnclassifiable = 8, "authorized_doubt";
    }
}

reasons! {
    /// Why a frame is dropped, or would be in monitor mode.
    DropReason {
        /// To a protected port, from a source outside the authorized ranges.
        Unauthorized = 0, "unauthorized";
        /// An IPv4 header length below five words (RFC 791 section 3.1), from an unauthorized source.
        Malformed = 1, "malformed";
        /// The packet ends before its TCP port, from an unauthorized source.
        Truncated = 2, "truncated";
        /// A first fragment that does not hold its whole header chain up to the port (RFC 7112), from an
        /// unauthorized source: the port would come in a later fragment, which passes.
        IncompleteFirstFragment = 3, "incomplete_first_fragment";
        /// Headers beyond [`MAX_OFFSET`](crate::MAX_OFFSET), from an unauthorized source or before the source could be
        /// read; or more packets inside one another than are looked into, where no source is believed.
        HeadersTooDeep = 4, "headers_too_deep";
        /// A fragment header behind anything but one hop-by-hop header, from *anyone*: with conntrack loaded Linux
        /// gives its payload to another protocol than it names, and may overwrite the source address.
        MisplacedFragment = 5, "misplaced_fragment";
    }
}

/// What happens to a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on to the stack, unaltered.
    Pass(PassReason),
    /// It is dropped.
    Drop(DropReason),
    /// Monitor mode: it passes, and enforce mode would have dropped it.
    WouldDrop(DropReason),
}

impl Verdict {
    /// The counter of this verdict and reason; below [`COUNTERS_PER_INTERFACE`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Pass(reason) => reason as u32,
            Self::Drop(reason) => REASONS_PER_VERDICT + reason as u32,
            Self::WouldDrop(reason) => 2 * REASONS_PER_VERDICT + reason as u32,
        }
    }

    /// The verdict that is counted there; none if nothing is.
    #[inline(always)]
    pub fn from_index(index: u32) -> Option<Self> {
        match index / REASONS_PER_VERDICT {
            0 => PassReason::of_number(index).map(Self::Pass),
            1 => DropReason::of_number(index % REASONS_PER_VERDICT).map(Self::Drop),
            2 => DropReason::of_number(index % REASONS_PER_VERDICT).map(Self::WouldDrop),
            _ => None,
        }
    }

    /// Whether what is counted there passes with nothing to say about it.
    #[inline(always)]
    pub const fn is_pass(index: u32) -> bool {
        index < REASONS_PER_VERDICT
    }

    /// Whether what is counted there is dropped.
    #[inline(always)]
    pub const fn is_drop(index: u32) -> bool {
        index / REASONS_PER_VERDICT == 1
    }

    /// Every verdict there is, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        let passes = PassReason::ALL.iter().copied().map(Self::Pass);
        let drops = DropReason::ALL.iter().copied().map(Self::Drop);
        let would_drops = DropReason::ALL.iter().copied().map(Self::WouldDrop);
        passes.chain(drops).chain(would_drops)
    }

    /// The verdict's own name, without the reason.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Drop(_) => "drop",
            Self::WouldDrop(_) => "would_drop",
        }
    }

    /// The name of the reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.label(),
            Self::Drop(reason) | Self::WouldDrop(reason) => reason.label(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_counter_of_its_own() {
        let mut used = [false; COUNTERS_PER_INTERFACE as usize];
        for verdict in Verdict::all() {
            let index = &mut used[verdict.index() as usize];
            assert!(!*index, "{verdict:?} shares its counter");
            *index = true;
            assert_eq!(Verdict::from_index(verdict.index()), Some(verdict));
        }
    }
}
