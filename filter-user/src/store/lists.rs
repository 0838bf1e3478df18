//! The files of all lists. The list `default` is in the ranges file. Each file in `ranges.d` next
//! to it is the list of that name. The files of the cluster, `@nodes` and `@pods`, are in the state
//! directory: they are read in the same way, and are no part of the union.
//!
//! A list whose file cannot be used is as it was last in force, and harms no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result};
use jiff::Timestamp;

use super::{
    input::read_ranges_up_to,
    list_file::ListFile,
    path::{is_in_own_folder, real_path},
    ranges_file::Pending,
    read::MAX_LIST_LEN,
    trust::{refuse_any_writer, refuse_other_writers},
};
use crate::{
    config::Bounds,
    ranges::{List, ListName, Lists, RangesFile, distinct},
    ui::error::{UserError, errno},
};

/// The paths of all lists.
#[derive(Clone, Debug)]
pub struct ListFiles {
    default: PathBuf,
    directory: PathBuf,
    /// The directory of the cluster's files.
    state_dir: PathBuf,
    /// `None` if the config file cannot be read.
    bounds: Option<BTreeMap<ListName, Bounds>>,
    /// The most ranges in all lists together.
    max_ranges: u32,
}

/// The lists as their files say, or as they were last in force.
#[derive(Default)]
pub struct ReadLists {
    /// The lists.
    pub lists: Lists,
    /// The lists whose files cannot be used, each with the cause.
    pub faults: Vec<(ListName, Error)>,
}

impl ReadLists {
    /// The longest list that is not as it was last in force, if all together are too long. The
    /// ranges file is the operator's, and gives way to no other.
    fn too_long(&self, last_good: &Lists, max_ranges: u32) -> Option<ListName> {
        if self.lists.entry_count() <= max_ranges as usize
            || distinct(self.lists.union().entries()) <= max_ranges as usize
        {
            return None;
        }
        let is_new = |(name, file): &(&ListName, &RangesFile)| {
            !name.is_default() && last_good.get(name) != Some(*file)
        };
        let new = self.lists.iter().filter(is_new);
        let longest = new.max_by_key(|(_, file)| file.entry_count());
        longest.map(|(name, _)| name.clone())
    }
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
        }
    }

    /// The file of a list.
    pub fn path(&self, name: &ListName) -> PathBuf {
        if name.is_default() {
            return self.default.clone();
        }
        let directory = match name.is_of_cluster() {
            true => &self.state_dir,
            false => &self.directory,
        };
        directory.join(name.as_str())
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

    /// The directory of the lists besides `default`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bounds of a list, if it has some.
    pub fn bounds(&self, name: &ListName) -> Option<Bounds> {
        let own = self.bounds.as_ref()?.get(name);
        match name.is_of_cluster() {
            true => Some(own.cloned().unwrap_or_default().of_cluster(self.max_ranges)),
            false => own.cloned(),
        }
    }

    /// The lists besides `default` that have a file, and other names in their directory. Hidden
    /// files and directories, which a ConfigMap's mount and the history are, are no lists.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn names(&self) -> Result<(BTreeSet<ListName>, Vec<String>)> {
        let explain = |error: io::Error| {
            UserError::failed(
                format!(
                    "read lists in `{}`: {}",
                    self.directory.display(),
                    errno(&error)
                ),
                "the lists in force stay in force",
            )
        };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            entries => entries.map_err(explain)?,
        };
        let (mut names, mut others) = (BTreeSet::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(explain)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || entry.path().is_dir() {
                continue;
            }
            match name.parse::<ListName>() {
                Ok(name) if !name.is_default() => drop(names.insert(name)),
                _ => others.push(name),
            }
        }
        others.sort_unstable();
        Ok((names, others))
    }

    /// Reads all lists. `last_good` are those last in force: they take the place of files that
    /// cannot be used, or that have more than `max_ranges` together with the others.
    ///
    /// # Errors
    /// If the directory of the lists cannot be read.
    pub fn read(&self, last_good: &Lists, max_ranges: u32) -> Result<ReadLists> {
        self.read_all_but(None, last_good, max_ranges)
    }

    /// The same without the list `but`, which is about to be replaced.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub fn read_all_but(
        &self,
        but: Option<&ListName>,
        last_good: &Lists,
        max_ranges: u32,
    ) -> Result<ReadLists> {
        let (mut names, _) = self.names()?;
        names.insert(ListName::default());
        names.extend(last_good.iter().map(|(name, _)| name.clone()));
        let (mut lists, mut faults) = (Lists::default(), Vec::new());
        for name in names.into_iter().filter(|name| Some(name) != but) {
            let before = last_good.get(&name);
            match self.read_list(&name) {
                Ok(Some(file)) => lists.insert(name, file),
                // There never was one.
                Ok(None) if before.is_none() => {}
                failed => {
                    let error = failed.err().unwrap_or_else(|| self.is_gone(&name));
                    if let Some(file) = before {
                        lists.insert(name.clone(), file.clone());
                    }
                    faults.push((name, error));
                }
            }
        }
        let mut read = ReadLists { lists, faults };
        while let Some(name) = read.too_long(last_good, max_ranges) {
            let cause = UserError::input(
                format!(
                    "list `{name}`: with it, all lists together have more than {max_ranges} ranges"
                ),
                "shorten it, give it `max_ranges` of its own in `[lists.NAME]`, or raise `max_ranges` in the config file",
            );
            match last_good.get(&name) {
                Some(file) => read.lists.insert(name.clone(), file.clone()),
                None => drop(read.lists.remove(&name)),
            }
            read.faults.push((name, cause));
        }
        Ok(read)
    }

    /// Reads the files of the cluster in `names`. Those of `last_known` take the place of files
    /// that cannot be used; it is asked for only then. A file that never was there is a fault, too.
    pub fn read_cluster(
        &self,
        names: impl IntoIterator<Item = ListName>,
        last_known: impl FnOnce() -> Lists,
    ) -> ReadLists {
        let mut read = ReadLists::default();
        for name in names {
            match self.read_list(&name) {
                Ok(Some(file)) => read.lists.insert(name, file),
                failed => {
                    let error = failed.err().unwrap_or_else(|| self.is_gone(&name));
                    read.faults.push((name, error));
                }
            }
        }
        if !read.faults.is_empty() {
            let mut last_known = last_known();
            for (name, _) in &read.faults {
                if let Some(file) = last_known.remove(name) {
                    read.lists.insert(name.clone(), file);
                }
            }
        }
        read
    }

    /// Reads the list `name`; `None` if it has no file.
    ///
    /// # Errors
    /// If its file cannot be used: it is no list, it exceeds the bounds, or others may write it.
    pub fn read_list(&self, name: &ListName) -> Result<Option<RangesFile>> {
        /// The bytes of a range with its expiry and a long comment.
        const LINE: u64 = 256;
        self.refuse_others(name)?;
        let most = match name.is_default() {
            true => MAX_LIST_LEN,
            false => (LINE * u64::from(self.max_ranges)).min(MAX_LIST_LEN),
        };
        let Some(file) = read_ranges_up_to(&self.path(name), most)? else {
            return Ok(None);
        };
        self.examine(name, &file)?;
        Ok(Some(file))
    }

    /// Refuses the file of a list that users may write who must not.
    ///
    /// # Errors
    /// If so.
    pub fn refuse_others(&self, name: &ListName) -> Result<()> {
        let path = self.path(name);
        match name.is_default() {
            true => refuse_other_writers(&path),
            false => refuse_any_writer(&path),
        }
    }

    /// Refuses `file` as the list `name` if it exceeds the bounds.
    ///
    /// # Errors
    /// If so.
    pub fn examine(&self, name: &ListName, file: &RangesFile) -> Result<()> {
        let list = file.list();
        if list == List::Off && !name.is_default() {
            return Err(UserError::input(
                format!("list `{name}`: the word `disabled` switches enforcement off"),
                format!(
                    "only the list `{}` can do that; the word `empty` means no entries",
                    ListName::DEFAULT
                ),
            ));
        }
        if self.bounds.is_none() && !name.is_default() {
            return Err(UserError::input(
                format!("list `{name}`: what it may hold cannot be read"),
                "mend the config file: `apifence config` says what is wrong",
            ));
        }
        let mut entries = list.entries().iter();
        if name.is_of_cluster()
            && let Some(entry) = entries.find(|entry| entry.expires.is_some())
        {
            // The last known ranges stay while their writer is away: none may end by itself.
            return Err(UserError::input(
                format!(
                    "list `{name}`: `{}` expires, and no range here may",
                    entry.range
                ),
                "its writer takes out what is gone",
            ));
        }
        let Some(bounds) = self.bounds(name) else {
            return Ok(());
        };
        let key = match name.is_of_cluster() {
            true => format!("`[lists.\"{name}\"]` in the config file sets another bound"),
            false => format!("`[lists.{name}]` in the config file sets that bound"),
        };
        match bounds.exceeded(list.entries(), Timestamp::now()) {
            None => Ok(()),
            Some(cause) => Err(UserError::input(format!("list `{name}`: {cause}"), key)),
        }
    }

    /// The list that waits for a confirmation, with its name. Where another user may make files,
    /// no list waits: see [`allows_trial`](Self::allows_trial).
    pub fn pending(&self) -> Option<(ListName, Pending)> {
        let hidden = fs::read_dir(&self.directory);
        let hidden = hidden.into_iter().flatten().flatten();
        let named = hidden.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = name.strip_prefix('.')?.strip_suffix(".pending")?;
            name.parse::<ListName>().ok()
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
    fn is_gone(&self, name: &ListName) -> Error {
        if name.is_of_cluster() {
            return UserError::failed(
                format!(
                    "read list `{}`: no such file (`apifence-kube` writes it, or any program that knows the cluster)",
                    self.path(name).display()
                ),
                "write it next to its place and rename it; `apifence run` follows it",
            );
        }
        let hint = match name.is_default() {
            true => "`apifence ranges set CIDR,...` writes a new one".to_owned(),
            false => format!("`apifence ranges delete --list {name}` takes the list away"),
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
