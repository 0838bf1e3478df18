//! The policy last in force, kept on disk with its settings: what holds after a boot at which the files cannot be used.
//!
//! ```text
//! STATE_DIR/policy      a line of JSON, then the list in the format of the ranges file
//! STATE_DIR/enforced    there once this node has enforced a policy
//! ```

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::Result;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::{
    ranges_file::{ended, sync},
    read::{MOST_OF_LIST, read_regular},
};
use crate::{
    config::{PolicyMode, Settings, XdpMode},
    kernel::pins::make_private,
    ranges::{List, RangesFile},
    ui::error::{UserError, errno, hint},
};

const POLICY: &str = "policy";
const ENFORCED: &str = "enforced";

/// A policy as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPolicy {
    /// What it was compiled from besides the list.
    pub settings: Settings,
    /// The interfaces that were named; empty for those that hold the default routes.
    pub interfaces: Vec<String>,
    /// Where the program was to run.
    pub xdp_mode: XdpMode,
    /// The list.
    pub file: RangesFile,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    settings: Settings,
    interfaces: Vec<String>,
    xdp_mode: XdpMode,
    /// Of the list that follows: whether all of it is there.
    digest: [u8; 32],
}

/// The directory in which it is kept.
#[derive(Clone, Debug)]
pub struct PolicyStore {
    directory: PathBuf,
}

impl PolicyStore {
    /// The store in the state directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The policy that is kept; `None` if there never was one.
    ///
    /// # Errors
    /// If it cannot be read, is not whole, or somebody else may have written it.
    pub fn read(&self) -> Result<Option<SavedPolicy>> {
        let path = self.directory.join(POLICY);
        let failed = |cause: &str| {
            UserError::failed(
                format!("read saved policy `{}`: {cause}", path.display()),
                "the next change of the list writes it again",
            )
        };
        for path in [&self.directory, &path] {
            match fs::metadata(path) {
                Ok(found) if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 => {
                    return Err(failed("others may write to it, or another user owns it"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Ok(_) | Err(_) => {}
            }
        }
        let bytes = read_regular(&path, MOST_OF_LIST).map_err(|error| failed(&errno(&error)))?;
        let read = || {
            let text = std::str::from_utf8(&bytes).ok()?;
            let (header, list) = text.split_once('\n')?;
            let header: Header = serde_json::from_str(header).ok()?;
            let file = RangesFile::parse(list).ok()?;
            (file.list().digest() == header.digest).then_some(SavedPolicy {
                settings: header.settings,
                interfaces: header.interfaces,
                xdp_mode: header.xdp_mode,
                file,
            })
        };
        read().ok_or_else(|| failed("it is not whole")).map(Some)
    }

    /// Forgets the policy, once somebody has taken the filter off on purpose: what was in force then does not come back.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_file(self.directory.join(POLICY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.explain(&error)),
            _ => Ok(()),
        }
    }

    /// Whether this node has ever enforced a policy: then nothing that is broken may open its port.
    pub fn has_enforced(&self) -> bool {
        self.directory.join(ENFORCED).exists()
    }

    /// Writes `policy` aside; it takes its place with [`StagedPolicy::commit`].
    ///
    /// # Errors
    /// If the state directory cannot be written; what is kept stays then.
    pub fn stage(&self, policy: &SavedPolicy) -> Result<StagedPolicy> {
        let explain = |error: io::Error| self.explain(&error);
        make_private(&self.directory).map_err(explain)?;
        // Others could write there: what they wrote is replaced now, and they can no longer.
        let found = fs::metadata(&self.directory).map_err(explain)?;
        if found.mode() & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&self.directory, private).map_err(explain)?;
        }
        let list = policy.file.list();
        let header = Header {
            settings: policy.settings.clone(),
            interfaces: policy.interfaces.clone(),
            xdp_mode: policy.xdp_mode,
            digest: list.digest(),
        };
        let mut text = serde_json::to_string(&header).map_err(|error| explain(error.into()))?;
        text.push('\n');
        text.push_str(&policy.file.to_string());
        // The library makes it for its owner alone: 0600.
        let file = tempfile::Builder::new()
            .prefix(".policy")
            .tempfile_in(&self.directory)
            .map_err(explain)?;
        let mut handle = file.as_file().try_clone().map_err(explain)?;
        // Reaches the disk while the kernel's side of the change is made.
        let written = thread::Builder::new()
            .spawn(move || {
                handle.write_all(text.as_bytes())?;
                handle.sync_all()
            })
            .map_err(explain)?;
        Ok(StagedPolicy {
            store: self.clone(),
            enforces: policy.settings.mode == PolicyMode::Enforce && list != List::Off,
            file,
            written,
        })
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        UserError::failed(
            format!(
                "write state directory `{}`: {}",
                self.directory.display(),
                match error.raw_os_error() {
                    Some(_) => errno(error),
                    // The library that makes temporary files says its name, too.
                    None => error.kind().to_string(),
                }
            ),
            hint(error, "name one that can be written with `--state-dir`"),
        )
    }
}

/// A policy that is written, and not yet in place.
pub struct StagedPolicy {
    store: PolicyStore,
    enforces: bool,
    file: tempfile::NamedTempFile,
    written: JoinHandle<io::Result<()>>,
}

impl StagedPolicy {
    /// Puts it in place.
    ///
    /// # Errors
    /// If that fails; what is kept stays then.
    pub fn commit(self) -> Result<KeptPolicy> {
        let directory = &self.store.directory;
        let target = directory.join(POLICY);
        let before = directory.join(".policy.before");
        let commit = || {
            ended(self.written)?;
            if self.enforces {
                fs::write(directory.join(ENFORCED), "")?;
            }
            let _ = fs::remove_file(&before);
            // A second name for the one before, under which it can come back.
            let had = fs::hard_link(&target, &before).is_ok();
            self.file.persist(&target).map_err(|error| error.error)?;
            sync(directory)?;
            Ok(had)
        };
        let had = commit().map_err(|error: io::Error| self.store.explain(&error))?;
        Ok(KeptPolicy {
            target,
            before: had.then_some(before),
        })
    }
}

/// A policy that is in place, while the kernel may not yet go by it.
pub struct KeptPolicy {
    target: PathBuf,
    before: Option<PathBuf>,
}

impl KeptPolicy {
    /// Puts the one before back.
    pub fn undo(mut self) {
        // The next change writes it again.
        let _ = match self.before.take() {
            Some(before) => fs::rename(before, &self.target),
            None => fs::remove_file(&self.target),
        };
    }
}

impl Drop for KeptPolicy {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::remove_file(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy(list: &str) -> SavedPolicy {
        SavedPolicy {
            settings: Config::default().settings(),
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Generic,
            file: RangesFile::parse(list).expect("a list"),
        }
    }

    #[test]
    fn the_saved_policy_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("state");
        let store = PolicyStore::new(&directory);
        assert_eq!(store.read().expect("nothing"), None);
        assert!(!store.has_enforced());
        let (first, second) = (
            policy("192.0.2.1 # one\n"),
            policy("192.0.2.0/24 expires=2040-01-01T00:00:00Z\n"),
        );
        let keep = |policy: &SavedPolicy| store.stage(policy).and_then(StagedPolicy::commit);
        drop(keep(&first).expect("kept"));
        assert_eq!(store.read().expect("there"), Some(first.clone()));
        assert!(store.has_enforced());
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let target = directory.join(POLICY);
        assert_eq!((mode(&directory), mode(&target)), (0o700, 0o600));

        keep(&second).expect("kept").undo();
        assert_eq!(store.read().expect("the first"), Some(first));
        drop(keep(&second).expect("kept"));
        assert_eq!(store.read().expect("the second"), Some(second));
        assert_eq!(
            fs::read_dir(&directory).expect("a folder").count(),
            2,
            "nothing is left over"
        );

        let text = fs::read(&target).expect("read");
        for len in [0, 10, text.len() - 10] {
            fs::write(&target, &text[..len]).expect("written");
            store.read().expect_err("it is not whole");
        }
        fs::write(&target, &text).expect("written");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o602)).expect("changed");
        store.read().expect_err("others may write to it");
    }
}
