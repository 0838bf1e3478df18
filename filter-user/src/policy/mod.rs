//! The compiled policy: from a list, the implicit sources and the settings to the content of the
//! maps; pure.

pub mod author;
mod compile;
mod difference;
mod prefilter;

pub use self::{
    compile::{Prefix, Prefixes, Sources, common, compile},
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
    /// The digest of the lists.
    pub list: [u8; 32],
    /// The files of the cluster that it was compiled from.
    pub cluster: Lists,
    /// The files or fallback that it was made from.
    pub basis: Basis,
    /// Its author.
    pub by: Author,
    /// Always the prefixes of `table`.
    sources: Arc<Prefixes>,
    groups: Arc<Groups>,
    table: Arc<OnceLock<Table>>,
}

/// The sources for ports with lists of their own. All of them are among the sources of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Groups {
    /// One for each guard of the settings.
    guards: Vec<Prefixes>,
    /// The sources that all of them have in common.
    common: Prefixes,
}

impl Policy {
    /// The policy that authorizes `sources`, compiled from lists with this digest. The list is the
    /// off switch if not `enforced`. `guards` are the sources for each guard of `settings`.
    pub fn new(
        settings: Settings,
        decapsulation: Decapsulation,
        enforced: bool,
        list: [u8; 32],
        sources: Prefixes,
        guards: Vec<Prefixes>,
    ) -> Self {
        let groups = Groups {
            common: common(&guards),
            guards,
        };
        let policy = Self {
            settings,
            decapsulation,
            enforced,
            list,
            cluster: Lists::default(),
            basis: Basis::Files,
            by: Author::of_this_process(),
            sources: Arc::new(sources),
            groups: Arc::new(groups),
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

    /// The sources that are authorized for the ports of each guard of the settings.
    pub fn guards(&self) -> &[Prefixes] {
        &self.groups.guards
    }

    /// The sources that are authorized for every guard's ports: those of packets whose port cannot
    /// be read. Without guards it is empty, and such packets go by [`sources`](Self::sources).
    pub fn common(&self) -> &Prefixes {
        &self.groups.common
    }

    /// The sources that are authorized for `port`, which is protected.
    pub fn sources_at(&self, port: u16) -> &Prefixes {
        let guard = self.settings.guard_of(port);
        guard.map_or(&self.sources, |guard| &self.groups.guards[guard])
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
