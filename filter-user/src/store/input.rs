//! A list as input: the ranges file, a copy in the history, standard input.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::read::{MAX_LIST_LEN, read_regular, read_without_link};
use crate::{
    ranges::{Faults, RangesFile, not_text},
    ui::error::{InputErrors, UserError, errno},
};

/// Reads the ranges file; `None` if it does not exist.
///
/// # Errors
/// If it cannot be read, or is not a list: the error names every bad line.
pub fn read_ranges(path: &Path) -> Result<Option<RangesFile>> {
    let input = Input::follow(path, None, MAX_LIST_LEN)?;
    input.map(Input::parse).transpose()
}

/// A list as it was read from its file.
pub(super) struct ListText {
    pub(super) file: RangesFile,
    /// The length of the file in bytes.
    pub(super) len: u64,
    /// SHA-256 of its bytes.
    pub(super) sha256: [u8; 32],
}

/// Reads the file at `path` of `most` bytes at most; `None` if it does not exist. If `target` is
/// the file that it led to, that one is read, and no link in its place is followed.
///
/// # Errors
/// As of [`read_ranges`], or if it is longer.
pub(super) fn read_text(path: &Path, target: Option<&Path>, most: u64) -> Result<Option<ListText>> {
    let Some(input) = Input::follow(path, target, most)? else {
        return Ok(None);
    };
    let (len, sha256) = (
        input.bytes.len() as u64,
        Sha256::digest(&input.bytes).into(),
    );
    let file = input.parse()?;
    Ok(Some(ListText { file, len, sha256 }))
}

/// The bytes of a new list, and their source.
pub struct Input {
    name: String,
    bytes: Vec<u8>,
}

impl Input {
    /// Reads a list from a file in the format of the ranges file, or, for `-`, from standard input.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let (name, bytes) = if path == Path::new("-") {
            let mut bytes = Vec::new();
            let read = io::stdin().read_to_end(&mut bytes);
            ("standard input".to_owned(), read.map(|_| bytes))
        } else {
            (path.display().to_string(), fs::read(path))
        };
        match bytes {
            Ok(bytes) => Ok(Self { name, bytes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UserError::input(
                format!("read ranges file `{name}`: no such file"),
                "nothing changed; `-` reads standard input",
            )),
            Err(error) => Err(UserError::failed(
                format!("read ranges file `{name}`: {}", errno(&error)),
                "nothing changed",
            )),
        }
    }

    /// Reads a list from the file at `path`, or at the `target` that it led to, which must be a
    /// regular file of `most` bytes at most; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    fn follow(path: &Path, target: Option<&Path>, most: u64) -> Result<Option<Self>> {
        let read = match target {
            None => read_regular(path, most),
            Some(target) => read_without_link(target, most),
        };
        match read {
            Ok(bytes) => Ok(Some(Self {
                name: path.display().to_string(),
                bytes,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(UserError::failed(
                format!("read ranges file `{}`: {}", path.display(), errno(&error)),
                "the list in force, if any, stays in force",
            )),
        }
    }

    /// The bytes that an editor saved. The save is complete: its last line need not end with a line
    /// feed.
    pub fn edited(mut bytes: Vec<u8>) -> Self {
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        Self {
            name: "edit".to_owned(),
            bytes,
        }
    }

    /// Parses the list.
    ///
    /// # Errors
    /// As of [`read_ranges`].
    pub fn parse(self) -> Result<RangesFile> {
        parse_named(&self.name, &self.bytes)
    }
}

/// Parses `bytes` from the source `name`.
fn parse_named(name: &str, bytes: &[u8]) -> Result<RangesFile> {
    let faults = match not_text(bytes) {
        Some(refusal) => Faults {
            first: vec![(0, refusal)],
            more: 0,
        },
        None => match RangesFile::parse(&String::from_utf8_lossy(bytes)) {
            Ok(file) => return Ok(file),
            Err(faults) => faults,
        },
    };
    let first = faults.first.into_iter();
    let first = first.map(|(line, refusal)| match line {
        0 => (format!("{name}: {}", refusal.cause), refusal.hint),
        _ => (format!("{name}:{line}: {}", refusal.cause), refusal.hint),
    });
    Err(InputErrors::counted(first.collect(), faults.more).into())
}
