//! The warnings that an operator acknowledged by a command, kept on disk.
//!
//! ```text
//! STATE_DIR/acknowledged    a line each, like `W08:wg0`
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use nix::unistd::geteuid;

use super::{
    ranges_file::sync,
    read::{MAX_CONFIG_LEN, read_regular},
};
use crate::{
    codes::Acknowledgement,
    kernel::pins::make_private,
    ui::error::{UserError, errno},
};

/// Where acknowledgements are kept.
#[derive(Clone, Debug)]
pub struct AcknowledgedStore {
    directory: PathBuf,
}

impl AcknowledgedStore {
    /// The store in the state directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("acknowledged")
    }

    /// All acknowledgements; none without a file. An invalid line acknowledges nothing.
    ///
    /// # Errors
    /// If the file cannot be read, or another user may have written it.
    pub fn read(&self) -> Result<Vec<Acknowledgement>> {
        let path = self.path();
        let failed = |cause: &str| {
            UserError::failed(
                format!("read acknowledgements `{}`: {cause}", path.display()),
                "every warning is shown until the file can be read; delete it to start again",
            )
        };
        for path in [&self.directory, &path] {
            match fs::metadata(path) {
                Ok(found) if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 => {
                    return Err(failed("another user owns it or can write to it"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Ok(_) | Err(_) => {}
            }
        }
        let bytes = read_regular(&path, MAX_CONFIG_LEN).map_err(|error| failed(&errno(&error)))?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines();
        Ok(lines
            .filter_map(|line| Acknowledgement::parse(line).ok())
            .collect())
    }

    /// Applies `change` to them, in one step.
    ///
    /// # Errors
    /// If they cannot be read or written; they then stay as they are.
    pub fn change(&self, change: impl FnOnce(&mut Vec<Acknowledgement>)) -> Result<()> {
        let explain = |error: io::Error| {
            UserError::failed(
                format!(
                    "write acknowledgements `{}`: {}",
                    self.path().display(),
                    match error.raw_os_error() {
                        Some(_) => errno(&error),
                        // The message of the tempfile library contains its path; only the kind is
                        // used.
                        None => error.kind().to_string(),
                    }
                ),
                "nothing changed; set `acknowledged_warnings` in the config file instead",
            )
        };
        make_private(&self.directory).map_err(explain)?;
        // Only one change at a time, until this is closed.
        let directory = File::open(&self.directory).map_err(explain)?;
        directory.lock().map_err(explain)?;
        let mut known = self.read()?;
        change(&mut known);
        known.sort();
        known.dedup();
        let write = || {
            // The library creates it with mode 0600.
            let mut file = tempfile::Builder::new()
                .prefix(".acknowledged")
                .tempfile_in(&self.directory)?;
            for known in known {
                writeln!(file, "{known}")?;
            }
            file.as_file().sync_all()?;
            file.persist(self.path()).map_err(|error| error.error)?;
            sync(&self.directory)
        };
        write().map_err(explain)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn acknowledgements_are_kept_and_read_only_from_a_private_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = AcknowledgedStore::new(&folder.path().join("state"));
        assert_eq!(store.read().expect("none"), []);
        let one = |text| Acknowledgement::parse(text).expect("one");
        for text in ["W11:eth0", "W08:wg0", "W11:eth0"] {
            store.change(|known| known.push(one(text))).expect("kept");
        }
        let text = fs::read_to_string(store.path()).expect("there");
        assert_eq!(text, "W08:wg0\nW11:eth0\n");
        assert_eq!(
            store.read().expect("two"),
            [one("W08:wg0"), one("W11:eth0")]
        );
        let mode = |mode| fs::set_permissions(store.path(), fs::Permissions::from_mode(mode));
        let found = fs::metadata(store.path()).expect("there").mode();
        assert_eq!(found & 0o777, 0o600);

        // Lines of another version, or written by hand; an unknown one acknowledges nothing.
        fs::write(store.path(), "W08\nW01\nW99:x\n\u{1b}[2J\n\nW13: 6443\n").expect("written");
        assert_eq!(store.read().expect("two"), [one("W08"), one("W13:6443")]);
        mode(0o622).expect("changed");
        store.read().expect_err("other users can write to it");
        store.change(Vec::clear).expect_err("they stay");
        mode(0o600).expect("changed");
        store.change(Vec::clear).expect("cleared");
        assert_eq!(store.read().expect("none"), []);
        let files = fs::read_dir(folder.path().join("state")).expect("a folder");
        assert_eq!(files.count(), 1, "nothing is left over");
    }
}
