//! Lists by name: each has a file and an owner, and the union of all is in force.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Entry, List, RangesFile};

/// The name of a list: `NAME` of the file in `ranges.d`, or `DIRECTORY.NAME` of a file in a
/// directory there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(inline))]
#[serde(try_from = "String")]
pub struct ListName(String);

impl ListName {
    /// The name of the list in the ranges file.
    pub const DEFAULT: &'static str = "default";
    /// The name of the file with the cluster's nodes.
    pub const NODES: &'static str = "@nodes";
    /// The name of the file with the cluster's pod ranges.
    pub const PODS: &'static str = "@pods";

    /// The files of the cluster. They have the format of a list, and are none: no operator edits
    /// them, and they are in force only where `cluster_cidrs` names them.
    pub fn all_of_cluster() -> [Self; 2] {
        [Self::NODES, Self::PODS].map(|name| Self(name.to_owned()))
    }

    /// The file of the cluster with this name, if there is one.
    pub fn of_cluster(name: &str) -> Option<Self> {
        let mut all = Self::all_of_cluster().into_iter();
        all.find(|known| known.0 == name)
    }

    /// Whether it is a file of the cluster.
    pub fn is_of_cluster(&self) -> bool {
        self.0.starts_with('@')
    }

    /// Whether it is the list in the ranges file.
    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }

    /// The name of the list in the file `name` of the directory `directory`, if it can have one.
    pub fn in_directory(directory: &Self, name: &str) -> Option<Self> {
        format!("{directory}.{name}").parse().ok()
    }

    /// The directory of lists that it is in, and the name of its file there; `None` for others.
    pub fn place(&self) -> Option<(Self, &str)> {
        let (directory, name) = self.0.split_once('.')?;
        Some((Self(directory.to_owned()), name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of the list in the ranges file.
impl Default for ListName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Letters, digits, `-` and `_`, as for the files that run-parts(8) takes: a copy that an editor or
/// a package manager leaves (`office.bak`, `office~`, `office.dpkg-old`) must authorize no source.
/// The dot after the name of a directory is in no file's name.
impl FromStr for ListName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = match text.split_once('.') {
            None => is_plain(text, 64),
            // The ranges file is in no directory of lists.
            Some((Self::DEFAULT, _)) => false,
            Some((directory, name)) => is_plain(directory, 64) && is_plain(name, 63),
        };
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "the name of a list has letters, digits, `-` and `_`, at most 64; with its directory's name and a dot in front, at most 63"
                    .to_owned(),
            ),
        }
    }
}

/// Whether a file of a list, or a directory of lists, can have the name `text`.
fn is_plain(text: &str, longest: usize) -> bool {
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    text.len() <= longest
        && text.bytes().next().is_some_and(is_plain)
        && text
            .bytes()
            .all(|letter| is_plain(letter) || letter == b'-')
}

impl TryFrom<String> for ListName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::of_cluster(&text).map_or_else(|| text.parse(), Ok)
    }
}

/// The lists of a policy. Some may be known from an earlier policy alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists(BTreeMap<ListName, RangesFile>);

impl Lists {
    /// The list `default` alone.
    pub fn of(default: RangesFile) -> Self {
        Self::default().with(&ListName::default(), default)
    }

    /// These, with `file` as the list `name`.
    #[must_use]
    pub fn with(&self, name: &ListName, file: RangesFile) -> Self {
        let mut lists = self.clone();
        lists.insert(name.clone(), file);
        lists
    }

    /// These, with `file` as the list `name`, or without that list.
    #[must_use]
    pub fn with_own(&self, name: &ListName, file: Option<&RangesFile>) -> Self {
        let mut lists = self.clone();
        match file {
            Some(file) => lists.insert(name.clone(), file.clone()),
            None => drop(lists.remove(name)),
        }
        lists
    }

    /// Makes `file` the list `name`.
    pub fn insert(&mut self, name: ListName, file: RangesFile) {
        self.0.insert(name, file);
    }

    /// Takes the list `name` out.
    pub fn remove(&mut self, name: &ListName) -> Option<RangesFile> {
        self.0.remove(name)
    }

    /// The list `name`.
    pub fn get(&self, name: &ListName) -> Option<&RangesFile> {
        self.0.get(name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ListName, &RangesFile)> {
        self.0.iter()
    }

    /// Those that are in `names`.
    #[must_use]
    pub fn only(&self, names: &BTreeSet<ListName>) -> Self {
        let named = self.0.iter().filter(|(name, _)| names.contains(name));
        let named = named.map(|(name, file)| (name.clone(), file.clone()));
        Self(named.collect())
    }

    /// The ranges in all of them.
    pub fn ranges(&self) -> BTreeSet<IpNet> {
        let entries = self.0.values().flat_map(RangesFile::entries);
        entries.map(|entry| entry.range).collect()
    }

    /// The number of entries, repetitions included.
    pub fn entry_count(&self) -> usize {
        self.0.values().map(RangesFile::entry_count).sum()
    }

    /// Whether the list `default` is the off switch.
    pub fn is_off(&self) -> bool {
        self.get(&ListName::default())
            .is_some_and(RangesFile::is_off)
    }

    /// The union. The list `default` alone can be the off switch, for all.
    pub fn union(&self) -> List {
        if self.is_off() {
            return List::Off;
        }
        let mut entries: Vec<Entry> = self
            .0
            .values()
            .flat_map(RangesFile::entries)
            .cloned()
            .collect();
        entries.sort_by_key(|entry| (entry.range, entry.expires));
        List::Ranges(entries)
    }

    /// The entries of the lists in `names`; none if enforcement is off.
    pub fn entries_of<'a>(&self, names: impl IntoIterator<Item = &'a ListName>) -> Vec<Entry> {
        if self.is_off() {
            return Vec::new();
        }
        let files = names.into_iter().filter_map(|name| self.get(name));
        files.flat_map(RangesFile::entries).cloned().collect()
    }

    /// SHA-256 of all lists: equal if each authorizes the same sources until the same times. That
    /// of the list `default` alone is the digest of the list. Lists without entries make no
    /// difference.
    pub fn digest(&self) -> [u8; 32] {
        let filled = || {
            self.iter()
                .filter(|(_, file)| file.entries().next().is_some())
        };
        if self.is_off() || filled().all(|(name, _)| name.is_default()) {
            return self.union().digest();
        }
        let mut hasher = Sha256::new();
        for (name, file) in filled() {
            // A name has no NUL.
            hasher.update(name.as_str());
            hasher.update([0]);
            hasher.update(file.list().digest());
        }
        hasher.finalize().into()
    }

    /// The names of the lists that have an entry for each range.
    pub fn names(&self) -> HashMap<IpNet, Vec<ListName>> {
        let mut names: HashMap<IpNet, Vec<ListName>> = HashMap::new();
        for (name, file) in self.iter() {
            for entry in file.entries() {
                let known = names.entry(entry.range).or_default();
                if known.last() != Some(name) {
                    known.push(name.clone());
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_an_editor_leaves_names_no_list() {
        for name in [
            "office",
            "default",
            "aws-eu_central-1",
            "0",
            &"x".repeat(64),
            "kubernetes.office",
            &format!("{}.{}", "x".repeat(64), "y".repeat(63)),
        ] {
            assert_eq!(name.parse::<ListName>().expect(name).as_str(), name);
        }
        for name in [
            "",
            "-office",
            "office~",
            "kubernetes.office.bak",
            "kubernetes.",
            "kubernetes.-office",
            "kubernetes.@nodes",
            "default.office",
            ".office",
            "#office#",
            "a/b",
            "..",
            "büro",
            "a b",
            ListName::NODES,
            &"x".repeat(65),
            &format!("kubernetes.{}", "x".repeat(64)),
        ] {
            name.parse::<ListName>().expect_err(name);
        }
    }

    #[test]
    fn a_list_in_a_directory_is_named_after_both() {
        let kubernetes: ListName = "kubernetes".parse().expect("a name");
        let name = ListName::in_directory(&kubernetes, "office").expect("a name");
        assert_eq!(name.to_string(), "kubernetes.office");
        assert_eq!(name.place(), Some((kubernetes.clone(), "office")));
        assert_eq!(kubernetes.place(), None);
        assert_eq!(ListName::in_directory(&kubernetes, "office.bak"), None);
    }

    #[test]
    fn the_digest_tells_which_list_has_a_range() {
        let file = |text: &str| RangesFile::parse(text).expect(text);
        let (one, other) = ("192.0.2.1\n", "192.0.2.2\n");
        let name: ListName = "other".parse().expect("a name");
        let lists = |default: &str, own: &str| Lists::of(file(default)).with(&name, file(own));
        let digest = lists(one, other).digest();
        assert_ne!(digest, lists(other, one).digest());
        assert_ne!(digest, Lists::of(file(&[one, other].concat())).digest());
        assert_eq!(digest, lists("192.0.2.1 # a comment\n", other).digest());
        assert_eq!(lists(one, "empty\n").digest(), file(one).list().digest());
        assert_eq!(lists("disabled\n", other).digest(), List::Off.digest());
    }

    #[test]
    fn the_union_has_the_entries_of_all_and_the_off_switch_of_the_default_list() {
        let file = |text: &str| RangesFile::parse(text).expect(text);
        let other: ListName = "other".parse().expect("a name");
        let lists = Lists::of(file("192.0.2.0/24 # one\n")).with(&other, file("10.0.0.0/8\n"));
        let union = file("10.0.0.0/8\n192.0.2.0/24\n").list();
        assert_eq!(lists.union().digest(), union.digest());
        let range: IpNet = "10.0.0.0/8".parse().expect("a range");
        assert_eq!(lists.names().get(&range), Some(&vec![other.clone()]));
        let off = lists.with(&ListName::default(), file("disabled\n"));
        assert_eq!(off.union(), List::Off);
        let nobody = lists.with(&ListName::default(), file("0.0.0.0/32\n"));
        assert_eq!(nobody.union(), file("10.0.0.0/8\n").list());
        let mut none = nobody;
        none.insert(other.clone(), file("empty\n"));
        assert_eq!(none.union(), List::Ranges(Vec::new()));
        assert_eq!(none.digest(), List::Ranges(Vec::new()).digest());
        none.remove(&other);
        assert_eq!(none.iter().count(), 1);
    }
}
