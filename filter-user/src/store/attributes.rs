//! A file's attributes besides its text, and whether it can be replaced.

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

/// Attributes that the kernel computes from a file's bytes: they do not fit another file.
const OF_THE_BYTES: [&str; 2] = ["security.ima", "security.evm"];

/// Owner, group, mode, and extended attributes, access control lists among them.
pub(super) struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    extended: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    /// The attributes of the file at `path`; `None` if it does not exist.
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
            // The file system has no extended attributes.
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

    /// Sets them on the file that is about to replace the original.
    ///
    /// # Errors
    /// The attribute that cannot be set, and the cause.
    pub(super) fn give(&self, file: &File) -> Result<(), (String, io::Error)> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error| (what, error)
        };
        let metadata = file.metadata().map_err(failed("owner"))?;
        if (metadata.uid(), metadata.gid()) != (self.uid, self.gid) {
            fchown(file, Some(self.uid), Some(self.gid)).map_err(failed("owner"))?;
        }
        // After the owner, since a change of owner may clear mode bits.
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(failed("mode"))?;
        for (name, value) in &self.extended {
            // An attribute that the kernel set by itself, such as the folder's label, need not be
            // set.
            if file.get_xattr(name).ok().flatten().as_ref() == Some(value) {
                continue;
            }
            let what = format!("attribute `{}`", name.to_string_lossy());
            file.set_xattr(name, value).map_err(failed(&what))?;
        }
        Ok(())
    }
}

/// Refuses to replace the file at `target` where the kernel would refuse it: the impact that is
/// about to be shown would never happen.
///
/// # Errors
/// If so; the hint names the alternative.
pub(super) fn refuse_unwritable(target: &Path) -> Result<()> {
    let refuse = |cause: &str, hint: &str| {
        Err(UserError::failed(
            format!("write ranges file `{}`: {cause}", target.display()),
            format!("{hint}; nothing changed"),
        ))
    };
    if is_mounted(target) {
        return refuse(
            "it is a mount of its own, so it cannot be replaced",
            "mount its folder instead; or change the source of the file, then run `apifence ranges reload`",
        );
    }
    let elsewhere = "name a file in a writable folder with `--ranges-file`, or change the source of the file (a ConfigMap)";
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

/// Whether the file itself is a mount point. If that is not known, the change itself fails.
fn is_mounted(path: &Path) -> bool {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts.is_ok_and(|mounts| mounts.0.iter().any(|mount| mount.mount_point == path))
}
