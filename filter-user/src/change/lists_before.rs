//! The lists before a change of one of them.

use anyhow::Result;

use crate::{
    context::Context,
    ranges::{ListName, Lists, RangesFile},
    ui::output::eprint,
};

/// The lists as they were before a change.
pub(super) struct Before {
    /// The file of the list that is changed, or why it cannot be used.
    pub(super) own: Result<Option<RangesFile>>,
    /// The other lists.
    pub(super) others: Lists,
    /// All lists.
    pub(super) all: Lists,
}

impl Before {
    /// Reads all lists for a change of the list `name`. What is wrong with the others is told.
    pub(super) fn read(context: &Context, name: &ListName) -> Result<Self> {
        let files = context.list_files();
        let (last_good, max_ranges) = context.last_in_force();
        let read = files.read_all_but(Some(name), &last_good, max_ranges)?;
        for (other, error) in read.faults {
            let known = read.lists.get(&other).is_some();
            if !known && (!last_good.is_empty() || files.is_in_directory(&other)) {
                eprint(format_args!(
                    "warning: {error:#}: the list `{other}` was never in force and does not authorize any source"
                ));
            } else if !known {
                return Err(error);
            } else {
                eprint(format_args!(
                    "warning: {error:#}: the list `{other}` keeps its last good entries"
                ));
            }
        }
        let own = files.read_list(name);
        let kept = last_good.get(name);
        let now = own.as_ref().ok().and_then(Option::as_ref).or(kept);
        let all = match now {
            Some(file) => read.lists.with(name, file.clone()),
            None => read.lists.clone(),
        };
        Ok(Self {
            own,
            others: read.lists,
            all,
        })
    }
}
