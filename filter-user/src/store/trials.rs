//! The trials of file edits, and their outcome. A reboot does not activate an unconfirmed edit, and
//! an edit that was confirmed once needs no second confirmation.
//!
//! ```text
//! STATE_DIR/trials      JSON
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{config::Settings, kernel::pins::make_private, ui::error::errno};

/// How many confirmed policies are remembered.
const MAX_TRIALS: usize = 32;

/// Identifies a policy by its list and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMark(String);

impl PolicyMark {
    /// The mark of the list with this digest under `settings`.
    pub fn new(list: [u8; 32], settings: &Settings) -> Self {
        // The origin of a value makes no difference to packets.
        let settings = Settings {
            from_file: Default::default(),
            mode_waits: false,
            ..settings.clone()
        };
        let mut hasher = Sha256::new();
        hasher.update(list);
        hasher.update(serde_json::to_vec(&settings).unwrap_or_default());
        let bytes: [u8; 32] = hasher.finalize().into();
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Trials {
    /// The policy on trial, or the last one that was not confirmed.
    open: Option<PolicyMark>,
    /// The confirmed policies, the newest last.
    confirmed: Vec<PolicyMark>,
}

/// The file with these marks.
#[derive(Clone, Debug)]
pub struct TrialStore {
    path: PathBuf,
}

impl TrialStore {
    /// The file in the state directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("trials"),
        }
    }

    /// Records that the policy is on trial.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn begin(&self, mark: &PolicyMark) -> Result<()> {
        let mut trials = self.read();
        trials.open = Some(mark.clone());
        self.write(&trials)
    }

    /// Records that no policy is on trial or unconfirmed.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn close(&self) -> Result<()> {
        let mut trials = self.read();
        if trials.open.take().is_none() {
            return Ok(());
        }
        self.write(&trials)
    }

    /// Records that the policy was confirmed.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn confirm(&self, mark: &PolicyMark) -> Result<()> {
        let mut trials = self.read();
        trials.open.take_if(|open| open == mark);
        trials.confirmed.retain(|known| known != mark);
        trials.confirmed.push(mark.clone());
        let old = trials.confirmed.len().saturating_sub(MAX_TRIALS);
        trials.confirmed.drain(..old);
        self.write(&trials)
    }

    /// Whether the policy was put on trial, and not confirmed.
    pub fn is_open(&self, mark: &PolicyMark) -> bool {
        self.read().open.as_ref() == Some(mark)
    }

    /// Whether the policy was ever confirmed.
    pub fn is_confirmed(&self, mark: &PolicyMark) -> bool {
        self.read().confirmed.contains(mark)
    }

    /// An unreadable file counts as empty: an edit is then put on trial once more.
    fn read(&self) -> Trials {
        let read = || serde_json::from_slice(&fs::read(&self.path).ok()?).ok();
        read().unwrap_or_default()
    }

    fn write(&self, trials: &Trials) -> Result<()> {
        let write = || -> io::Result<()> {
            let folder = super::path::folder(&self.path);
            make_private(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, trials)?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            super::ranges_file::sync(folder)
        };
        write()
            .map_err(|error| anyhow::anyhow!(errno(&error)))
            .with_context(|| format!("write `{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_confirmed_policy_is_not_open_and_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = TrialStore::new(&folder.path().join("state"));
        let settings = Config::default().settings();
        let marks: Vec<PolicyMark> = (0..40)
            .map(|n| PolicyMark::new([n; 32], &settings))
            .collect();
        assert!(!store.is_open(&marks[0]) && !store.is_confirmed(&marks[0]));
        store.begin(&marks[0]).expect("written");
        assert!(store.is_open(&marks[0]) && !store.is_open(&marks[1]));
        store.confirm(&marks[1]).expect("written");
        assert!(store.is_open(&marks[0]) && store.is_confirmed(&marks[1]));
        for mark in &marks {
            store.confirm(mark).expect("written");
        }
        assert!(!store.is_open(&marks[0]) && !store.is_confirmed(&marks[0]));
        assert!(store.is_confirmed(&marks[39]));
        store.begin(&marks[1]).expect("written");
        store.close().expect("written");
        assert!(!store.is_open(&marks[1]) && store.is_confirmed(&marks[39]));
        fs::write(&store.path, "{").expect("written");
        assert!(!store.is_confirmed(&marks[39]));
        let others = Settings {
            node_addresses: false,
            ..settings
        };
        assert_ne!(PolicyMark::new([0; 32], &others), marks[0]);
    }
}
