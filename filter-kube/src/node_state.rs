//! What `apifence run` says of the node: its file is read, and shown in the API.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde::Deserialize;

use crate::directory::read_text;

/// The most bytes that are read.
const MOST_BYTES: u64 = 4 << 20;

/// How old it may be: `apifence run` writes it every ten seconds.
const MOST_AGE: Duration = Duration::from_secs(35);

/// The state of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NodeState {
    /// When it was written.
    pub written: Timestamp,
    /// As `apifence status` says it.
    pub state: String,
    /// The protected ports.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// The interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// When the change on trial takes itself back; `None` if no change is on trial.
    #[serde(default)]
    pub trial_until: Option<Timestamp>,
    /// The lists.
    #[serde(default)]
    pub lists: Vec<ListInForce>,
}

/// An interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The hook of its filter.
    #[serde(default)]
    pub hook: Option<String>,
    /// Whether a filter is attached.
    #[serde(default)]
    pub guarded: bool,
}

/// A list of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ListInForce {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file whose ranges are in force, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The number of its ranges.
    #[serde(default)]
    pub ranges: i64,
    /// How many of them have expired.
    #[serde(default)]
    pub expired: i64,
    /// Why its present file is not in force.
    #[serde(default)]
    pub fault: Option<String>,
}

/// The file of `apifence run`, read when it changes.
#[derive(Debug, Default)]
pub struct StateFile {
    stamp: Option<(u64, SystemTime)>,
    last: Option<NodeState>,
}

impl StateFile {
    /// The state in the file at `path`.
    ///
    /// # Errors
    /// In words: there is none, it is not what it should be, or it is old.
    pub fn read(&mut self, path: &Path, now: Timestamp) -> Result<NodeState, String> {
        let explain = |why: &dyn fmt::Display| format!("read `{}`: {why}", path.display());
        let stamp = fs::metadata(path)
            .and_then(|data| Ok((data.ino(), data.modified()?)))
            .map_err(|error| {
                explain(&format_args!(
                    "{error}; check that `apifence run`, which writes it, runs on this node"
                ))
            })?;
        if self.last.is_none() || self.stamp != Some(stamp) {
            self.last = None;
            let text = read_text(path, MOST_BYTES).map_err(|error| explain(&error))?;
            self.last = Some(serde_json::from_str(&text).map_err(|error| explain(&error))?);
            self.stamp = Some(stamp);
        }
        let state = self.last.clone().unwrap_or_default();
        match now.duration_since(state.written).unsigned_abs() > MOST_AGE {
            true => Err(format!(
                "`apifence run` last reported at {:.0}: check `systemctl status apifence` on the node",
                state.written
            )),
            false => Ok(state),
        }
    }
}

impl NodeState {
    /// The list of this name.
    pub fn list(&self, name: &str) -> Option<&ListInForce> {
        self.lists.iter().find(|list| list.name == name)
    }

    /// Whether sources that are not listed are dropped.
    pub fn is_enforcing(&self) -> bool {
        self.state == "enforcing" && self.interfaces.iter().any(|interface| interface.guarded)
    }
}
