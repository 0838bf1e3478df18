//! The one directory that the agent writes. Each file is replaced by rename, so that a reader sees
//! the old or the new one, and a crash leaves one of them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::Builder;

use crate::{addresses::Known, list::is_list_name, record::Record};

/// The files of the cluster's addresses.
pub const NODES: &str = "@nodes";
/// That of the pod ranges.
pub const PODS: &str = "@pods";

/// The most bytes of a file here: more than the addresses of any cluster.
const MOST_BYTES: u64 = 64 << 20;

/// What the agent remembers over restarts.
const MEMORY: &str = ".agent.json";

/// The beginning of the names of files that are being written.
const UNFINISHED: &str = ".new-";

/// The directory of the lists.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// What the agent remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The lists, by name.
    pub records: BTreeMap<String, Record>,
    /// The addresses of the nodes.
    pub nodes: Known,
    /// The pod ranges.
    pub pods: Known,
    /// The labels of this node, as it had them last.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The user of the agent, and its group: in a range that systemd leaves to nothing
/// (60706 to 61183, UIDS-GIDS.md), so that no other program of a node has it.
pub const UID: u32 = 60843;

/// Gives the directory at `path` to the agent's user. It needs CAP_CHOWN.
///
/// # Errors
/// If it is not a directory of root or of that user, or cannot be given away.
pub fn prepare(path: &Path) -> Result<()> {
    let explain = || format!("give `{}` to user {UID}", path.display());
    let open = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path);
    let directory = open.with_context(explain)?;
    match directory.metadata().with_context(explain)?.uid() {
        UID => return Ok(()),
        0 => {}
        owner => bail!(
            "{}: user {owner} owns it and may have put links into it: remove it first",
            explain()
        ),
    }
    let mode = fs::Permissions::from_mode(0o755);
    directory.set_permissions(mode).with_context(explain)?;
    fchown(&directory, Some(UID), Some(UID)).with_context(explain)
}

impl Directory {
    /// The directory at `path`.
    ///
    /// # Errors
    /// If this process cannot make files in it.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Self::at(path);
        directory.remove_unfinished().and_then(|()| {
            Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(path)
                .map(drop)
        }).with_context(|| {
            format!(
                "write lists in `{0}` as user {1} (the apifence package creates it; by hand: `install -d -o {1} -g {1} {0}`)",
                path.display(),
                nix::unistd::geteuid()
            )
        })?;
        Ok(directory)
    }

    /// The directory at `path`, to read it.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The name of the directory, which is the first part of its lists' names.
    pub fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Removes what a killed agent left.
    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes `text` the file `name`.
    ///
    /// # Errors
    /// If it cannot be written; the file is as before.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        let written = || -> io::Result<()> {
            let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o644))?;
            // A node that loses power must not find an empty list.
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(&self.0)?.sync_all()
        };
        written().with_context(|| format!("write `{}`", path.display()))
    }

    /// The text of the file `name`; `None` if there is none that can be read.
    pub fn read(&self, name: &str) -> Option<String> {
        read_text(&self.0.join(name), MOST_BYTES).ok()
    }

    /// The names of the lists that have files.
    fn lists(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_list_name(name)).collect()
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove `{}`", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// What was remembered, or what the files show of it if that cannot be read: no node is cut,
    /// and each list in force is known.
    pub fn memory(&self) -> Memory {
        let mut memory = self.json(MEMORY).unwrap_or_else(|| {
            let known = |name| Known::of_text(&self.read(name).unwrap_or_default());
            Memory {
                nodes: known(NODES),
                pods: known(PODS),
                ..Memory::default()
            }
        });
        for name in self.lists() {
            let text = self.read(&name).unwrap_or_default();
            let found = || Record::of_file(&text);
            memory.records.entry(name).or_insert_with(found);
        }
        memory
    }

    /// Remembers it.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn remember(&self, memory: &Memory) -> Result<()> {
        self.write(MEMORY, &(serde_json::to_string(memory)? + "\n"))
    }

    /// The JSON in the file `name`; `None` if there is none.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(&self.read(name)?).ok()
    }

    /// Makes `value` the file `name`, without waiting for the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.0.join(name);
        let written = || -> io::Result<()> {
            let file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.0)?;
            serde_json::to_writer(file.as_file(), value)?;
            file.persist(&path)?;
            Ok(())
        };
        written().with_context(|| format!("write `{}`", path.display()))
    }
}

/// Reads the regular file at `path`, `most` bytes at most. A FIFO in its place would block its
/// reader.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is longer.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let file = fs::File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    if file.take(most + 1).read_to_string(&mut text)? as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    const FILES: [(&str, &str); 4] = [
        ("office", "# old\n10.0.0.0/8\n"),
        ("withdrawn", "empty\n"),
        (".hidden", "10.0.0.0/8\n"),
        (NODES, "# Nodes\n10.0.0.1/32 # a\n"),
    ];

    #[test]
    fn a_memory_that_cannot_be_read_is_made_of_the_files() {
        for broken in ["", "{", "{\"records\": 5}"] {
            let folder = tempfile::tempdir().expect("a folder");
            let directory = Directory::open(folder.path()).expect("open");
            for (name, text) in FILES.into_iter().chain([(MEMORY, broken)]) {
                directory.write(name, text).expect("written");
            }
            let memory = directory.memory();
            let known: Vec<_> = memory.records.keys().collect();
            assert_eq!(known, ["office", "withdrawn"]);
            assert_eq!(memory.records["office"].ranges, 1);
            assert_eq!(memory.records["withdrawn"].ranges, 0);
            assert!(memory.nodes.text("").contains("10.0.0.1/32 # a\n"));
            directory.remember(&memory).expect("written");
            assert_eq!(directory.memory(), memory);
        }
    }

    #[test]
    fn what_is_no_file_holds_up_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::open(folder.path()).expect("open");
        for name in [MEMORY, "office"] {
            mkfifo(&folder.path().join(name), Mode::S_IRWXU).expect("a FIFO");
        }
        assert_eq!(directory.read("office"), None);
        assert_eq!(directory.memory().records.len(), 1);
        directory.write("office", "10.0.0.0/8\n").expect("written");
        assert_eq!(directory.read("office").as_deref(), Some("10.0.0.0/8\n"));
        let long = read_text(&folder.path().join("office"), 3);
        assert!(long.is_err_and(|error| error.to_string().contains("longer")));
    }
}
