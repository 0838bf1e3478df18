//! Whether the agent lives, and whether it has reached the API: for the probes of its pod.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::directory::Directory;

/// The file with the health.
const FILE: &str = ".health.json";

/// How old it may be.
const MOST_AGE: Duration = Duration::from_secs(30);

/// The agent's health, as it says itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// When this was written.
    pub alive: Timestamp,
    /// Since when the API cannot be reached; `None` while it can.
    pub away: Option<Timestamp>,
    /// Why it cannot be reached.
    pub cause: Option<String>,
}

impl Health {
    /// Writes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, directory: &Directory) -> anyhow::Result<()> {
        directory.note(FILE, self)
    }

    /// Why the agent in `directory` is not well; `None` if it is. With `live_only` the API may be
    /// away: a restart of the agent would not bring it back.
    pub fn problem(directory: &Directory, live_only: bool) -> Option<String> {
        let Some(health) = directory.json::<Self>(FILE) else {
            return Some("the agent has not run on this node".to_owned());
        };
        let age = Timestamp::now().duration_since(health.alive);
        if age.unsigned_abs() > MOST_AGE {
            return Some(format!("the agent last wrote at {:.0}", health.alive));
        }
        match (live_only, health.away) {
            (false, Some(away)) => Some(format!(
                "the API does not answer since {away:.0}: {}",
                health.cause.unwrap_or_default()
            )),
            _ => None,
        }
    }
}
