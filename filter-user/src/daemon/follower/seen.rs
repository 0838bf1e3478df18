//! The lists as they were read, without their entries: what is told of them.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::{
    daemon::alerts::sentence,
    ranges::{ListName, distinct},
    store::ReadLists,
    ui::visible::visible_in_line,
};

/// The most letters of a fault: a line of the file may be in it.
const MAX_FAULT: usize = 400;

/// A list as it was read.
pub(crate) struct SeenList {
    pub(crate) name: ListName,
    /// SHA-256 of the bytes of its file, if that is in force.
    pub(crate) sha256: Option<String>,
    pub(crate) ranges: usize,
    /// The times at which entries expire.
    pub(crate) expires: Vec<Timestamp>,
    /// Why its file is not in force.
    pub(crate) fault: Option<String>,
}

impl SeenList {
    /// Notes that its file is not in force. The cause that is known already is the nearer one.
    pub(super) fn is_not_used(&mut self, cause: &str) {
        self.sha256 = None;
        self.fault.get_or_insert_with(|| cause.to_owned());
    }
}

/// All lists that were read together.
pub(crate) struct SeenLists {
    pub(crate) lists: Vec<SeenList>,
    /// The digest of all, as a policy has it.
    pub(crate) digest: [u8; 32],
}

impl SeenLists {
    /// Those of `read`, as if they were in force.
    pub(super) fn of(read: &ReadLists) -> Self {
        let mut lists: Vec<SeenList> = read
            .lists
            .iter()
            .map(|(name, file)| SeenList {
                name: name.clone(),
                sha256: read.digests.get(name).map(hex),
                ranges: distinct(file.list().entries()),
                expires: file.entries().filter_map(|entry| entry.expires).collect(),
                fault: None,
            })
            .collect();
        for (name, error) in &read.faults {
            let fault: String = sentence(error).chars().take(MAX_FAULT).collect();
            let fault = Some(visible_in_line(&fault).into_owned());
            match lists.iter_mut().find(|list| list.name == *name) {
                Some(list) => list.fault = fault,
                None => lists.push(SeenList {
                    name: name.clone(),
                    sha256: None,
                    ranges: 0,
                    expires: Vec::new(),
                    fault,
                }),
            }
        }
        Self {
            lists,
            digest: read.lists.digest(),
        }
    }
}

fn hex(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest {
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
