//! The record of a generation: user space's data about the policy in a slot.

use bytemuck::{Pod, Zeroable};

/// The data of a generation besides its prefixes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyRecord {
    /// Counts the policies staged since the pins were created; 0 in a slot that never held one. No
    /// number is used twice: a slot keeps its own until the next policy is staged in it.
    pub generation: u64,
    /// Time when the list and the settings were activated, in nanoseconds since 1970-01-01 UTC. A
    /// policy that differs from the previous one only in its implicit sources keeps that one's
    /// time.
    pub applied_at: u64,
    /// Time when the other generation becomes active again, on the boot clock; only with
    /// [`PROVISIONAL`] in the selector.
    pub fallback_at: u64,
    /// SHA-256 of the list, computed by user space, for comparison with a ranges file.
    pub list: [u8; 32],
    /// The next free [`PrefixValue::id`]. It wraps after 2^32 ranges, and two ranges may then share
    /// a count; no verdict depends on it.
    pub next_id: u32,
    /// A [`Mode`](crate::Mode) as a number, as in the [`PolicyHeader`].
    pub mode: u8,
    /// 1 if its list is put into the ranges file with it, or because the operator confirmed it.
    /// Only then does an equal ranges file prove that the writer got that far.
    pub commits: u8,
    /// 1 if the slot is empty: no packet reads it, and its maps hold nothing. Only such a slot is
    /// filled. `generation`, `next_id`, `trial` and `fallback_at` are still those of the generation
    /// before.
    pub is_empty: u8,
    /// A [`Basis`] as a number: what user space made it from.
    pub basis: u8,
    /// As in the [`PolicyHeader`].
    pub decapsulates: u8,
    /// A [`Trial`] as a number: the state of a provisional generation.
    pub trial: u8,
    /// Always zero.
    pub unused: [u8; 6],
}

const _: () = assert!(size_of::<PolicyRecord>() == 72, "no padding");

/// The state of a generation that needs a confirmation. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trial {
    /// Not on trial; or on trial with its list in a pending file, while the ranges file holds the
    /// previous list.
    #[default]
    None = 0,
    /// Waiting, and the ranges file holds its list: the file was edited, and `run` put it on trial.
    Edited = 1,
    /// Not confirmed in time: it rolled back, and no change came after it.
    Lapsed = 2,
    /// Waiting, with other settings only: no file is to be written for it.
    Settings = 3,
}

impl Trial {
    /// The state with this number; an unknown number counts as none.
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Edited,
            2 => Self::Lapsed,
            3 => Self::Settings,
            _ => Self::None,
        }
    }
}

/// The source of a policy. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Basis {
    /// The ranges file, or a command, and the settings: the normal case.
    #[default]
    Files = 0,
    /// The last active policy: at a start the files were unusable.
    LastInForce = 1,
    /// Only the implicit sources: at a start there was no usable list, on a node that has enforced
    /// one before.
    ImplicitSources = 2,
    /// Nothing: a new installation without a list, in monitor mode.
    Fresh = 3,
    /// The list, with default settings where the files set none: at a start the last active ones
    /// were unreadable.
    DefaultSettings = 4,
}

impl Basis {
    /// All sources.
    pub const ALL: [Self; 5] = [
        Self::Files,
        Self::LastInForce,
        Self::ImplicitSources,
        Self::Fresh,
        Self::DefaultSettings,
    ];

    /// The basis with this number; an unknown number counts as the files.
    pub fn of(number: u8) -> Self {
        let all = Self::ALL.into_iter();
        let mut found = all.filter(|basis| *basis as u8 == number);
        found.next().unwrap_or_default()
    }

    /// The name that users see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::LastInForce => "last_in_force",
            Self::ImplicitSources => "implicit_sources",
            Self::Fresh => "fresh_installation",
            Self::DefaultSettings => "default_settings",
        }
    }
}
