//! Whether only root can have written a file that the policy depends on.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::path::{folder, follow_own_links, is_own, real_path};
use crate::ui::error::UserError;

/// The other users that may write or replace the file at `path`; `None` if no other user may, or it
/// does not exist.
pub fn other_writer(path: &Path) -> Option<String> {
    let target = real_path(path);
    let file = fs::metadata(&target).ok()?;
    let folder = folder(&target);
    let around = fs::metadata(folder).ok()?;
    let sticky = around.mode() & 0o1000 != 0;
    [(&*target, file, false), (folder, around, sticky)]
        .into_iter()
        .find_map(|(path, found, sticky)| {
            // Root's own group does not count as another user.
            let writable = found.mode() & if found.gid() == 0 { 0o002 } else { 0o022 };
            let owner = found.uid();
            if !is_own(owner) {
                Some(format!("user {owner} owns `{}`", path.display()))
            } else if writable != 0 && !sticky {
                Some(format!("other users can write to `{}`", path.display()))
            } else {
                None
            }
        })
}

/// Refuses the file of a list that every user may write, or to which another user's link leads: a
/// change of the list would replace a file of that user's choice. Returns the file without links.
///
/// # Errors
/// If so.
pub(super) fn refuse_any_writer(path: &Path) -> Result<PathBuf> {
    let fault = |path: &Path, what: &str, fix: &str| {
        Err(UserError::failed(
            format!("read list `{}`: {what}", path.display()),
            format!(
                "{fix}: this file decides which sources are allowed; its last good entries stay in force"
            ),
        ))
    };
    let target = match follow_own_links(path) {
        Ok(target) => target,
        Err(link) => {
            let fix = "create the link as root, directly to the file";
            return fault(&link, "another user owns this link", fix);
        }
    };
    let folder = folder(&target);
    for (place, sticky) in [(&*target, 0), (folder, 0o1000)] {
        let Ok(found) = fs::metadata(place) else {
            continue;
        };
        if found.mode() & 0o002 != 0 && found.mode() & sticky == 0 {
            let fix = format!("`chmod o-w {}`", place.display());
            return fault(place, "every user can write to it", &fix);
        }
    }
    // The owner of the folder may replace the file, but not the folder.
    for around in folder.ancestors().skip(1) {
        let Ok(found) = fs::metadata(around) else {
            continue;
        };
        if !is_own(found.uid()) || found.mode() & 0o1002 == 0o002 {
            let fix = "put the list into a folder of its own, inside a folder of root";
            return fault(around, "another user can replace the folder in it", fix);
        }
    }
    Ok(target)
}

/// Why another user than root or this one may make files in the directory at `path`, or replace it;
/// `None` if none may.
pub(super) fn foreign_writer(path: &Path) -> Option<String> {
    let directory = match follow_own_links(path) {
        Ok(directory) => directory,
        Err(link) => return Some(format!("another user owns the link `{}`", link.display())),
    };
    directory.ancestors().find_map(|around| {
        let found = fs::metadata(around).ok()?;
        let sticky = found.mode() & 0o1000 != 0 && around != directory;
        let writable = found.mode() & if found.gid() == 0 { 0o002 } else { 0o022 };
        if !is_own(found.uid()) {
            Some(format!("another user owns `{}`", around.display()))
        } else if writable != 0 && !sticky {
            Some(format!("other users can write to `{}`", around.display()))
        } else {
            None
        }
    })
}

/// Refuses a file that others may write if a service manager runs this process: its warnings may go
/// unread.
///
/// # Errors
/// If others may write it.
pub fn refuse_other_writers(path: &Path) -> Result<()> {
    // systemd sets it for each start of a unit (systemd.exec(5)).
    if std::env::var_os("INVOCATION_ID").is_none() {
        return Ok(());
    }
    match other_writer(path) {
        None => Ok(()),
        Some(cause) => Err(UserError::failed(
            format!("read `{}`: {cause}", path.display()),
            "run `chown root` and `chmod go-w` on it: it decides which sources are allowed; the policy stays in force",
        )),
    }
}
