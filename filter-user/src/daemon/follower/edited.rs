//! The file that was edited, and the author of a policy that was made from it.

use std::path::Path;

use super::drift::{Drift, InForce, SETTINGS};
use crate::{
    context::Context,
    kernel::bpf::Maps,
    policy::author::Author,
    ranges::{Lists, RangesFile},
    store::{History, ListFile, read_ranges},
};

/// The first file of `lists` that differs from what came into force last.
pub(super) fn edited_file(context: &Context, lists: &Lists) -> Option<ListFile> {
    let files = context.list_files();
    let mut all = lists.iter().map(|(name, file)| (files.file(name), file));
    let is_edit = |(path, file): &(ListFile, &RangesFile)| {
        // A file that cannot be used is no edit that came into force.
        let is_it = || read_ranges(path).is_ok_and(|now| now.as_ref() == Some(*file));
        History::of(path).is_edited() && is_it()
    };
    all.find(is_edit).map(|(path, _)| path)
}

/// The author of the policy that removes `drift`.
pub(super) fn author(
    context: &Context,
    maps: &Maps,
    lists: &Lists,
    have: &InForce,
    drift: &Drift,
) -> Author {
    if drift.is_other_list {
        let edited = edited_file(context, lists);
        Author::of_edit(edited.as_deref().unwrap_or(&context.global.ranges_file))
    } else if drift.reasons.contains(&SETTINGS) {
        Author::of_edit(Path::new(&context.file.path))
    } else {
        // The node changed: the policy is still that of its author.
        let by = maps.author(have.slot).ok().flatten();
        by.unwrap_or_else(Author::of_this_process)
    }
}
