//! Names of files next to the ranges file.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Follows links: the file that `path` points to is replaced, not the link.
pub(super) fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The hidden name next to `target` that ends in `suffix`.
pub(super) fn sibling(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    folder(target).join(name)
}

/// The folder that holds the file at `path`.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
