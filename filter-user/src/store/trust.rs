//! Whether only root can have written a file that the policy depends on.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;
use nix::unistd::geteuid;

use super::path::{folder, real_path};
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
            if owner != 0 && owner != geteuid().as_raw() {
                Some(format!("user {owner} owns `{}`", path.display()))
            } else if writable != 0 && !sticky {
                Some(format!("others may write to `{}`", path.display()))
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
            "it decides who is let in: `chown root` and `chmod go-w` it; what is in force stays in force",
        )),
    }
}
