//! The files of all lists. The list `default` is in the ranges file. Each file in `ranges.d` next
//! to it is the list of that name, and each file in a directory there is a list, too. The files of
//! the cluster, `@nodes` and `@pods`, are in the state directory, or in the directory of lists that
//! `apifence-kube` writes: they are read in the same way, and are no part of the union.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Error;

use super::{
    list_file::ListFile,
    path::{is_in_own_folder, real_path},
    ranges_file::Pending,
};
use crate::{config::Bounds, ranges::ListName, ui::error::UserError};

/// The directory of lists that `apifence-kube` writes.
const KUBERNETES: &str = "kubernetes";

/// The paths of all lists.
#[derive(Clone, Debug)]
pub struct ListFiles {
    default: PathBuf,
    directory: PathBuf,
    /// The directory of the cluster's files.
    state_dir: PathBuf,
    /// `None` if the config file cannot be read.
    pub(super) bounds: Option<BTreeMap<ListName, Bounds>>,
    /// The most ranges in all lists together.
    pub(super) max_ranges: u32,
    /// The lists that guards name.
    pub(super) named: BTreeSet<ListName>,
}

impl ListFiles {
    /// The files of the lists, by the path of the ranges file, and those of the cluster in
    /// `state_dir`. `max_ranges` is the most in all lists: a file of another user must not take the
    /// memory of `run`.
    pub fn new(
        ranges_file: &Path,
        state_dir: &Path,
        bounds: Option<BTreeMap<ListName, Bounds>>,
        max_ranges: u32,
    ) -> Self {
        let mut directory = ranges_file.as_os_str().to_owned();
        directory.push(".d");
        Self {
            default: ranges_file.to_owned(),
            directory: directory.into(),
            state_dir: state_dir.to_owned(),
            bounds,
            max_ranges,
            named: BTreeSet::new(),
        }
    }

    /// The same, where guards name these lists.
    #[must_use]
    pub fn with_named(self, named: BTreeSet<ListName>) -> Self {
        Self { named, ..self }
    }

    /// The file of a list.
    pub fn path(&self, name: &ListName) -> PathBuf {
        if name.is_default() {
            return self.default.clone();
        }
        if name.is_of_cluster() {
            return self.path_of_cluster(name);
        }
        match name.place() {
            Some((directory, file)) => self.directory.join(directory.as_str()).join(file),
            None => self.directory.join(name.as_str()),
        }
    }

    /// The file of the cluster `name`: in the state directory, or where `apifence-kube` writes it.
    fn path_of_cluster(&self, name: &ListName) -> PathBuf {
        let own = self.state_dir.join(name.as_str());
        let written = self.of_kubernetes().join(name.as_str());
        let found = own.symlink_metadata();
        let is_missing = found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        match is_missing && written.symlink_metadata().is_ok() {
            true => written,
            false => own,
        }
    }

    /// The file of a list, with the place of its history.
    pub fn file(&self, name: &ListName) -> ListFile {
        let history = self.state_dir.join("history").join(name.as_str());
        let former = name.is_default().then(|| {
            let mut former = real_path(&self.default).into_os_string();
            former.push(".history");
            PathBuf::from(former)
        });
        let former = former.filter(|former| former.is_dir());
        ListFile::new(self.path(name), history, former)
    }

    /// A list as messages name it.
    pub fn describe(&self, name: &ListName) -> String {
        match name.is_default() {
            true => "ranges file".to_owned(),
            false => format!("list `{name}`"),
        }
    }

    /// The directory of lists that the agent of Kubernetes writes.
    pub fn of_kubernetes(&self) -> PathBuf {
        self.directory.join(KUBERNETES)
    }

    /// The directory of the lists besides `default`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the list is in a directory of lists, or `name` is that of such a directory.
    pub fn is_in_directory(&self, name: &ListName) -> bool {
        name.place().is_some() || !name.is_default() && self.path(name).is_dir()
    }

    /// The bounds of a list, if it has some. In a directory of lists both hold: those of the
    /// directory, and its own.
    pub fn bounds(&self, name: &ListName) -> Option<Bounds> {
        let own = self.bounds.as_ref()?.get(name).cloned();
        match name.place() {
            Some((directory, _)) => {
                let around = self.bounds_of_directory(&directory);
                Some(around.and(&own.unwrap_or_default()))
            }
            None if name.is_of_cluster() => {
                Some(own.unwrap_or_default().of_cluster(self.max_ranges))
            }
            None => own,
        }
    }

    /// The bounds of each list in the directory of lists `name`, and of all together.
    pub(super) fn bounds_of_directory(&self, name: &ListName) -> Bounds {
        let all = self.bounds.as_ref();
        let own = all.and_then(|all| all.get(name).cloned());
        own.unwrap_or_default().of_cluster(self.max_ranges)
    }

    /// The list that waits for a confirmation, with its name. Where another user may make files,
    /// no list waits: see [`allows_trial`](Self::allows_trial).
    pub fn pending(&self) -> Option<(ListName, Pending)> {
        let found = self.names().unwrap_or_default();
        let directories = found.directories.into_iter().map(Some);
        let named = directories.chain([None]).flat_map(|around| {
            let path = around
                .as_ref()
                .map_or_else(|| self.directory.clone(), |name| self.path(name));
            // Where another user may write there may be any number of files.
            let hidden = is_in_own_folder(&path.join("any")).then(|| fs::read_dir(path));
            let hidden = hidden.into_iter().flatten().flatten().flatten();
            hidden.filter_map(move |entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = name.strip_prefix('.')?.strip_suffix(".pending")?;
                match &around {
                    Some(around) => ListName::in_directory(around, name),
                    None => name
                        .parse()
                        .ok()
                        .filter(|name: &ListName| name.place().is_none()),
                }
            })
        });
        let all = [ListName::default()].into_iter().chain(named);
        let mut found = all
            .filter(|name| self.allows_trial(name))
            .filter_map(|name| {
                let pending = Pending::find(&self.file(&name))?;
                Some((name, pending))
            });
        found.next()
    }

    /// Whether a change of the list can be on trial: the list that waits lies next to the file, and
    /// only root may write there.
    pub fn allows_trial(&self, name: &ListName) -> bool {
        name.is_default() || is_in_own_folder(&real_path(&self.path(name)))
    }

    /// The failure of a list that was in force, and has no file any more.
    pub(super) fn is_gone(&self, name: &ListName) -> Error {
        if name.is_of_cluster() {
            return UserError::failed(
                format!(
                    "read list `{}`: no such file (`apifence-kube` or your own program writes it)",
                    self.path(name).display()
                ),
                "write it under another name, then rename it; `apifence run` follows it",
            );
        }
        let hint = match name.is_default() {
            true => "`apifence ranges set CIDR,...` writes a new one".to_owned(),
            false => format!("`apifence ranges delete --list {name}` deletes the list"),
        };
        let what = match name.is_default() {
            true => "read ranges file",
            false => "read list",
        };
        UserError::failed(
            format!("{what} `{}`: no such file", self.path(name).display()),
            format!("the list in force stays in force; {hint}"),
        )
    }
}
