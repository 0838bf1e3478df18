//! The compiled policy: from a list, the implicit sources and the settings to what the maps hold; pure.

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
use crate::config::Settings;

/// A policy as it is compiled into a generation. The table is made by a thread of its own, from the first.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it is compiled from besides the list.
    pub settings: Settings,
    /// What is looked into.
    pub decapsulation: Decapsulation,
    /// False if the list is the off switch.
    pub enforced: bool,
    /// The digest of the list.
    pub list: [u8; 32],
    /// What it was made from.
    pub basis: Basis,
    /// Who wants it.
    pub by: Author,
    /// Never another one than `table` is of.
    sources: Arc<Prefixes>,
    table: Arc<OnceLock<Table>>,
}

impl Policy {
    /// The policy that authorizes `sources`, which a list with this digest, the off switch if it is not `enforced`, was compiled to.
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
            basis: Basis::Files,
            by: Author::of_this_process(),
            sources: Arc::new(sources),
            table: Arc::default(),
        };
        let ahead = policy.clone();
        // Where no thread can be had, whoever needs the table makes it.
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

    /// The mode that packets meet.
    pub fn mode(&self) -> Mode {
        if self.enforced {
            self.settings.mode.mode()
        } else {
            Mode::Off
        }
    }
}

/// A set of encapsulations that the node takes off without a tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decapsulation(u8);

impl Decapsulation {
    /// Where `routes` and `labels` tell what those do.
    pub fn of(routes: bool, labels: bool) -> Self {
        let bits = [
            (routes, Encapsulation::SegmentRouting),
            (labels, Encapsulation::Mpls),
        ];
        let bits = bits.into_iter().filter(|(is, _)| *is);
        Self(bits.fold(0, |bits, (_, how)| bits | how as u8))
    }

    /// As the kernel keeps it.
    pub const fn bits(self) -> u8 {
        self.0
    }
}
