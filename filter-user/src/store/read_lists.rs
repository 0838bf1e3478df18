//! Reads the files of all lists. A list whose file cannot be used is as it was last in force, and
//! harms no other.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Error, Result};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    input::{ListText, read_text},
    list_names::{ListNames, MAX_LISTS},
    lists::ListFiles,
    path::follow_own_links,
    read::MAX_LIST_LEN,
    trust::{refuse_any_writer, refuse_other_writers},
};
use crate::{
    ranges::{List, ListName, Lists, RangesFile},
    ui::error::UserError,
};

/// The lists as their files say, or as they were last in force.
#[derive(Default)]
pub struct ReadLists {
    /// The lists.
    pub lists: Lists,
    /// The lists whose files cannot be used, each with the cause; also directories of lists.
    pub faults: Vec<(ListName, Error)>,
    /// SHA-256 of the bytes of each file that is used.
    pub digests: BTreeMap<ListName, [u8; 32]>,
}

impl ReadLists {
    fn insert(&mut self, name: ListName, text: ListText) {
        self.digests.insert(name.clone(), text.sha256);
        self.lists.insert(name, text.file);
    }

    /// Takes lists back to what was last in force until those that `is_of` accepts have `most`
    /// ranges together: of those that changed since, the longest first. The ranges file is the
    /// operator's, and gives way to no other; a list in a directory, which may be another user's,
    /// gives way first.
    fn limit(
        &mut self,
        last_good: &Lists,
        most: u32,
        is_of: impl Fn(&ListName) -> bool,
        fault: impl Fn(&ListName) -> Error,
    ) {
        let own = || self.lists.iter().filter(|(name, _)| is_of(name));
        let count: usize = own().map(|(_, file)| file.entry_count()).sum();
        if self.lists.is_off() || count <= most as usize {
            return;
        }
        // Counted once: a directory may have hundreds of lists that are too long together.
        let mut ranges = RangeCounts::default();
        own().for_each(|(_, file)| ranges.add(file));
        let is_new = |(name, file): &(&ListName, &RangesFile)| {
            !name.is_default() && last_good.get(name) != Some(*file)
        };
        let key = |(name, file): (&ListName, &RangesFile)| {
            (name.place().is_some(), file.entry_count(), name.clone())
        };
        let mut new: Vec<_> = own().filter(is_new).map(key).collect();
        new.sort_unstable();
        while ranges.distinct() > most as usize
            && let Some((_, _, name)) = new.pop()
        {
            if let Some(file) = self.lists.remove(&name) {
                ranges.remove(&file);
            }
            if let Some(file) = last_good.get(&name) {
                ranges.add(file);
                self.lists.insert(name.clone(), file.clone());
            }
            self.digests.remove(&name);
            let error = fault(&name);
            self.faults.push((name, error));
        }
    }
}

/// How many entries there are for each range.
#[derive(Default)]
struct RangeCounts(HashMap<IpNet, usize>);

impl RangeCounts {
    fn add(&mut self, file: &RangesFile) {
        for entry in file.entries() {
            *self.0.entry(entry.range).or_default() += 1;
        }
    }

    fn remove(&mut self, file: &RangesFile) {
        for entry in file.entries() {
            if let Some(count) = self.0.get_mut(&entry.range) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&entry.range);
                }
            }
        }
    }

    fn distinct(&self) -> usize {
        self.0.len()
    }
}

/// What a directory of lists has left for more of them.
struct Room {
    lists: usize,
    bytes: u64,
}

impl ListFiles {
    /// The lists that have files, and what else is in their directory.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn names(&self) -> Result<ListNames> {
        ListNames::read(self.directory())
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
        let found = self.names()?;
        let mut names = found.lists;
        names.insert(ListName::default());
        names.extend(last_good.iter().map(|(name, _)| name.clone()));
        let mut names: Vec<ListName> = names.into_iter().collect();
        // In a directory that has too many, those in force stay.
        names.sort_by_key(|name| last_good.get(name).is_none());
        let mut read = ReadLists {
            faults: found.faults,
            ..ReadLists::default()
        };
        let mut rooms = BTreeMap::new();
        for name in names.into_iter().filter(|name| Some(name) != but) {
            let before = last_good.get(&name);
            let room = name.place().map(|(directory, _)| {
                let new = || self.room(&directory);
                rooms.entry(directory.clone()).or_insert_with(new)
            });
            match self.read_within(&name, room) {
                Ok(Some(text)) => read.insert(name, text),
                // There never was one, or nothing is lost with it.
                Ok(None) if before.is_none_or(|before| self.may_forget(&name, before)) => {}
                failed => {
                    let error = failed.err().unwrap_or_else(|| self.is_gone(&name));
                    if let Some(file) = before {
                        read.lists.insert(name.clone(), file.clone());
                    }
                    read.faults.push((name, error));
                }
            }
        }
        self.limit(&mut read, rooms.keys(), last_good, max_ranges);
        Ok(read)
    }

    /// Takes lists back until each of the `directories`, and all together, are within their bounds.
    fn limit<'a>(
        &self,
        read: &mut ReadLists,
        directories: impl Iterator<Item = &'a ListName>,
        last_good: &Lists,
        max_ranges: u32,
    ) {
        for directory in directories {
            let most = self.bounds_of_directory(directory).max_ranges;
            let is_of =
                |name: &ListName| name.place().is_some_and(|(around, _)| around == *directory);
            read.limit(last_good, most.unwrap_or(max_ranges), is_of, |name| {
                UserError::input(
                    format!(
                        "list `{name}`: with it, the lists in `{}` have more than {} ranges together",
                        self.path(directory).display(),
                        most.unwrap_or(max_ranges)
                    ),
                    format!("shorten them, or raise `max_ranges` in `[lists.{directory}]` in the config file"),
                )
            });
        }
        read.limit(last_good, max_ranges, |_| true, |name| {
            UserError::input(
                format!(
                    "list `{name}`: with it, all lists together have more than {max_ranges} ranges"
                ),
                "shorten it, give it `max_ranges` of its own in `[lists.NAME]`, or raise `max_ranges` in the config file",
            )
        });
    }

    /// What there is room for in a directory of lists.
    fn room(&self, directory: &ListName) -> Room {
        Room {
            lists: MAX_LISTS,
            bytes: self.longest(self.bounds_of_directory(directory).max_ranges),
        }
    }

    /// The bytes of a file, or of all in a directory, with `max_ranges` ranges.
    fn longest(&self, max_ranges: Option<u32>) -> u64 {
        /// The bytes of a range with its expiry and a long comment.
        const LINE: u64 = 256;
        let ranges = max_ranges.unwrap_or(u32::MAX).min(self.max_ranges);
        (LINE * u64::from(ranges)).min(MAX_LIST_LEN)
    }

    /// Reads the list `name`, if there is `room` for it in its directory.
    fn read_within(&self, name: &ListName, room: Option<&mut Room>) -> Result<Option<ListText>> {
        let Some(room) = room else {
            return self.read_up_to(name, u64::MAX);
        };
        let path = self.path(name);
        let Ok(found) = fs::symlink_metadata(&path) else {
            return self.read_up_to(name, room.bytes);
        };
        let around = path.parent().unwrap_or(&path).display();
        if room.lists == 0 {
            return Err(UserError::failed(
                format!("list `{name}`: `{around}` has more than {MAX_LISTS} lists"),
                "remove some; the lists that were in force stay in force",
            ));
        }
        if found.is_file() && found.len() > room.bytes {
            let most = self.room(&name.place().map_or_else(ListName::default, |place| place.0));
            return Err(UserError::failed(
                format!(
                    "list `{name}`: with it, the files in `{around}` are longer than {} KiB",
                    most.bytes >> 10
                ),
                "shorten them; the list in force, if any, stays in force",
            ));
        }
        room.lists -= 1;
        let read = self.read_up_to(name, room.bytes)?;
        room.bytes -= read.as_ref().map_or(0, |text| text.len.min(room.bytes));
        Ok(read)
    }

    /// Whether nothing is lost with the list `name` that was `last_good` and has no file any more:
    /// it authorizes no source. A guard that names it would be without its list, though.
    fn may_forget(&self, name: &ListName, last_good: &RangesFile) -> bool {
        let now = Timestamp::now();
        let lives = |time: Option<Timestamp>| time.is_none_or(|time| time > now);
        !name.is_default()
            && self.bounds.is_some()
            && !self.named.contains(name)
            && !last_good.entries().any(|entry| lives(entry.expires))
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
            match self.read_up_to(&name, u64::MAX) {
                Ok(Some(text)) => read.insert(name, text),
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
        let read = self.read_up_to(name, u64::MAX)?;
        Ok(read.map(|text| text.file))
    }

    /// The same for a file of `most` bytes at most.
    fn read_up_to(&self, name: &ListName, most: u64) -> Result<Option<ListText>> {
        let path = self.path(name);
        let most = most.min(match name.is_default() {
            true => MAX_LIST_LEN,
            false => self.longest(None),
        });
        let text = match name.is_default() {
            true => {
                refuse_other_writers(&path)?;
                read_text(&path, None, most)?
            }
            false => read_of_others(&path, most)?,
        };
        if let Some(text) = &text {
            self.examine(name, &text.file)?;
        }
        Ok(text)
    }

    /// Refuses the file of a list that users may write who must not.
    ///
    /// # Errors
    /// If so.
    pub fn refuse_others(&self, name: &ListName) -> Result<()> {
        let path = self.path(name);
        match name.is_default() {
            true => refuse_other_writers(&path),
            false => refuse_any_writer(&path).map(drop),
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
                    "only the list `{}` can do that; write `empty` for a list without entries",
                    ListName::DEFAULT
                ),
            ));
        }
        if self.bounds.is_none() && !name.is_default() {
            return Err(UserError::input(
                format!("list `{name}`: its limits in the config file cannot be read"),
                "fix the config file: `apifence config` shows its errors",
            ));
        }
        let mut entries = list.entries().iter();
        if name.is_of_cluster()
            && let Some(entry) = entries.find(|entry| entry.expires.is_some())
        {
            // The last known ranges stay while their writer is away: none may end by itself.
            return Err(UserError::input(
                format!(
                    "list `{name}`: `{}` has an expiry, which this list cannot have",
                    entry.range
                ),
                "remove the expiry: the program that writes the list removes old ranges",
            ));
        }
        let Some(bounds) = self.bounds(name) else {
            return Ok(());
        };
        let key = match name.place() {
            Some((directory, _)) => format!(
                "`[lists.{directory}]` or `[lists.\"{name}\"]` in the config file sets this limit"
            ),
            None if name.is_of_cluster() => {
                format!("`[lists.\"{name}\"]` in the config file sets another limit")
            }
            None => format!("`[lists.{name}]` in the config file sets this limit"),
        };
        match bounds.exceeded(list.entries(), Timestamp::now()) {
            None => Ok(()),
            Some(cause) => Err(UserError::input(format!("list `{name}`: {cause}"), key)),
        }
    }
}

/// Reads the file of a list that another user may write. The file is the one that was examined:
/// its owner may put a link to another file into its place at any time.
fn read_of_others(path: &Path, most: u64) -> Result<Option<ListText>> {
    loop {
        let target = refuse_any_writer(path)?;
        let text = read_text(path, Some(&target), most)?;
        // A ConfigMap's mount may have swapped its link meanwhile.
        if text.is_some() || follow_own_links(path).is_ok_and(|now| now == target) {
            return Ok(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write as _, fs};

    use super::*;

    const MOST: u32 = 10_000;

    /// A directory with as many lists as are read, which have as many ranges as are read.
    #[test]
    fn lists_that_are_too_long_together_give_way_the_longest_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let ranges = folder.path().join("ranges");
        fs::write(&ranges, "198.51.100.0/24\n").expect("written");
        let lists = folder.path().join("ranges.d/team");
        fs::create_dir_all(&lists).expect("made");
        for number in 0..MAX_LISTS {
            let mut text = String::new();
            for last in 0..600 + number {
                let (high, low) = (last >> 8, last & 255);
                writeln!(text, "{}.{}.{high}.{low}", 1 + number / 256, number % 256).expect("text");
            }
            fs::write(lists.join(format!("list{number:03}")), text).expect("written");
        }
        let files = ListFiles::new(&ranges, folder.path(), Some(BTreeMap::new()), MOST);
        let read = files.read(&Lists::default(), MOST).expect("read");
        let stay: Vec<_> = read.lists.iter().map(|(name, _)| name.as_str()).collect();
        // The ranges file, and the shortest lists: 600 + ... + 614.
        assert_eq!(stay.len(), 17, "{stay:?}");
        assert_eq!((stay[0], stay[16]), ("default", "team.list015"));
        assert_eq!(read.faults.len(), MAX_LISTS - 16);
    }
}
