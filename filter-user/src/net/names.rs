//! Names that no interface has as its own, and which interface is meant.

use super::Interface;
use crate::config::nearest;

/// Which of the interfaces `all` has `name` as an alternative name, in words; nothing if none has.
/// The filter goes by the own names.
pub fn other_name(name: &str, all: &[Interface]) -> Option<String> {
    let has = |interface: &&Interface| interface.other_names.iter().any(|other| other == name);
    let own = &all.iter().find(has)?.name;
    Some(format!("it is another name of `{own}`: use `{own}`"))
}

/// Which of the interfaces `all` somebody may mean who types `name`, in words.
pub(super) fn meant(name: &str, all: &[Interface]) -> Option<String> {
    other_name(name, all).or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        // `eth0@if5` as `ip` prints it, and the label `eth0:1` of an address.
        let begins = name.split(['@', ':']).next().unwrap_or_default();
        let near = names.iter().copied().find(|own| *own == begins);
        let near = near.or_else(|| nearest(name, &names))?;
        Some(format!("is `{near}` meant?"))
    })
}
