//! The result of a change of a list, for programs.

use jiff::Timestamp;
use serde::Serialize;

use super::proposal::Proposal;

/// The result of a change of the list.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Change {
    #[serde(flatten)]
    pub(super) proposal: Proposal,
    /// The entries of the list.
    pub(super) ranges: usize,
    /// The expired ones among them.
    pub(super) expired: usize,
    /// Whether a filter with this list is attached.
    pub(super) attached: bool,
    /// When the list before returns, unless `apifence confirm` comes first: RFC 3339, UTC; null if
    /// the change is final.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) confirm_until: Option<Timestamp>,
}
