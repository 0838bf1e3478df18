//! Entries that a change adds to a list: `apifence ranges add`, and `a` in `apifence top`.

use std::collections::BTreeMap;

use anyhow::Result;
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    build::{refused, typed_ranges},
    list_editor::ListEditor,
    words::first_lines,
};
use crate::{
    cli::ChangeArgs,
    ranges::{Edit, Entry, List, RangesFile, can_be_comment, parse_expiry},
    ui::{error::UserError, output::eprint},
};

/// The entries to add, as they were typed at one moment.
pub(crate) struct Addition {
    at: Timestamp,
    ranges: Vec<IpNet>,
    /// Their expiry; `Some(None)` for never, and `None` keeps the one of an entry.
    expires: Option<Option<Timestamp>>,
    /// Their comment; as above.
    comment: Option<Option<String>>,
    /// Whether an authorized range is refused.
    only_new: bool,
}

impl Addition {
    /// The entries in words of the command line.
    ///
    /// # Errors
    /// If one of them cannot be parsed.
    pub(crate) fn typed(
        ranges: &[String],
        expires: Option<&str>,
        comment: Option<&str>,
    ) -> Result<Self> {
        let at = Timestamp::now();
        let comment = comment.map(one_line).transpose()?;
        let ranges = typed_ranges(ranges)?;
        let expires = match expires {
            Some("never") => Some(None),
            Some(text) => Some(Some(
                parse_expiry(text, at).map_err(|refusal| refused(vec![refusal]))?,
            )),
            None => None,
        };
        Ok(Self {
            at,
            ranges,
            expires,
            comment,
            only_new: false,
        })
    }

    /// The same, where a range that the list authorizes already is refused: an addition must not
    /// shorten its expiry.
    pub(crate) fn only_new(self) -> Self {
        Self {
            only_new: true,
            ..self
        }
    }

    /// Adds them to the list of `editor`; a dry run reports the effects instead.
    ///
    /// # Errors
    /// If the change is refused, or fails; nothing changed then.
    pub(crate) fn make(self, mut editor: ListEditor<'_>, change: &ChangeArgs) -> Result<u8> {
        let mut file = editor
            .file()?
            .unwrap_or_else(|| RangesFile::new(&List::Ranges(Vec::new())));
        if self.only_new {
            refuse_listed(&file, &self.ranges, self.at)?;
        }
        if self.expires.is_none() {
            let notes = expiry_notes(&file, &self.ranges, self.at);
            notes.iter().for_each(eprint);
        }
        let edits = self.ranges.into_iter().map(|range| Edit {
            range,
            expires: self.expires,
            comment: self.comment.clone(),
        });
        file.add(edits, self.at);
        editor.change(&file, change)
    }
}

/// Refuses a range that is inside an entry of `file` which has not expired.
fn refuse_listed(file: &RangesFile, ranges: &[IpNet], now: Timestamp) -> Result<()> {
    for range in ranges {
        let holds = |entry: &&Entry| {
            entry.range.contains(range) && entry.expires.is_none_or(|time| now < time)
        };
        let list = file.list();
        let Some(entry) = list.entries().iter().find(holds) else {
            continue;
        };
        let comment = entry.comment.as_ref();
        let comment = comment.map_or_else(String::new, |comment| format!(" ({comment})"));
        return Err(UserError::input(
            format!(
                "add range `{range}`: the list already has `{}`{comment}",
                entry.range
            ),
            "`apifence ranges add --expires TIME` changes the expiry of an entry; nothing changed",
        ));
    }
    Ok(())
}

/// Notes about those of `ranges` with an expiry in `file` that is still to come. Adding such a
/// range without `--expires` keeps the expiry, which an operator may not expect.
fn expiry_notes(file: &RangesFile, ranges: &[IpNet], now: Timestamp) -> Vec<String> {
    let list = file.list();
    let lives = |entry: &&Entry| entry.expires.is_some_and(|time| now < time);
    let listed: BTreeMap<IpNet, Timestamp> = (list.entries().iter().filter(lives))
        .filter_map(|entry| Some((entry.range, entry.expires?)))
        .collect();
    let expiry = |range: &IpNet| Some((*range, *listed.get(range)?));
    let found: Vec<(IpNet, Timestamp)> = ranges.iter().filter_map(expiry).collect();
    let lines = found.iter().map(|(range, until)| {
        format!("note: `{range}` is listed already and still expires {until}; `--expires never` removes the expiry")
    });
    first_lines(lines, found.len())
}

/// A comment from the command line; an empty one means none.
fn one_line(text: &str) -> Result<Option<String>> {
    if !can_be_comment(text) {
        return Err(UserError::input(
            "add ranges: the comment has more than one line",
            "write it in one line",
        ));
    }
    if text.contains(char::is_control) {
        return Err(UserError::input(
            "add ranges: the comment has control characters",
            "leave them out",
        ));
    }
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}
