//! Names of files next to the ranges file.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use nix::unistd::geteuid;

/// Follows links: the file that `path` points to is replaced, not the link. A link of another user
/// is not followed: it would name the file that root replaces.
pub(super) fn real_path(path: &Path) -> PathBuf {
    follow_own_links(path).unwrap_or_else(|_| path.to_owned())
}

/// The path without links. The file itself need not exist.
///
/// # Errors
/// A link on the way that another user than root or this one owns, or the link after the 40th
/// (path_resolution(7)).
pub(super) fn follow_own_links(path: &Path) -> Result<PathBuf, PathBuf> {
    const MAX_LINKS: usize = 40;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut left = components(&path);
    let (mut real, mut links) = (PathBuf::from("/"), 0);
    while let Some(next) = left.pop() {
        if next == Path::new("..") {
            real.pop();
            continue;
        }
        let here = real.join(&next);
        let Ok(target) = fs::read_link(&here) else {
            real = here;
            continue;
        };
        links += 1;
        let owner = fs::symlink_metadata(&here).map_or(u32::MAX, |found| found.uid());
        if !is_own(owner) || links > MAX_LINKS {
            return Err(here);
        }
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        left.extend(components(&target));
    }
    Ok(real)
}

/// The names in a path, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    let names = path
        .components()
        .rev()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir));
    names.map(|name| PathBuf::from(name.as_os_str())).collect()
}

/// Whether root or this process's user has this number.
pub(super) fn is_own(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Whether only root or this process's user can make files in the folder that holds `path`.
pub(super) fn is_in_own_folder(path: &Path) -> bool {
    // A folder that is not there yet will be made in the next one.
    let mut folders = folder(path).ancestors();
    let found = folders.find_map(|folder| fs::metadata(folder).ok());
    found.is_some_and(|found| is_own(found.uid()) && found.mode() & 0o022 == 0)
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
