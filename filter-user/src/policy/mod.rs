//! The compiled policy: from a list, the implicit sources and the settings to the content of the
//! maps; pure.

pub mod author;
mod compile;
mod difference;
mod prefilter;

pub use self::{
    compile::{Prefix, Prefixes, Sources, compile},
    difference::{Difference, entry},
    prefilter::Table,
};

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use filter_common::{Encapsulation, Mode, layout::Basis};

use self::author::Author;
use crate::{config::Settings, ranges::Lists};

/// A policy as it is compiled into a generation. A thread of its own compiles the table from the
/// start.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The settings that it is compiled from.
    pub settings: Settings,
    /// The encapsulations that the filter reads into.
    pub decapsulation: Decapsulation,
    /// False if the list is the off switch.
    pub enforced: bool,
    /// The digest of the list.
    pub list: [u8; 32],
    /// The files of the cluster that it was compiled from.
    pub cluster: Lists,
    /// The files or fallback that it was made from.
    pub basis: Basis,
    /// Its author.
    pub by: Author,
    /// Always the prefixes of `table`.
    sources: Arc<Prefixes>,
    table: Arc<OnceLock<Table>>,
}

impl Policy {
    /// The policy that authorizes `sources`, compiled from a list with this digest. The list is the
    /// off switch if not `enforced`.
    pub fn new(
        settings: Settings,
        decapsulation: Decapsulation,
        enforced: bool,
        list: [u8; 32],
        sources: Prefixes,
    ) -> Self {
        let policy = Self {
            settings,
            decapsulation,
            enforced,
            list,
            cluster: Lists::default(),
            basis: Basis::Files,
            by: Author::of_this_process(),
            sources: Arc::new(sources),
            table: Arc::default(),
        };
        let ahead = policy.clone();
        // Without a thread, the first use of the table compiles it.
        let _ = thread::Builder::new().spawn(move || {
            ahead.table();
        });
        policy
    }

    /// The authorized sources.
    pub fn sources(&self) -> &Prefixes {
        &self.sources
    }

    /// The table of the authorized sources.
    pub fn table(&self) -> &Table {
        self.table.get_or_init(|| Table::new(&self.sources))
    }

    /// The mode in which packets are judged.
    pub fn mode(&self) -> Mode {
        if self.enforced {
            self.settings.mode.mode()
        } else {
            Mode::Off
        }
    }
}

/// The encapsulations that the node removes without a tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decapsulation(u8);

impl Decapsulation {
    /// Those of IPv6 routes if `routes`, and of MPLS if `labels`.
    pub fn of(routes: bool, labels: bool) -> Self {
        let bits = [
            (routes, Encapsulation::SegmentRouting),
            (labels, Encapsulation::Mpls),
        ];
        let bits = bits.into_iter().filter(|(is, _)| *is);
        Self(bits.fold(0, |bits, (_, how)| bits | how as u8))
    }

    /// The number in the kernel's maps.
    pub const fn bits(self) -> u8 {
        self.0
    }
}
