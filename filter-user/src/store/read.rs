//! Files that operators and programs write are read as a whole, waiting only for the disk.

use std::{
    fs::{File, FileType},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::libc;

/// The maximum size of a list, in bytes: a million ranges with long comments.
pub const MAX_LIST_LEN: u64 = 256 << 20;
/// The maximum size of a config file, in bytes.
pub(super) const MAX_CONFIG_LEN: u64 = 1 << 20;

/// Reads the regular file at `path`, `most` bytes at most.
///
/// A FIFO would block its reader until a writer comes, and a device may never end: one in the place
/// of the file would stop the process that follows it.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is longer.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read(path, most, 0)
}

/// The same if no link is in the place of the file.
///
/// # Errors
/// As of [`read_regular`], or if it is a link.
pub fn read_without_link(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read(path, most, libc::O_NOFOLLOW)
}

fn read(path: &Path, most: u64, flags: i32) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let kind = kind(metadata.file_type());
        return Err(io::Error::other(format!(
            "it is {kind}, not a regular file"
        )));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(most) as usize);
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!(
            "it is longer than {} KiB",
            most >> 10
        )));
    }
    Ok(bytes)
}

fn kind(file: FileType) -> &'static str {
    if file.is_dir() {
        "a directory"
    } else if file.is_fifo() {
        "a FIFO"
    } else if file.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
