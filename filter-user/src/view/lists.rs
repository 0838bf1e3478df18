//! The lists, as `status` shows them.

use std::fmt;

use serde::Serialize;

use crate::{
    ranges::{ListName, distinct},
    store::ReadLists,
};

/// A list, and its size.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListCount {
    /// Its name.
    pub(crate) name: ListName,
    /// Its ranges, expired ones included; those that were last in force if its file cannot be used.
    ranges: usize,
    /// Whether its file can be used.
    usable: bool,
}

impl ListCount {
    /// All lists, in order.
    pub(crate) fn all(read: &ReadLists) -> Vec<Self> {
        let is_usable = |name: &ListName| read.faults.iter().all(|(faulty, _)| faulty != name);
        let known = read.lists.iter().map(|(name, file)| Self {
            name: name.clone(),
            ranges: distinct(file.list().entries()),
            usable: is_usable(name),
        });
        let faults = read.faults.iter().map(|(name, _)| name);
        let unknown = faults.filter(|name| read.lists.get(name).is_none());
        let mut all: Vec<Self> = known
            .chain(unknown.map(|name| Self {
                name: name.clone(),
                ranges: 0,
                usable: false,
            }))
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

impl fmt::Display for ListCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.ranges)?;
        match self.usable {
            true => Ok(()),
            false => f.write_str(" (cannot be used)"),
        }
    }
}
