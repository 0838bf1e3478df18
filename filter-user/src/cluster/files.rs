//! Files of Kubernetes and its distributions. An unreadable file counts as empty, unless noted.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::store::read_regular;

/// The limit for a file's size, in bytes. Real files have a few KiB.
const MAX_LEN: u64 = 1 << 20;

/// The directory that the files of a node are read from: `/`, or a copy of another node's files.
///
/// All paths are the node's own, and so are those in messages.
#[derive(Clone, Debug)]
pub struct Root {
    directory: PathBuf,
    /// The files that are there, and could not be used.
    unread: RefCell<BTreeSet<PathBuf>>,
}

/// This node.
impl Default for Root {
    fn default() -> Self {
        Self::new(PathBuf::from("/"))
    }
}

impl Root {
    /// The copy of a node's files in `directory`.
    pub const fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            unread: RefCell::new(BTreeSet::new()),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.directory.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether there is anything at `path`. A link counts, whatever it leads to: in a copy that is
    /// often nothing.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.at(path.as_ref())).is_ok()
    }

    /// The files that were there until now, and could not be used.
    pub fn unread(&self) -> BTreeSet<PathBuf> {
        self.unread.borrow().clone()
    }

    /// The text of the file at `path`.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = path.as_ref();
        match read_regular(&self.at(path), MAX_LEN).map(String::from_utf8) {
            Ok(Ok(text)) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(Err(_)) | Err(_) => self.is_unread(path),
        }
    }

    /// Notes that the file at `path` cannot be used.
    fn is_unread<T>(&self, path: &Path) -> Option<T> {
        self.unread.borrow_mut().insert(path.to_owned());
        None
    }

    /// The documents of a YAML or JSON file.
    pub(super) fn documents(&self, path: impl AsRef<Path>) -> Vec<Value> {
        self.parsed(path).unwrap_or_default()
    }

    /// The same; none if a file exists and cannot be parsed, since it may hold anything.
    pub(super) fn parsed(&self, path: impl AsRef<Path>) -> Option<Vec<Value>> {
        let path = path.as_ref();
        if !self.has(path) {
            return Some(Vec::new());
        }
        let parsed = serde_saphyr::from_multiple(&self.text(path)?);
        parsed.ok().or_else(|| self.is_unread(path))
    }

    /// The files in `folder` whose names end in one of `endings`, in order.
    pub(super) fn files(&self, folder: impl AsRef<Path>, endings: &[&str]) -> Vec<PathBuf> {
        let folder = folder.as_ref();
        let found = fs::read_dir(self.at(folder))
            .into_iter()
            .flatten()
            .flatten();
        let names = found.map(|entry| folder.join(entry.file_name()));
        let wanted = names.filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| endings.contains(&ending))
        });
        let wanted: BTreeSet<PathBuf> = wanted.collect();
        wanted.into_iter().collect()
    }

    /// The value of the flag `name` (with its dashes) in a pod manifest. The last one holds, as in
    /// Kubernetes.
    pub(super) fn flag(&self, manifest: impl AsRef<Path>, name: &str) -> Option<String> {
        let documents = self.documents(manifest);
        let found = documents.iter().flat_map(|document| {
            // The command may be the one line of a shell.
            let words: Vec<&str> = strings(document).into_iter().flat_map(split).collect();
            flags(&words, name)
        });
        found.last()
    }

    /// Whether there is a systemd unit called `name`.
    pub fn has_unit(&self, name: &str) -> bool {
        self.unit(name).is_some()
    }

    /// The words of the first systemd unit called `name`, with its drop-ins and the files of its
    /// environment; and its path.
    pub(super) fn unit(&self, name: &str) -> Option<(PathBuf, Vec<String>)> {
        const PLACES: [&str; 4] = ["/etc", "/usr/local/lib", "/usr/lib", "/lib"];
        let paths = PLACES.map(|place| PathBuf::from(format!("{place}/systemd/system/{name}")));
        let path = paths.iter().find(|path| self.has(path))?.clone();
        let folders = paths
            .iter()
            .rev()
            .map(|path| path.with_added_extension("d"));
        let drop_ins = folders.flat_map(|folder| self.files(folder, &["conf"]));
        let mut words = Vec::new();
        for path in [path.clone()].into_iter().chain(drop_ins) {
            self.add_words(&self.text(&path).unwrap_or_default(), &mut words);
        }
        Some((path, words))
    }

    /// Adds the words of a unit file.
    fn add_words(&self, text: &str, words: &mut Vec<String>) {
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if line == "ExecStart=" {
                // What was set before is taken back.
                words.clear();
            }
            words.extend(split(line).map(str::to_owned));
            let environment = line.strip_prefix("EnvironmentFile=");
            let file = environment.map(|file| file.trim_start_matches('-'));
            for line in file
                .and_then(|file| self.text(file))
                .iter()
                .flat_map(|text| text.lines())
            {
                let value = line.split_once('=').map_or("", |(_, value)| value);
                words.extend(split(value).map(str::to_owned));
            }
        }
    }
}

/// The words of a line, which may be quoted and end in a backslash.
fn split(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| c.is_whitespace() || ['\'', '"', '\\'].contains(&c));
    words.filter(|word| !word.is_empty())
}

/// The paths of the static pod manifest of a control plane component: of kubeadm, kOps, RKE2.
pub(super) fn manifests(component: &str) -> [String; 3] {
    [
        format!("/etc/kubernetes/manifests/{component}.yaml"),
        format!("/etc/kubernetes/manifests/{component}.manifest"),
        format!("/var/lib/rancher/rke2/agent/pod-manifests/{component}.yaml"),
    ]
}

/// All values of `key` in `value`, at whatever depth.
pub(super) fn values<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let inside: Vec<&Value> = match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    };
    let mut found: Vec<&Value> = value.get(key).into_iter().collect();
    found.extend(inside.into_iter().flat_map(|value| values(value, key)));
    found
}

/// The strings in `value`, at whatever depth, in their order.
pub(super) fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().flat_map(strings).collect(),
        Value::Object(map) => map.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// The values of the flag `name` among words: from each `name=value`, or `name` and `value`.
pub(super) fn flags(words: &[impl AsRef<str>], name: &str) -> Vec<String> {
    let found = words.iter().enumerate().filter_map(|(place, word)| {
        let rest = word.as_ref().strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => words.get(place + 1).map(|word| word.as_ref().to_owned()),
            None => None,
        }
    });
    found.collect()
}
