//! What the agents say in the API. Pure: from what is known to the status of the objects.

mod node;
mod object;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use self::{
    node::{Present, of_node},
    object::of_object,
};
use crate::api::{Condition, NodeList};

/// What is said of a list that `apifence run` has not read yet.
const PENDING: &str = "written, not in force yet";

/// The reason of a node whose policy takes itself back unless it is confirmed.
const ON_TRIAL: &str = "OnTrial";

impl NodeList {
    /// Whether it only waits for `apifence run`.
    pub fn is_pending(&self) -> bool {
        self.message.as_deref() == Some(PENDING)
    }

    /// Why it is not in force.
    pub fn words(&self) -> &str {
        self.message
            .as_deref()
            .unwrap_or("an older generation is in force")
    }
}

/// A condition that keeps its time while its status is the same as in `before`.
fn condition(
    before: &[Condition],
    type_: &str,
    status: Option<bool>,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let same = before
        .iter()
        .find(|known| known.type_ == type_ && known.status == status)
        // It could not be read.
        .filter(|known| known.last_transition_time != Timestamp::default());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or(now, |known| known.last_transition_time),
        observed_generation: generation,
    }
}

/// A number with its noun.
fn count_of(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
