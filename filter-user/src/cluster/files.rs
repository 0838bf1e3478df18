//! Files of Kubernetes and its distributions. An unreadable file counts as empty, unless noted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::store::read_regular;

/// The limit for a file's size, in bytes. Real files have a few KiB.
const MAX_LEN: u64 = 1 << 20;

/// The text of the file at `path`.
pub(super) fn text(path: &Path) -> Option<String> {
    String::from_utf8(read_regular(path, MAX_LEN).ok()?).ok()
}

/// The documents of a YAML or JSON file.
pub(super) fn documents(path: &Path) -> Vec<Value> {
    parsed(path).unwrap_or_default()
}

/// The same; none if a file exists and cannot be parsed, since it may hold anything.
pub(super) fn parsed(path: &Path) -> Option<Vec<Value>> {
    if !path.exists() {
        return Some(Vec::new());
    }
    serde_saphyr::from_multiple(&text(path)?).ok()
}

/// The files in `folder` whose names end in one of `endings`, in order.
pub(super) fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = found
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| endings.contains(&ending))
        })
        .collect();
    found.sort();
    found
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

/// The value of the flag `name` (with its dashes) in a pod manifest.
pub(super) fn flag(manifest: &Path, name: &str) -> Option<String> {
    let documents = documents(manifest);
    let mut found = documents
        .iter()
        .flat_map(|document| flags(&strings(document), name));
    found.next()
}

/// The values of the flag `name` among words: from each `name=value`, or `name` and `value`.
pub(super) fn flags(words: &[&str], name: &str) -> Vec<String> {
    let found = words.iter().enumerate().filter_map(|(place, word)| {
        let rest = word.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => words.get(place + 1).map(|word| (*word).to_owned()),
            None => None,
        }
    });
    found.collect()
}
