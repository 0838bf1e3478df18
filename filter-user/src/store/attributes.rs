//! What a file is besides its text: whose it is, who may read it, and where it lies.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};
use procfs::process::Process;
use xattr::FileExt as _;

use super::path::folder;
use crate::ui::error::{UserError, errno};

/// Attributes that the kernel makes from the bytes of a file: those of another file are not its own.
const OF_THE_BYTES: [&str; 2] = ["security.ima", "security.evm"];

/// Owner, group, mode, and extended attributes, access control lists among them.
pub(super) struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    extended: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    /// Those of the file at `path`; `None` if there is none.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let mut extended = Vec::new();
        match xattr::list(path) {
            Ok(names) => {
                for name in names.filter(|name| OF_THE_BYTES.iter().all(|own| name != own)) {
                    if let Some(value) = xattr::get(path, &name)? {
                        extended.push((name, value));
                    }
                }
            }
            // The file system has none.
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        Ok(Some(Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
            extended,
        }))
    }

    /// Gives them to another file, whose text is about to take the place of that one's.
    ///
    /// # Errors
    /// What of them it cannot have, and why.
    pub(super) fn give(&self, file: &File) -> Result<(), (String, io::Error)> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error| (what, error)
        };
        let metadata = file.metadata().map_err(failed("owner"))?;
        if (metadata.uid(), metadata.gid()) != (self.uid, self.gid) {
            fchown(file, Some(self.uid), Some(self.gid)).map_err(failed("owner"))?;
        }
        // After the owner, whose change may clear bits of it.
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(failed("mode"))?;
        for (name, value) in &self.extended {
            // What the kernel gave it by itself, such as the label of its folder, need not be set.
            if file.get_xattr(name).ok().flatten().as_ref() == Some(value) {
                continue;
            }
            let what = format!("attribute `{}`", name.to_string_lossy());
            file.set_xattr(name, value).map_err(failed(&what))?;
        }
        Ok(())
    }
}

/// Refuses to replace the file at `target` where the kernel would not let it: what is about to be
/// said would not come true.
///
/// # Errors
/// If so, with what to do instead.
pub(super) fn refuse_unwritable(target: &Path) -> Result<()> {
    let refuse = |cause: &str, hint: &str| {
        Err(UserError::failed(
            format!("write ranges file `{}`: {cause}", target.display()),
            format!("{hint}; nothing changed"),
        ))
    };
    if is_mounted(target) {
        return refuse(
            "it is mounted by itself, so that no other file can take its place",
            "mount the folder that holds it, or change the list where it comes from and `apifence ranges reload`",
        );
    }
    let elsewhere = "name a file in a writable folder with `--ranges-file`, or change the list where it comes from (a ConfigMap)";
    let folder = folder(target);
    for path in [folder, target] {
        match access(path, AccessFlags::W_OK) {
            Err(nix::Error::ENOENT) | Ok(()) => {}
            Err(error) => {
                let which = if path == target { "file" } else { "folder" };
                let why = errno(&error.into());
                return refuse(&format!("its {which} cannot be written: {why}"), elsewhere);
            }
        }
    }
    Ok(())
}

/// Whether something is mounted on the file itself. Where that cannot be told, the change itself fails.
fn is_mounted(path: &Path) -> bool {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts.is_ok_and(|mounts| mounts.0.iter().any(|mount| mount.mount_point == path))
}
