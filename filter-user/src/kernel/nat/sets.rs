//! The sets and maps that nftables rules refer to.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::packet::{Byte, Fit, between, equal};
use crate::kernel::net::nfnetlink::{attribute, attributes, dump_of, number, text};

/// `NFT_MSG_GETSETELEM` of `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nf_tables.h`).
const GET_ELEMENTS: u16 = (10 << 8) | 13;
/// `NFTA_SET_ELEM_LIST_*`.
const PREFILTER: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// `NFTA_SET_ELEM_*`, and `NFTA_DATA_*` in them.
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;
/// `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`.
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;

/// The sets read so far. A set is read when a rule needs it, since others may be huge.
#[derive(Default)]
pub(super) struct Sets(RefCell<BTreeMap<Place, Rc<Vec<Element>>>>);

/// The family, the table and the name of a set.
type Place = (u8, String, String);

/// An element of a set.
pub(super) struct Element {
    keys: Keys,
    /// The map's value for it, as `NFTA_DATA_*`.
    pub(super) data: Vec<u8>,
}

enum Keys {
    One(Vec<u8>),
    /// From the first key up to the second, exclusive; open-ended without the second.
    Interval(Vec<u8>, Option<Vec<u8>>),
    /// A range in each word, both ends inclusive.
    Box(Vec<u8>, Vec<u8>),
    All,
}

impl Sets {
    /// The elements that `key` may match, in lookup order, each with its map value. A certain match
    /// is returned alone.
    pub(super) fn find(
        &self,
        (family, table, set): (u8, &str, &str),
        key: &[Byte],
    ) -> Vec<(Fit, Vec<u8>)> {
        let elements = self.elements(family, table, set);
        let fits = elements
            .iter()
            .map(|element| (element.fits(key), &element.data));
        let mut found: Vec<(Fit, Vec<u8>)> = fits
            .filter(|(fit, _)| *fit != Fit::No)
            .map(|(fit, data)| (fit, data.clone()))
            .collect();
        if let Some(certain) = found.iter().position(|(fit, _)| *fit == Fit::Yes) {
            return vec![found.swap_remove(certain)];
        }
        let all = elements
            .iter()
            .find(|element| matches!(element.keys, Keys::All));
        if let Some(all) = all {
            let fit = if found.is_empty() {
                Fit::Yes
            } else {
                Fit::Maybe
            };
            found.push((fit, all.data.clone()));
        }
        found
    }

    fn elements(&self, family: u8, table: &str, set: &str) -> Rc<Vec<Element>> {
        let place = (family, table.to_owned(), set.to_owned());
        let known = self.0.borrow().get(&place).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(read(family, table, set));
            self.0.borrow_mut().insert(place, Rc::clone(&found));
            found
        })
    }
}

/// The elements of a set; empty if the kernel does not list it.
fn read(family: u8, table: &str, set: &str) -> Vec<Element> {
    let mut elements = Vec::new();
    // Starts and ends of intervals, in the order of the addresses.
    let mut bounds: Vec<(Vec<u8>, bool, Vec<u8>)> = Vec::new();
    let of = [(PREFILTER, table), (SET, set)];
    let _ = dump_of(GET_ELEMENTS, family, &of, |_, message| {
        let list = attribute(message, &[ELEMENTS]).unwrap_or_default();
        for (_, element) in attributes(list) {
            let flags = attribute(element, &[FLAGS]).and_then(number).unwrap_or(0);
            let key = |kind| attribute(element, &[kind, VALUE]).map(<[u8]>::to_vec);
            let data = attribute(element, &[DATA]).unwrap_or_default().to_vec();
            match (key(KEY), key(KEY_END)) {
                _ if flags & CATCH_ALL != 0 => elements.push(Element {
                    keys: Keys::All,
                    data,
                }),
                (Some(from), Some(to)) => elements.push(Element {
                    keys: Keys::Box(from, to),
                    data,
                }),
                (Some(key), None) => bounds.push((key, flags & INTERVAL_END == 0, data)),
                (None, _) => {}
            }
        }
    });
    let has_intervals = bounds.iter().any(|(_, is_start, _)| !is_start);
    // An end comes before the start at the same place.
    bounds.sort();
    let mut bounds = bounds.into_iter().peekable();
    while let Some((key, is_start, data)) = bounds.next() {
        let keys = match (has_intervals, is_start) {
            (false, _) => Keys::One(key),
            (true, true) => {
                let end = bounds.peek().map(|(end, ..)| end.clone());
                Keys::Interval(key, end)
            }
            (true, false) => continue,
        };
        elements.push(Element { keys, data });
    }
    elements
}

impl Element {
    fn fits(&self, key: &[Byte]) -> Fit {
        /// Bytes of a register of `nf_tables`.
        const WORD: usize = 4;
        let part = |len: usize| key.get(..len).unwrap_or_default();
        match &self.keys {
            Keys::One(wanted) => equal(part(wanted.len()), wanted),
            Keys::Interval(from, to) => {
                let key = part(from.len());
                let most = vec![u8::MAX; from.len()];
                let inside = between(key, from, to.as_ref().unwrap_or(&most));
                let is_end = to.as_ref().map_or(Fit::No, |to| equal(key, to));
                if is_end == Fit::Yes { Fit::No } else { inside }
            }
            Keys::Box(from, to) => {
                let key = part(from.len());
                let words = key.chunks(WORD).zip(from.chunks(WORD).zip(to.chunks(WORD)));
                let fits = words.map(|(key, (from, to))| between(key, from, to));
                fits.min().unwrap_or(Fit::No)
            }
            Keys::All => Fit::No,
        }
    }
}

/// A verdict: `NF_*` or `NFT_*`, and the chain of a jump.
pub(super) fn verdict(data: &[u8]) -> Option<(i32, Option<String>)> {
    /// `NFTA_DATA_VERDICT`, and `NFTA_VERDICT_*` in it.
    const VERDICT: u16 = 2;
    let code = attribute(data, &[VERDICT, 1])?;
    let code = i32::from_be_bytes(code.try_into().ok()?);
    Some((code, attribute(data, &[VERDICT, 2]).map(text)))
}

/// The value in `NFTA_DATA_*`.
pub(super) fn value(data: &[u8]) -> Option<&[u8]> {
    attribute(data, &[VALUE])
}
