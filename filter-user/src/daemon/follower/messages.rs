//! Log lines about a policy that came into force.

use std::collections::BTreeSet;

use filter_common::layout::PolicyRecord;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    config::{SettingChange, Settings},
    policy::{Difference, Prefixes, author::Author},
    ranges::{List, Lists, in_ranges, remarks},
    ui::output::eprint,
};

/// How many entries one line names.
const MAX_NAMED: usize = 5;

/// The difference of two lists in one line: `+203.0.113.10/32 (bastion); 5 ranges`.
fn describe_difference(before: Option<&List>, list: &List, sources: Option<&Prefixes>) -> String {
    let total = match list {
        List::Off => return "enforcement is off: every source passes".to_owned(),
        List::Ranges(entries) => in_ranges(entries.len()),
    };
    let Some(before) = before else {
        return total;
    };
    let (have, want) = (before.entries(), list.entries());
    let difference = Difference::new(have, want);
    let words = difference.in_words(have, want, sources, Timestamp::now());
    let mut words: Vec<String> = words.take(MAX_NAMED).collect();
    if difference.count() > MAX_NAMED {
        words.push(format!("and {} more", difference.count() - MAX_NAMED));
    }
    words.push(total);
    words.join("; ")
}

/// Reports that the files of `lists` replaced the list of `record`, and changed settings. `before`
/// are the lists of `record`, if they are known.
pub(crate) fn report_applied(
    record: &PolicyRecord,
    (before, lists): (Option<&Lists>, &Lists),
    sources: &Prefixes,
    changes: &[SettingChange],
) {
    for change in changes {
        let (severity, what) = words(change);
        eprint(format_args!("{severity}: config applied: {what}"));
    }
    let list = &lists.union();
    if record.list == lists.digest() {
        return;
    }
    let before = before.map(Lists::union);
    let words = describe_difference(before.as_ref(), list, Some(sources));
    let severity = if *list == List::Off {
        "warning"
    } else {
        "note"
    };
    let what = match lists.iter().any(|(name, _)| !name.is_default()) {
        true => "list files",
        false => "ranges file",
    };
    eprint(format_args!("{severity}: {what} applied: {words}"));
    let have = before.as_ref().map_or(&[][..], List::entries);
    let difference = Difference::new(have, list.entries());
    let remarks = remarks(list.entries(), |range| difference.is_new_or_changed(range));
    remarks.iter().for_each(eprint);
}

/// How the files of the cluster changed, in one line; none if they did not, or if it is unknown
/// what they had `before`.
pub(crate) fn describe_cluster(
    before: Option<&BTreeSet<IpNet>>,
    now: &BTreeSet<IpNet>,
) -> Option<String> {
    let before = before.filter(|before| *before != now)?;
    let new = now.difference(before).map(|range| format!("+{range}"));
    let gone = before.difference(now).map(|range| format!("-{range}"));
    let mut words: Vec<String> = new.chain(gone).collect();
    let more = words.len().saturating_sub(MAX_NAMED);
    words.truncate(MAX_NAMED);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.push(format!("{} from the cluster", in_ranges(now.len())));
    Some(format!("cluster addresses: {}", words.join("; ")))
}

/// The severity of a change of a setting, and the change in words.
fn words(change: &SettingChange) -> (String, String) {
    let text = change.to_string();
    let (severity, what) = text.split_once(": ").unwrap_or(("note", &text));
    (severity.to_owned(), what.to_owned())
}

/// The policy in force when it was last examined.
#[derive(Clone)]
pub(crate) struct PolicySnapshot {
    pub(crate) list: List,
    pub(crate) settings: Option<Settings>,
}

/// Reports that the author `by` replaced the policy `seen`.
pub(crate) fn report_other_author(
    by: Option<Author>,
    seen: Option<&PolicySnapshot>,
    now: &PolicySnapshot,
) {
    let by = by.map_or_else(|| "another command".to_owned(), |by| by.to_string());
    let Some(seen) = seen else {
        let words = describe_difference(None, &now.list, None);
        eprint(format_args!("note: {by}: {words}"));
        return;
    };
    let mut is_reported = false;
    if let (Some(have), Some(want)) = (&seen.settings, &now.settings) {
        for change in want.changes_from(have) {
            let (severity, what) = words(&change);
            eprint(format_args!("{severity}: {by}: {what}"));
            is_reported = true;
        }
    }
    if !is_reported || seen.list != now.list {
        let words = describe_difference(Some(&seen.list), &now.list, None);
        let severity = if now.list == List::Off && seen.list != List::Off {
            "warning"
        } else {
            "note"
        };
        eprint(format_args!("{severity}: {by}: {words}"));
    }
}
