//! The last active policy with its settings, kept on disk: a boot uses it if the files are
//! unusable.
//!
//! ```text
//! STATE_DIR/policy      a line of JSON, then the list `default` in the format of the ranges file
//! STATE_DIR/enforced    exists once this node has enforced a policy
//! ```

use std::{
    collections::BTreeMap,
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
    ranges_file::{join, sync},
    read::{MAX_LIST_LEN, read_regular},
};
use crate::{
    config::{PolicyMode, Settings, XdpMode},
    kernel::pins::make_private,
    ranges::{List, ListName, Lists, RangesFile},
    ui::error::{UserError, errno, hint},
};

const POLICY: &str = "policy";
const ENFORCED: &str = "enforced";

/// A policy as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPolicy {
    /// The settings that it was compiled from.
    pub settings: Settings,
    /// The named interfaces; empty for those that hold the default routes.
    pub interfaces: Vec<String>,
    /// The requested mode of attachment.
    pub xdp_mode: XdpMode,
    /// The lists.
    pub lists: Lists,
    /// The files of the cluster that the settings name, as they were last known.
    pub cluster: Lists,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    settings: Settings,
    interfaces: Vec<String>,
    xdp_mode: XdpMode,
    /// The digest of the union of all lists: detects an incomplete file.
    digest: [u8; 32],
    /// The texts of the lists besides `default`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lists: BTreeMap<ListName, String>,
    /// The texts of the files of the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cluster: BTreeMap<ListName, String>,
    /// Whether the text that follows is the list `default`, and not the lack of one.
    #[serde(default = "yes")]
    has_default: bool,
}

/// What an older version means, which had the list `default` alone.
const fn yes() -> bool {
    true
}

/// The directory of the stored policy.
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

    /// The stored policy; `None` if there never was one.
    ///
    /// # Errors
    /// If it cannot be read, is incomplete, or another user may have written it.
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
                    return Err(failed("another user owns it or can write to it"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Ok(_) | Err(_) => {}
            }
        }
        let bytes = read_regular(&path, MAX_LIST_LEN).map_err(|error| failed(&errno(&error)))?;
        let read = || {
            let text = std::str::from_utf8(&bytes).ok()?;
            let (header, list) = text.split_once('\n')?;
            let header: Header = serde_json::from_str(header).ok()?;
            let mut lists = Lists::default();
            if header.has_default {
                lists.insert(ListName::default(), RangesFile::parse(list).ok()?);
            }
            let parse = |texts: BTreeMap<ListName, String>, into: &mut Lists| {
                for (name, text) in texts {
                    into.insert(name, RangesFile::parse(&text).ok()?);
                }
                Some(())
            };
            let mut cluster = Lists::default();
            parse(header.lists, &mut lists)?;
            parse(header.cluster, &mut cluster)?;
            (lists.union().digest() == header.digest).then_some(SavedPolicy {
                settings: header.settings,
                interfaces: header.interfaces,
                xdp_mode: header.xdp_mode,
                lists,
                cluster,
            })
        };
        read().ok_or_else(|| failed("it is incomplete")).map(Some)
    }

    /// Deletes the policy after a deliberate detach: a boot does not restore it.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_file(self.directory.join(POLICY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.explain(&error)),
            _ => Ok(()),
        }
    }

    /// Whether this node has ever enforced a policy: then a broken file must not open its port.
    pub fn has_enforced(&self) -> bool {
        self.directory.join(ENFORCED).exists()
    }

    /// Writes `policy` to a temporary file; [`StagedPolicy::commit`] puts it in place.
    ///
    /// # Errors
    /// If the state directory cannot be written; the stored policy then stays.
    pub fn stage(&self, policy: &SavedPolicy) -> Result<StagedPolicy> {
        let explain = |error: io::Error| self.explain(&error);
        make_private(&self.directory).map_err(explain)?;
        // Others could write there: this change replaces their files, and they lose the right.
        let found = fs::metadata(&self.directory).map_err(explain)?;
        if found.mode() & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&self.directory, private).map_err(explain)?;
        }
        let list = policy.lists.union();
        let default = policy.lists.get(&ListName::default());
        let others = policy.lists.iter().filter(|(name, _)| !name.is_default());
        let text = |(name, file): (&ListName, &RangesFile)| (name.clone(), file.to_string());
        let header = Header {
            settings: policy.settings.clone(),
            interfaces: policy.interfaces.clone(),
            xdp_mode: policy.xdp_mode,
            digest: list.digest(),
            lists: others.map(text).collect(),
            cluster: policy.cluster.iter().map(text).collect(),
            has_default: default.is_some(),
        };
        let mut text = serde_json::to_string(&header).map_err(|error| explain(error.into()))?;
        text.push('\n');
        text.extend(default.map(ToString::to_string));
        // The library creates it with mode 0600.
        let file = tempfile::Builder::new()
            .prefix(".policy")
            .tempfile_in(&self.directory)
            .map_err(explain)?;
        let mut handle = file.as_file().try_clone().map_err(explain)?;
        // Synced to the disk in parallel with the kernel's side of the change.
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
                    // The message of the tempfile library contains its path; only the kind is used.
                    None => error.kind().to_string(),
                }
            ),
            hint(error, "name a writable directory with `--state-dir`"),
        )
    }
}

/// A policy that is written, but not yet in place.
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
    /// If that fails; the stored policy then stays.
    pub fn commit(self) -> Result<KeptPolicy> {
        let directory = &self.store.directory;
        let target = directory.join(POLICY);
        let before = directory.join(".policy.before");
        let commit = || {
            join(self.written)?;
            if self.enforces {
                fs::write(directory.join(ENFORCED), "")?;
            }
            let _ = fs::remove_file(&before);
            // A second name for the previous one, to restore it from.
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

/// A policy that is in place, while the kernel may not have it yet.
pub struct KeptPolicy {
    target: PathBuf,
    before: Option<PathBuf>,
}

impl KeptPolicy {
    /// Restores the previous policy.
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
            lists: Lists::of(RangesFile::parse(list).expect("a list"))
                .with(&"other".parse().expect("a name"), RangesFile::empty()),
            cluster: Lists::default().with(
                &ListName::of_cluster(ListName::NODES).expect("a name"),
                RangesFile::parse("192.0.2.9 # a node\n").expect("ranges"),
            ),
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
        store.read().expect_err("other users can write to it");
    }
}
