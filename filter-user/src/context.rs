//! The settings and paths that every command works with.

pub mod load;

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    config::{Config, Settings},
    kernel::{
        bpf::{Maps, PolicyState},
        pins::Pins,
    },
    ranges::{ListName, Lists, RangesFile},
    store::{ListFiles, PolicyStore, ReadLists},
    ui::{
        error::UserError,
        output::{Output, eprint},
    },
};

/// The context of one command.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) global: Global,
    /// All settings, layered.
    pub(crate) config: Config,
    /// The config file, one of the layers.
    pub(crate) file: load::ConfigFile,
    pub(crate) pins: Pins,
}

/// The settings that every command uses.
#[derive(Clone)]
pub(crate) struct Global {
    pub(crate) ranges_file: PathBuf,
    /// The directory of what `run` tells other programs.
    pub(crate) runtime_dir: PathBuf,
    pub(crate) output: Output,
    pub(crate) verbose: bool,
}

impl Context {
    /// The maps in use, if a filter is attached or was prepared.
    pub(crate) fn maps(&self) -> Result<Option<Maps>> {
        Maps::in_use(&self.pins)
    }

    /// The maps in use.
    pub(crate) fn attached_maps(&self) -> Result<Maps> {
        self.maps()?.ok_or_else(|| self.nothing_attached())
    }

    /// The settings to use if `have` are in force; `have` is none if no filter is attached.
    pub(crate) fn settings(&self, have: Option<&Settings>) -> Settings {
        match have {
            Some(have) => self.config.over(have, self.file.exists),
            None => self.config.settings(),
        }
    }

    /// The files of all lists.
    pub(crate) fn list_files(&self) -> ListFiles {
        let bounds =
            (!self.config.has_unreadable(&["lists"])).then(|| (*self.config.lists).clone());
        let max_ranges = *self.config.max_ranges;
        let named = self.config.guard.iter().flat_map(|guard| &guard.lists);
        ListFiles::new(
            &self.global.ranges_file,
            &self.config.state_dir,
            bounds,
            max_ranges,
        )
        .with_named(named.cloned().collect())
    }

    /// All lists, with those last in force in place of files that cannot be used.
    ///
    /// # Errors
    /// If the directory of the lists cannot be read.
    pub(crate) fn read_lists(&self) -> Result<ReadLists> {
        let (last_good, max_ranges) = self.last_in_force();
        self.list_files().read(&last_good, max_ranges)
    }

    /// The files' form of the lists in force: with the pending list during a trial. A list whose
    /// file cannot be used is as it was last in force, and among the faults.
    ///
    /// # Errors
    /// If the path of the ranges file is unknown, or a list cannot be read.
    pub(crate) fn lists_in_force(&self, maps: Option<&Maps>) -> Result<ReadLists> {
        if self.is_list_unknown() {
            return Err(UserError::input(
                "read ranges file: the config file may name it, and cannot be read",
                "`apifence config` shows the error; or name the file with `--ranges-file`",
            ));
        }
        let on_trial = match maps.map(Maps::standing).transpose()? {
            Some(PolicyState::Provisional { .. }) => self.list_files().pending(),
            // An unconfirmed list, or one that never came into force: the next change removes it.
            _ => None,
        };
        let mut read = self.read_lists()?;
        if let Some((name, pending)) = on_trial {
            read.lists.insert(name.clone(), pending.read()?);
            read.faults.retain(|(faulty, _)| *faulty != name);
        }
        Ok(read)
    }

    /// The files of the cluster in `names`, with those last known in place of files that cannot be
    /// used.
    pub(crate) fn read_cluster(&self, names: impl IntoIterator<Item = ListName>) -> ReadLists {
        self.list_files().read_cluster(names, || {
            let saved = PolicyStore::new(&self.config.state_dir).read();
            let saved = saved.ok().flatten();
            saved.map_or_else(Lists::default, |saved| saved.cluster)
        })
    }

    /// The lists of the policy last in force; none if there was no policy.
    pub(crate) fn last_good(&self) -> Lists {
        self.last_in_force().0
    }

    /// The lists of the policy last in force, and the most ranges that all lists may have.
    pub(crate) fn last_in_force(&self) -> (Lists, u32) {
        let saved = PolicyStore::new(&self.config.state_dir).read();
        let most = *self.config.max_ranges;
        match saved.ok().flatten() {
            // A flag may have said more than the files.
            Some(saved) => (saved.lists, most.max(saved.settings.max_ranges)),
            None => (Lists::default(), most),
        }
    }

    /// All lists, with `default` as the list of that name, if there is one. What is wrong with the
    /// others is told.
    ///
    /// # Errors
    /// If the directory of the lists cannot be read, or a list that was never in force cannot be
    /// used.
    pub(crate) fn lists_with(&self, default: Option<RangesFile>) -> Result<Lists> {
        let name = ListName::default();
        let (last_good, max_ranges) = self.last_in_force();
        let files = self.list_files();
        let read = files.read_all_but(Some(&name), &last_good, max_ranges)?;
        let mut lists = read.lists;
        if let Some(default) = default {
            lists.insert(name, default);
        }
        for (name, error) in read.faults {
            if lists.get(&name).is_none() {
                if !files.is_in_directory(&name) {
                    return Err(error);
                }
                // Its owner must not hold up this change.
                eprint(format_args!(
                    "warning: {error:#}: the list `{name}` was never in force and does not authorize any source"
                ));
                continue;
            }
            eprint(format_args!(
                "warning: {error:#}: the list `{name}` keeps its last good entries"
            ));
        }
        Ok(lists)
    }

    /// Whether the ranges file's path is unknown: the unreadable config file may set it.
    pub(crate) fn is_list_unknown(&self) -> bool {
        self.config.has_unreadable(&["ranges_file"])
    }

    /// The failure of a command that needs an attached filter.
    pub(crate) fn nothing_attached(&self) -> anyhow::Error {
        UserError::failed(
            format!(
                "open pins in `{}`: no filter is attached",
                self.pins.root().display()
            ),
            "run `apifence attach`; on a new node, `apifence init`",
        )
    }
}
