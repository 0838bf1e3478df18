//! The record of a generation: what user space keeps of the policy in a slot.

use bytemuck::{Pod, Zeroable};

/// What one generation says besides its prefixes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyRecord {
    /// Counts the policies staged since the pins were made; 0 in a slot that never held one. No
    /// number is given twice: a slot keeps its own until the next policy lies in it.
    pub generation: u64,
    /// When the list and the settings were put in force, in nanoseconds since 1970-01-01 UTC. A policy that differs from the one
    /// before in its implicit sources alone keeps that one's time.
    pub applied_at: u64,
    /// When the other generation is in force again, on the boot clock; only with [`PROVISIONAL`] in the selector.
    pub fallback_at: u64,
    /// SHA-256 of the list, as user space computes it: whether a ranges file says the same.
    pub list: [u8; 32],
    /// The next free [`PrefixValue::id`]. After 2^32 ranges they begin anew, and two ranges may share a count; it decides nothing.
    pub next_id: u32,
    /// A [`Mode`](crate::Mode) as a number, as in the [`PolicyHeader`].
    pub mode: u8,
    /// 1 if its list is put into the ranges file with it, or because somebody confirmed it: only then does a file that says the same
    /// tell that a writer got so far.
    pub commits: u8,
    /// 1 if the slot is empty: no packet reads it, and its maps hold nothing. Only such a slot is
    /// filled. `generation`, `next_id`, `trial` and `fallback_at` still tell of the generation before.
    pub is_empty: u8,
    /// A [`Basis`] as a number: what user space made it from.
    pub basis: u8,
    /// As in the [`PolicyHeader`].
    pub decapsulates: u8,
    /// A [`Trial`] as a number: what became of a generation that was on trial.
    pub trial: u8,
    /// Always zero.
    pub unused: [u8; 6],
}

const _: () = assert!(size_of::<PolicyRecord>() == 72, "no padding");

/// What becomes of a generation that is to be confirmed. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trial {
    /// Not on trial; or on trial with its list in a file of its own, while the ranges file holds the list of before.
    #[default]
    None = 0,
    /// It waits, and the ranges file says its list: the file was edited, and `run` put it on trial.
    Edited = 1,
    /// Nobody confirmed it in time: it took itself back, and no change came after it.
    Lapsed = 2,
    /// It waits, and brings other settings alone: no file is to be written for it.
    Settings = 3,
}

impl Trial {
    /// The one with this number; an unknown number is taken for none.
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Edited,
            2 => Self::Lapsed,
            3 => Self::Settings,
            _ => Self::None,
        }
    }
}

/// What a policy was made from. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Basis {
    /// The ranges file, or a command, and the settings: as it should be.
    #[default]
    Files = 0,
    /// The policy last in force: at a start the files could not be used.
    LastInForce = 1,
    /// The implicit sources alone: at a start there was no usable list, on a node that has enforced one before.
    ImplicitSources = 2,
    /// Nothing: a fresh installation without a list, in monitor mode.
    Fresh = 3,
    /// The list, under settings that are the default where the files say nothing: at a start the ones last in force could not be read.
    DefaultSettings = 4,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Files,
        Self::LastInForce,
        Self::ImplicitSources,
        Self::Fresh,
        Self::DefaultSettings,
    ];

    /// The one with this number; an unknown number is taken for the files.
    pub fn of(number: u8) -> Self {
        let all = Self::ALL.into_iter();
        let mut found = all.filter(|basis| *basis as u8 == number);
        found.next().unwrap_or_default()
    }

    /// The name under which it is shown.
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
