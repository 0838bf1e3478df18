//! Which edits of the files were put on trial, and what came of it: what nobody confirmed does not come into force by a reboot, and what
//! somebody confirmed once is not asked about again.
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
const KEPT: usize = 32;

/// What a policy is known by: its list and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMark(String);

impl PolicyMark {
    /// That of the list with this digest under `settings`.
    pub fn new(list: [u8; 32], settings: &Settings) -> Self {
        // Where a value comes from makes no difference to packets.
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
    /// The one that is on trial, or was and was not confirmed.
    open: Option<PolicyMark>,
    /// Those that somebody confirmed, the last one last.
    confirmed: Vec<PolicyMark>,
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct TrialStore {
    path: PathBuf,
}

impl TrialStore {
    /// The one in the state directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("trials"),
        }
    }

    /// Notes that the policy is on trial from now on.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn begin(&self, mark: &PolicyMark) -> Result<()> {
        let mut trials = self.read();
        trials.open = Some(mark.clone());
        self.write(&trials)
    }

    /// Notes that no policy is on trial, or was and was not confirmed.
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

    /// Notes that somebody wants the policy.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn confirm(&self, mark: &PolicyMark) -> Result<()> {
        let mut trials = self.read();
        trials.open.take_if(|open| open == mark);
        trials.confirmed.retain(|known| known != mark);
        trials.confirmed.push(mark.clone());
        let old = trials.confirmed.len().saturating_sub(KEPT);
        trials.confirmed.drain(..old);
        self.write(&trials)
    }

    /// Whether the policy was put on trial, and nobody confirmed it.
    pub fn is_open(&self, mark: &PolicyMark) -> bool {
        self.read().open.as_ref() == Some(mark)
    }

    /// Whether somebody confirmed it once.
    pub fn is_confirmed(&self, mark: &PolicyMark) -> bool {
        self.read().confirmed.contains(mark)
    }

    /// What cannot be read is not known: an edit is put on trial once more then.
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
    fn what_is_confirmed_is_not_open_and_is_remembered() {
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
