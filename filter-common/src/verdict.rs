//! Verdicts and their reasons.
//!
//! The numbers are part of the map layout because they index the counters. Never reuse a number. A
//! reason with another meaning needs a new number and a new
//! [`LAYOUT_VERSION`](crate::layout::LAYOUT_VERSION).

/// Number of counters of an interface: one for each verdict and reason, unused numbers included.
pub const COUNTERS_PER_INTERFACE: u32 = 3 * REASONS_PER_VERDICT;

/// Number of counters reserved for the reasons of one verdict.
const REASONS_PER_VERDICT: u32 = 16;

macro_rules! reasons {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $label:literal;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            const fn of_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The stable name in counters, output and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        $(const _: () = assert!(
            $number < REASONS_PER_VERDICT,
            "the counters of a verdict have room for each reason"
        );)+
    };
}

reasons! {
    /// Why a frame passes.
    PassReason {
        /// Enforcement is off on purpose (the empty list); the frame is not read.
        EnforcementOff = 0, "enforcement_off";
        /// Neither IPv4 nor IPv6, or an IP version that contradicts the EtherType. TCP never gets
        /// such a packet.
        NotIp = 1, "not_ip";
        /// The frame ends before the fixed part of its IP header does. No stack accepts it as a
        /// packet.
        ShortHeader = 2, "short_header";
        /// A protocol other than TCP.
        NotTcp = 3, "not_tcp";
        /// A fragment that is not the first. It holds no ports and cannot be reassembled without
        /// the first.
        LaterFragment = 4, "later_fragment";
        /// TCP to a port that is not protected.
        OtherPort = 5, "other_port";
        /// TCP to a protected port, of a destination that the policy does not guard.
        OtherDestination = 6, "other_destination";
        /// TCP to a protected port, from an authorized source.
        Authorized = 7, "authorized";
        /// An unclassifiable packet from an authorized source. Without a port the source decides.
        AuthorizedUnclassifiable = 8, "authorized_doubt";
    }
}

reasons! {
    /// Why a frame is dropped, or would be in monitor mode.
    DropReason {
        /// TCP to a protected port, from an unlisted source.
        Unauthorized = 0, "unauthorized";
        /// An IPv4 header length below five words (RFC 791 section 3.1), from an unlisted source.
        Malformed = 1, "malformed";
        /// The packet ends before its TCP port, from an unlisted source.
        Truncated = 2, "truncated";
        /// A first fragment that ends before the TCP port (RFC 7112), from an unlisted source. The
        /// port would come in a later fragment, which passes.
        IncompleteFirstFragment = 3, "incomplete_first_fragment";
        /// Headers beyond [`MAX_OFFSET`](crate::MAX_OFFSET), from an unlisted source or before a
        /// source could be read. Also more nested packets than are read, whatever their sources.
        HeadersTooDeep = 4, "headers_too_deep";
        /// A fragment header after any header but a single hop-by-hop header, from *any* source.
        /// With conntrack loaded, Linux gives its payload to another protocol than it names, and
        /// may overwrite the source address.
        MisplacedFragment = 5, "misplaced_fragment";
    }
}

/// What happens to a frame, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The frame goes to the network stack, unaltered.
    Pass(PassReason),
    /// The frame is dropped.
    Drop(DropReason),
    /// Monitor mode: the frame passes, and enforce mode would drop it.
    WouldDrop(DropReason),
}

impl Verdict {
    /// The index of the counter of this verdict and reason; below [`COUNTERS_PER_INTERFACE`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Pass(reason) => reason as u32,
            Self::Drop(reason) => REASONS_PER_VERDICT + reason as u32,
            Self::WouldDrop(reason) => 2 * REASONS_PER_VERDICT + reason as u32,
        }
    }

    /// The verdict with this index; `None` for an unused number.
    #[inline(always)]
    pub fn from_index(index: u32) -> Option<Self> {
        match index / REASONS_PER_VERDICT {
            0 => PassReason::of_number(index).map(Self::Pass),
            1 => DropReason::of_number(index % REASONS_PER_VERDICT).map(Self::Drop),
            2 => DropReason::of_number(index % REASONS_PER_VERDICT).map(Self::WouldDrop),
            _ => None,
        }
    }

    /// Whether the verdict with this index is a pass, which is not reported.
    #[inline(always)]
    pub const fn is_pass(index: u32) -> bool {
        index < REASONS_PER_VERDICT
    }

    /// Whether the verdict with this index drops the frame.
    #[inline(always)]
    pub const fn is_drop(index: u32) -> bool {
        index / REASONS_PER_VERDICT == 1
    }

    /// All verdicts, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        let passes = PassReason::ALL.iter().copied().map(Self::Pass);
        let drops = DropReason::ALL.iter().copied().map(Self::Drop);
        let would_drops = DropReason::ALL.iter().copied().map(Self::WouldDrop);
        passes.chain(drops).chain(would_drops)
    }

    /// The name of the verdict, without its reason.
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
